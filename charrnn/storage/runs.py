"""Run directories: names, files, the lock of their one owner, and which model file is meant."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrnn.errors import ConfigError, ModelFileError, RunError
from charrnn.storage.atomic import remove_temporary_files, storage_errors, write_text_atomically

DEFAULT_ROOT = Path("runs")
MODEL_FILE = "model.safetensors"
RESUME_FILE = "resume.safetensors"
CORPUS_FILES = ("corpus.json", "ids.bin", "documents.bin", "draft.bin")
BUILTIN = "builtin"
"""What the bundled model is called wherever a model is asked for."""
BUILTIN_MODEL = Path(__file__).with_name("builtin.safetensors")
"""Its file, made by `make pretrained`."""


class RunLock:
    """A file that one process at a time holds; the system lets go of it when the process ends.

    A file system without locks leaves every run unlocked.

    Raises:
        BlockingIOError: another process, or another run of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        """Make the file if needed and take it."""
        self._path, self._file = path, -1
        while self._file < 0:
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                _lock(file)
                # its last owner may have removed the file between the two calls
                if os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path)):
                    self._file = file
            finally:
                if self._file < 0:
                    os.close(file)

    def release(self) -> None:
        """Remove the file and let go of it; a second time does nothing."""
        if self._file < 0:
            return
        file, self._file = self._file, -1
        if os.name != "nt":  # there, a file in use cannot be removed
            self._path.unlink(missing_ok=True)
        os.close(file)
        if os.name == "nt":
            with contextlib.suppress(OSError):
                self._path.unlink()

    def __del__(self) -> None:
        """Let go when nobody uses the run any more; the file is left to the next owner."""
        if self._file >= 0:
            os.close(self._file)


def _lock(file: int) -> None:
    """Take an exclusive lock on an open file without waiting."""
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


@dataclass(frozen=True)
class RunDirectory:
    """The files of one training run.

    Attributes:
        lock: held by the run's owner; None for a run that is only looked at.
        made: directories made for the run, the outermost first.
    """

    path: Path
    lock: RunLock | None = field(default=None, compare=False, repr=False)
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @property
    def model(self) -> Path:
        """The best model so far, by validation loss."""
        return self.path / MODEL_FILE

    @property
    def last(self) -> Path:
        """The model at the end of the run, if it was not the best."""
        return self.path / "last.safetensors"

    @property
    def resume(self) -> Path:
        """Everything needed to continue where the run stopped."""
        return self.path / RESUME_FILE

    @property
    def set_aside(self) -> Path:
        """The best model of the evaluations, while one saved at a stop stands in its place."""
        return self.path / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line an evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def corpus(self) -> Path:
        """Folder of the encoded text."""
        return self.path / "corpus"

    @property
    def lock_file(self) -> Path:
        """There while a command works on the run, or after it was killed."""
        return self.path / ".lock"

    @property
    def is_taken(self) -> bool:
        """True when a run has already written here."""
        return any(p.exists() for p in (self.model, self.resume, self.metrics))

    @property
    def is_running(self) -> bool:
        """True while a command works on the run."""
        if not self.lock_file.exists():
            return False
        try:
            RunLock(self.lock_file)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metrics file by these rows."""
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in rows)
        write_text_atomically(self.metrics, "".join(lines))

    def release(self) -> None:
        """Give the run up: its owner is done."""
        if self.lock is not None:
            self.lock.release()

    def discard(self) -> None:
        """Remove what the run has made before it could begin, and nothing else."""
        self.clear()
        self.release()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def clear(self) -> None:
        """Remove the encoded text and temporary files."""
        for name in CORPUS_FILES:
            (self.corpus / name).unlink(missing_ok=True)
        remove_temporary_files(self.corpus)
        remove_temporary_files(self.path)
        with contextlib.suppress(OSError):
            self.corpus.rmdir()


def new_run(corpus_name: str, *, out: Path | None = None, name: str | None = None) -> RunDirectory:
    """Make and lock the directory of a new run; nothing that exists is ever written over.

    Without `out` or `name` the run is called after its corpus, with a number when needed.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: the directory asked for holds a run or other files.
        StorageError: the directory cannot be made.
    """
    if out is not None or name is not None:
        path = _named_path(out, name)
        if path.is_file():
            raise RunError(f"{path} is a file: give --out a directory for the run")
        if RunDirectory(path).is_taken and not RunDirectory(path).is_running:
            resumable = RunDirectory(path).resume.is_file()
            hint = ", or continue it with charrnn train --resume" if resumable else ""
            raise RunError(f"{path} already holds a run: choose another --name or --out{hint}")
        return _claim_new(path)
    stem = _slug(corpus_name)
    number = 1
    while True:
        path = DEFAULT_ROOT / (stem if number == 1 else f"{stem}-{number}")
        if not RunDirectory(path).is_taken:
            with contextlib.suppress(RunError):  # a running one, or a folder of other files
                return _claim_new(path)
        number += 1


def _claim_new(path: Path) -> RunDirectory:
    """Make the directory if needed, lock it, and see that nothing else is in it."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    was_ours = RunDirectory(path).lock_file.exists()
    run = _owned(RunDirectory(path, made=tuple(reversed(missing))))
    if run.is_taken:  # it began while this command was looking
        run.release()
        raise RunError(f"{path} already holds a run: choose another --name or --out")
    left = {run.lock_file}
    if was_ours:  # what a command left that was killed before its run began
        left |= {run.corpus, *path.glob(".*.tmp")}
    if not set(path.iterdir()) <= left:
        run.discard() if missing else run.release()
        raise RunError(f"{path} is not empty: choose another --name or --out")
    run.clear()
    return run


