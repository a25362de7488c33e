"""What all tests share: one thread, the command line in process, one tiny model, small runs."""

# ruff: noqa: E402  (threads are limited before NumPy and torch are imported)

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # subprocesses inherit it

import functools
import io
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import reference
import texts
from hypothesis import HealthCheck, settings
from rich.style import Style

from charrnn.config import ModelConfig
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import EOS_ID, Vocabulary

_SHARED = {
    "deadline": None,
    "max_examples": 60,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("random", **_SHARED)
settings.register_profile("ci", derandomize=True, **_SHARED)
for _name, _default in (
    ("SIGINT", signal.default_int_handler),
    ("SIGTERM", signal.SIG_DFL),
    ("SIGHUP", signal.SIG_DFL),
):  # whoever started the tests may ignore signals, and charrnn leaves those ignored
    if signal.getsignal(getattr(signal, _name, signal.SIGTERM)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _default)

settings.load_profile("ci" if os.environ.get("CI") else "random")

if os.name == "nt":  # a test writes the line ends that it names
    Path.write_text = functools.partialmethod(Path.write_text, newline="\n")


def needs(what: str, is_here: object) -> pytest.MarkDecorator:
    """Skip a test where it cannot run, with the reason."""
    return pytest.mark.skipif(not is_here, reason=f"needs {what}")


posix = needs("POSIX: its signals, descriptors, terminals or shell", os.name == "posix")
links = needs("symbolic links, which Windows allows to few", os.name == "posix")
named_pipes = needs("named pipes", hasattr(os, "mkfifo"))
bash = needs("bash", os.name == "posix" and shutil.which("bash"))
full_device = needs("/dev/full", os.path.exists("/dev/full"))

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyzé—ж中"
"""Of the tiny model: letters, and characters that ASCII and Windows code pages lack."""

CRASH = re.compile("Traceback|internal error")
"""What a user sees of an error that nobody thought of."""

ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\x1b(?!\\[[0-9;]*m)"
)
"""What acts on a terminal, except the colours that are ours."""

COMMENTARY = re.compile(r"(seed \d|model |page |ends of texts)")
"""Which model, which seed: said on stderr before anything can go wrong."""

TINY_RUN = (
    "--steps", 2, "--hidden", 8, "--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu",
)  # fmt: skip
"""Options of the smallest run."""

OUTPUT_VARIABLES = (
    "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONUTF8", "COLUMNS", "TERM", "CHARRNN_DEBUG",
)  # fmt: skip
"""Environment variables that change how programs write."""


@dataclass(frozen=True)
class Result:
    """Exit code and decoded streams of a command that has ended."""

    code: int
    out: str
    err: str

    def assert_one_error(self, code, *fragments):
        """One line that begins with the program's name and says what is wrong; no traceback."""
        assert self.code == code, self.err
        assert not CRASH.search(self.err), self.err
        said = [line for line in self.err.splitlines() if not COMMENTARY.match(line)]
        assert len(said) == 1, self.err
        assert said[0].startswith("charrnn: ")
        for fragment in fragments:
            assert fragment in said[0] or fragment.replace("/", os.sep) in said[0], self.err


@pytest.fixture(autouse=True)
def fresh_styles():
    """A style keeps the codes of the first terminal that it was shown on: forget them."""
    Style.parse.cache_clear()
    Style._add.cache_clear()


@pytest.fixture
def charrnn(tmp_path, monkeypatch):
    """Run the command line in this process, in an empty directory.

    `charrnn("sample", "-m", path, stdin=b"...")` returns a `Result`; more keywords are environment
    variables, such as COLUMNS="80". The streams named in `terminals` are terminals. `encoding` is
    that of the system.
    """

    def charrnn(*arguments, stdin=b"", encoding="utf-8", terminals=(), **variables):
        from charrnn.cli import main

        def stream(name, content=b""):
            made = io.TextIOWrapper(io.BytesIO(content), encoding)
            patch.setattr(sys, name, made)
            if name in terminals:
                made.isatty = lambda: True

        with monkeypatch.context() as patch:
            for name in OUTPUT_VARIABLES:
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["charrnn", *map(str, arguments)])
            stream("stdin", stdin)
            stream("stdout")
            stream("stderr")
            with pytest.raises(SystemExit) as ended:
                main()
            for written in (sys.stdout, sys.stderr):
                written.flush()
            streams = (sys.stdout, sys.stderr)
            out, err = (s.buffer.getvalue().decode(s.encoding, "surrogateescape") for s in streams)
        return Result(ended.value.code or 0, out, err)

    return charrnn


@pytest.fixture
def text(tmp_path):
    """A file of prose, `prose.txt`, in the directory of the `charrnn` fixture."""
    path = tmp_path / "prose.txt"
    prose = texts.english(3000).replace("\n", "\n\n", 1)  # without it, it would look like a list
    path.write_text(prose, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_model() -> SavedModel:
    """A model with random weights: it writes gibberish, but exactly."""
    vocabulary = Vocabulary(CHARACTERS)
    config = ModelConfig(
        vocab_size=len(vocabulary), cell="gru", hidden_size=12, num_layers=2, embedding_size=6
    )
    weights = reference.random_weights(config, seed=1)
    weights["output.bias"][EOS_ID] = -100.0  # it never ends by itself
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        weights={name: array.astype(np.float32) for name, array in weights.items()},
        training={},
    )


@pytest.fixture(scope="session")
def tiny_model_path(tiny_model: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, tiny_model)
    return path


@pytest.fixture
def prepare(tmp_path):
    """Write a text and return a trainer for it, small; each run in a directory of its own.

    Keywords are settings, or arguments of `prepare_training`.
    """
    from charrnn.training.prepare import prepare_training

    numbers = iter(range(100))
    small = {
        "hidden_size": 24,
        "embedding_size": 8,
        "batch_size": 8,
        "bptt": 16,
        "dtype": "float32",
        "device": "cpu",
        "sample_every": 0,
    }
    arguments = ("name", "init", "held_out", "started", "progress")

    def prepare(text, **options):
        path = tmp_path / "text.txt"
        path.write_text(text, encoding="utf-8")
        out = options.pop("out", tmp_path / f"run{next(numbers)}")
        given = {name: options.pop(name) for name in arguments if name in options}
        return prepare_training([path], {**small, **options}, out=out, **given)

    return prepare
