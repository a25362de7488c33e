"""Other systems: what Windows lacks or forbids is taken away here, and charrnn does without."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import json
import mmap
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import texts
from conftest import CRASH, TINY_RUN, needs

import charrnn
from charrnn.cli import app
from charrnn.config import quoted
from charrnn.errors import ConfigError
from charrnn.storage import atomic
from charrnn.storage.reading import require_possible
from charrnn.storage.runs import slug
from charrnn.training.system import multiplies_bfloat16

MODULES = ("fcntl", "resource", "pty", "tty", "termios", "pwd", "grp", "readline", "syslog")
SIGNALS = ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGTSTP")
FUNCTIONS = (
    "mkfifo", "fork", "forkpty", "openpty", "sysconf", "sched_getaffinity", "getuid", "geteuid",
    "fchmod", "getloadavg", "killpg", "setsid", "statvfs", "wait", "mknod",
    "O_NOFOLLOW", "O_NONBLOCK", "SEEK_HOLE", "SEEK_DATA",
)  # fmt: skip
COMMANDS = {
    "sample": ("sample", "--length", 40, "--seed", 1),
    "score": ("score", "To be, or not to be"),
    "score in rows": ("score", "--file", "text.txt", "--whole", "--rows", 2),
    "page": ("score", "To be", "--html", "page.html"),
    "page again": ("score", "To be", "--html", "page.html"),
    "info": ("info",),
    "system": ("info", "--system"),
    "fail": ("train", "text.txt", "--documents", "line", "--min-count", 10**6, *TINY_RUN),
    "train": ("train", "text.txt", "--documents", "line", *TINY_RUN),
    "again": ("train", "--resume", "--name", "text", "--steps", 2),
    "run": ("sample", "runs/text", "--length", 10),
    "list": ("list",),
}
"""Command lines, one after the other; the one that fails has mapped files by then."""


def become_windows():
    """Take away what Windows lacks, give what it has, and forbid what it forbids."""
    fcntl = importlib.import_module("fcntl")
    for name in MODULES:
        sys.modules[name] = None
    for name in SIGNALS:
        delattr(signal, name)
    signal.SIGBREAK = signal.SIGUSR1
    for module in [importlib.import_module(m.name) for m in packages()]:
        if hasattr(module, "os"):
            module.os = Windows("os")
    for name in FUNCTIONS:
        delattr(os, name)
    del mmap.MADV_DONTNEED

    def locking(file, mode, n_bytes):
        assert (mode, n_bytes) == ("without waiting", 1)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    sys.modules["msvcrt"] = SimpleNamespace(locking=locking, LK_NBLCK="without waiting")
    sys.addaudithook(refuse_what_is_in_use)


class Windows(ModuleType):
    """`os` as our modules see it: pathlib must not."""

    name = "nt"

    def __getattr__(self, name):
        return getattr(os, name)


def packages():
    return pkgutil.walk_packages(charrnn.__path__, "charrnn.")


def refuse_what_is_in_use(event, arguments):
    """Windows neither removes nor replaces a file that is open or mapped."""
    if event == "os.remove":
        paths, folder = arguments[:1], arguments[1]
    elif event == "os.rename":
        paths, folder = arguments[:2], -1
    else:
        return
    base = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
    taken = {line.split(None, 5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    for handle in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            taken.add(os.readlink(f"/proc/self/fd/{handle}"))
    for path in paths:
        if os.path.realpath(os.path.join(base, os.fspath(path))) in taken:
            raise PermissionError(errno.EACCES, "Permission denied", path)


def work():
    """Run all commands, and print what each has left: exit code and messages."""
    become_windows()
    from charrnn.cli import main

    told = {}
    for name, words in COMMANDS.items():
        sys.argv = ["charrnn", *map(str, words)]
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO()) for _ in range(2))
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = (s.buffer.getvalue().decode() for s in (sys.stdout, sys.stderr))
        files = [path.as_posix() for path in Path("runs").rglob("*")]
        told[name] = {"code": code, "out": out, "err": err, "files": files}
        gc.collect()  # what the end of a process closes
    sys.__stdout__.write(json.dumps(told))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What every command has left where this system stands for Windows."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "text.txt").write_text(texts.english(3000), encoding="utf-8")
    script = [sys.executable, Path(__file__).absolute()]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


on_linux = needs("/proc, to see which files are in use", os.path.exists("/proc/self/maps"))


@on_linux
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "fail"])
def test_everything_works_where_posix_is_missing(told, name):
    assert told[name]["code"] == 0, told[name]["err"]
    assert not CRASH.search(told[name]["err"])
    assert told[name]["out"] or name in ("train", "again")


@on_linux
def test_a_file_in_use_hides_no_error_and_goes_with_the_next_command(told):
    failed = told["fail"]
    assert (failed["code"], failed["err"].count("\n")) == (2, 1)
    assert "--min-count" in failed["err"]
    assert "runs/text/corpus/documents.bin" in failed["files"], "it was mapped"
    assert "runs/text/.charrnn.lock" in failed["files"]
    assert "runs/text/model.safetensors" in told["train"]["files"]
    assert "runs/text-2" not in told["train"]["files"], "the next run has the place"


# commands to paste


def taken_apart(line):
    """The words of a command line, by the rules of Microsoft's C library."""
    words, word, is_quoted, k = [], None, False, 0
    while k < len(line):
        n = len(line[k:]) - len(line[k:].lstrip("\\"))
        k += n
        is_mark = k < len(line) and line[k] == '"'
        word = (word or "") + "\\" * (n // 2 if is_mark else n) if n else word
        if is_mark and n % 2:
            word += '"'
        elif is_mark:
            is_quoted, word = not is_quoted, word or ""
        elif k < len(line) and line[k] == " " and not is_quoted:
            words, word = [*words, *([] if word is None else [word])], None
        elif k < len(line):
            word = (word or "") + line[k]
        k += 1
    return words if word is None else [*words, word]


def test_commands_for_windows_can_be_pasted():
    words = [
        "charrnn", "", "a b", "runs\\mine", "C:\\my runs\\", 'say "hi"', 'a\\"b', "\\\\", "0.3,0.7",
        "it's", "a&b", "x\\ ", "é 中",
    ]  # fmt: skip
    line = " ".join(quoted(word, "nt") for word in words)
    assert taken_apart(line) == words
    assert taken_apart(subprocess.list2cmdline(words)) == words, "the judge knows the rules"
    for word in words:
        bare = not quoted(word, "nt").startswith('"')
        assert not (bare and set(word) & set("&|<>^%()',; ")), "cmd would act on it"


# torch as Macs have it


def test_a_torch_without_mkldnn_computes_in_float32(monkeypatch):
    import torch

    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not multiplies_bfloat16(torch.device("cpu"))


# names, pipes, files in use


@pytest.mark.parametrize("name", ["con", "NUL", "Aux.txt", "com1", "lpt9.tar.gz"])
def test_no_run_is_called_what_windows_reserves(name):
    assert slug(name) == f"run-{name}"
    assert slug(f"{name[0]}-{name}") == f"{name[0]}-{name}"


@pytest.mark.parametrize(("number", "said"), [(206, "too long"), (123, "no name that a file can")])
def test_names_that_windows_refuses_are_told(monkeypatch, number, said):
    def refuse(path):
        error = OSError(errno.EINVAL, "it is refused")
        error.winerror = number
        raise error

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ConfigError, match=said):
        require_possible("a?b", "out")