def _owned(run: RunDirectory) -> RunDirectory:
    """Return the run with its lock.

    Raises:
        RunError: another command works on it.
        StorageError: the lock cannot be made.
    """
    with storage_errors(run.path):
        try:
            return RunDirectory(run.path, RunLock(run.lock_file), run.made)
        except BlockingIOError:
            raise RunError(
                f"another charrnn command is working on {run.path}: wait for it, or choose "
                "another --name or --out"
            ) from None


def unfinished_runs(*, out: Path | None = None, name: str | None = None) -> Iterator[RunDirectory]:
    """Yield the runs that may be meant by a resume: the one named, or all, the newest first.

    Args:
        out: directory of the run.
        name: or its name under `runs/`.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: the run named is finished or does not exist.
    """
    if out is None and name is None:
        found = [p for p in DEFAULT_ROOT.glob(f"*/{RESUME_FILE}") if p.is_file()]
        yield from (RunDirectory(p.parent) for p in sorted(found, key=_age, reverse=True))
        return
    run = RunDirectory(_named_path(out, name))
    if not run.resume.is_file():
        if run.model.is_file():
            raise RunError(
                f"the run {run.path} is finished, there is nothing to resume; to train its model "
                "further, start a new run with --init"
            )
        raise RunError(f"there is no run in {run.path}: nothing to resume")
    yield run


def take_over(run: RunDirectory) -> RunDirectory:
    """Return a run that was stopped or killed, locked and cleared of temporary files.

    Raises:
        RunError: another command works on it.
        StorageError: the lock cannot be made.
    """
    owned = _owned(run)
    remove_temporary_files(run.path)
    return owned


def find_model(given: str | os.PathLike[str] | None, root: Path = DEFAULT_ROOT) -> Path:
    """Return the model file that is meant.

    Args:
        given: a model file, a run directory, or `builtin` for the bundled model; a file of that
            name is reached as the text `./builtin` (as a Path: absolute, for `Path("./builtin")`
            is `Path("builtin")`). None means the newest model under `root`, or the bundled one as
            long as there is no other.
        root: folder of the runs.

    Raises:
        ModelFileError: there is none.
    """
    if given is not None and os.fspath(given) != BUILTIN:
        path = Path(given)
        path = RunDirectory(path).model if path.is_dir() else path
        if not path.is_file():
            raise ModelFileError(f"there is no model at {given}: check the path")
        return path
    models = [p for p in root.glob(f"*/{MODEL_FILE}") if p.is_file()] if given is None else []
    if models:
        return max(models, key=_age)
    if BUILTIN_MODEL.is_file():
        return BUILTIN_MODEL
    if given is None:
        raise ModelFileError("there is no model yet; train one first: charrnn train YOUR_TEXT.txt")
    raise ModelFileError(f"the bundled model is missing ({BUILTIN_MODEL}): install charrnn again")


def _named_path(out: Path | None, name: str | None) -> Path:
    """Return the directory asked for, or that of a name under `runs/`."""
    if name is None:
        assert out is not None
        return out
    if out is not None:
        raise ConfigError("--out and --name both say where the run goes: give one")
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"must be a plain name, not {name!r}; --out takes a path", field="name")
    return DEFAULT_ROOT / name


def _slug(name: str) -> str:
    """Make a corpus name safe as a directory name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
