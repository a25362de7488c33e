"""Run directories: where a training run keeps its files, and which model file is meant."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.errors import ConfigError, ModelFileError, RunError
from charrnn.storage.atomic import write_text_atomically

DEFAULT_ROOT = Path("runs")
MODEL_FILE = "model.safetensors"
RESUME_FILE = "resume.safetensors"
BUILTIN = "builtin"
"""What the model that ships with charrnn is called wherever a model is asked for."""
BUILTIN_MODEL = Path(__file__).with_name("builtin.safetensors")
"""Its file, made by `make pretrained`."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one training run."""

    path: Path

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
        """Everything needed to go on where the run stopped."""
        return self.path / RESUME_FILE

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line an evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def corpus(self) -> Path:
        """Folder of the encoded text."""
        return self.path / "corpus"

    @property
    def is_taken(self) -> bool:
        """True when a run has already written here."""
        return any(p.exists() for p in (self.model, self.resume, self.metrics))

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metrics file by these rows."""
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in rows)
        write_text_atomically(self.metrics, "".join(lines))


def new_run(corpus_name: str, *, out: Path | None = None, name: str | None = None) -> RunDirectory:
    """Choose the directory of a new run; a run that exists is never written over.

    Without `out` or `name` the run is called after its corpus, with a number when needed.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: the directory asked for already holds a run.
    """
    if out is not None or name is not None:
        run = _named_run(out, name)
        if run.path.is_file():
            raise RunError(f"{run.path} is a file: give --out a directory for the run")
        if run.is_taken:
            go_on = ", or go on with it by charrnn train --resume" if run.resume.is_file() else ""
            raise RunError(f"{run.path} already holds a run: choose another --name or --out{go_on}")
        return run
    stem = _slug(corpus_name)
    number = 1
    while True:
        run = RunDirectory(DEFAULT_ROOT / (stem if number == 1 else f"{stem}-{number}"))
        if not run.path.exists():
            return run
        number += 1


def find_model(given: str | os.PathLike[str] | None, root: Path = DEFAULT_ROOT) -> Path:
    """Return the model file that is meant.

    Args:
        given: a model file, a run directory, or `builtin` for the model that ships with charrnn; a
            file of that name is reached as the text `./builtin` (as a Path: absolute, for
            `Path("./builtin")` is `Path("builtin")`). None means the newest model under `root`, or
            the one that ships with charrnn as long as there is no other.
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
    raise ModelFileError(
        f"the model that ships with charrnn is missing ({BUILTIN_MODEL}): install charrnn again"
    )


def unfinished_run(
    corpus_name: str | None, *, out: Path | None = None, name: str | None = None
) -> RunDirectory:
    """Return the run to resume: the one named, or the newest unfinished one of the corpus.

    Args:
        corpus_name: name of the corpus; None for any.
        out: directory of the run.
        name: or its name under `runs/`.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: there is none.
    """
    if out is not None or name is not None:
        run = _named_run(out, name)
        if run.resume.is_file():
            return run
        if run.model.is_file():
            raise RunError(
                f"the run {run.path} is finished, there is nothing to resume; to train its model "
                "further, start a new run with --init"
            )
        raise RunError(f"there is no run in {run.path}: nothing to resume")
    pattern = r".*" if corpus_name is None else rf"{re.escape(_slug(corpus_name))}(-\d+)?"
    found = [
        p
        for p in DEFAULT_ROOT.glob(f"*/{RESUME_FILE}")
        if p.is_file() and re.fullmatch(pattern, p.parent.name)
    ]
    if not found:
        what = "" if corpus_name is None else f" of {corpus_name}"
        raise RunError(f"there is no unfinished run{what} under {DEFAULT_ROOT}: nothing to resume")
    return RunDirectory(max(found, key=_age).parent)


def _named_run(out: Path | None, name: str | None) -> RunDirectory:
    """Return the run in a directory, or of a name under `runs/`."""
    if name is None:
        assert out is not None
        return RunDirectory(out)
    if out is not None:
        raise ConfigError("--out and --name both say where the run goes: give one")
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"--name must be a plain name, not {name!r}; --out takes a path")
    return RunDirectory(DEFAULT_ROOT / name)


def _slug(name: str) -> str:
    """Make a corpus name safe as a directory name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