class ClosedPipe(io.RawIOBase):
    """A pipe that nobody reads, as Windows has it."""

    def __init__(self, file):
        self._file = file

    def writable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    def write(self, data):
        raise OSError(errno.EINVAL, "Invalid argument")


def test_a_reader_that_has_gone_is_no_error_on_windows_either(monkeypatch, tmp_path, capsys):
    with open(tmp_path / "stands for a pipe", "wb") as file:
        pipe = io.TextIOWrapper(io.BufferedWriter(ClosedPipe(file)), "utf-8")
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "argv", ["charrnn", "sample", "--length", "20"])
        assert app.run() == 0
        with contextlib.suppress(OSError):
            pipe.close()
    assert "cannot" not in capsys.readouterr().err


def test_an_invalid_argument_elsewhere_is_told(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert not app._has_no_reader(OSError(errno.EINVAL, "Invalid argument"))
    assert not app._has_no_reader(OSError(errno.ENOSPC, "No space left on device"))


def test_a_file_that_somebody_reads_is_replaced_a_little_later(tmp_path, monkeypatch):
    real, refused = os.replace, [1, 2]

    def replace(source, target):
        if refused:
            refused.pop()
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(atomic.StorageError, match="permission denied"):
        atomic.write_text_atomically(tmp_path / "file", "new")
    monkeypatch.setattr(atomic, "READERS_S", 0.2)
    refused[:] = [1, 2]
    atomic.write_text_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


if __name__ == "__main__":
    work()
