"""What is in the run directories under a folder, in short, and how a run went."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from charrnn.config import MAX_MEMBERS, Unit
from charrnn.errors import ModelFileError, RunError
from charrnn.storage.model_file import ModelRecord, read_model_record
from charrnn.storage.reading import open_ordinary, reason
from charrnn.storage.runs import DEFAULT_ROOT, RunDirectory, find_model, runs_under

SHOWN_CHARACTERS = 200
"""Of a text in a record, which may be anything."""
MAX_METRICS_BYTES = 1 << 26
MOST_ROWS = 100_000
"""Evaluations of a run that are read."""
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a record may raise that a stranger has made."""
RunState = Literal["finished", "interrupted", "running", "damaged"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What is in a run directory, in short."""

    path: Path
    text: str
    """Name of the text, of a merged model the names of all; empty if it is not known."""
    started: str
    """Date and time, ISO 8601; of a run without a record, when it was last written to."""
    val_loss: float | None
    """Of the best model, in nats per `unit`; None where nothing was held out."""
    train_loss: float | None
    """Of a model without a validation loss, by which it was chosen."""
    bits_per_char: float | None
    """The validation loss in bits per character, whatever the unit."""
    unit: Unit | None
    """None as long as there is no model."""
    members: int | None
    state: RunState


def list_runs(root: Path = DEFAULT_ROOT) -> list[RunSummary]:
    """Return what is in the run directories under a folder, the one begun last first.

    Raises:
        RunError: there is no such folder; `runs/` itself may be missing.
    """
    found = runs_under(root)
    if not found and root != DEFAULT_ROOT and not root.is_dir():
        raise RunError(f"there is no folder {root}: name one that has runs, such as {DEFAULT_ROOT}")
    runs = []
    for path in found:
        with contextlib.suppress(OSError):  # removed in the meantime, or not for us to read
            if RunDirectory(path).is_taken or RunDirectory(path).is_running:
                runs.append(_summary(RunDirectory(path)))
    return sorted(runs, key=lambda run: (run.started, str(run.path)), reverse=True)


def _summary(run: RunDirectory) -> RunSummary:
    model: ModelRecord | None = None
    state: RunState = "finished"
    if run.model.exists():
        try:
            model = read_model_record(run.model)
        except ModelFileError:
            state = "damaged"
    elif not run.is_resumable:
        state = "damaged"
    if state == "finished" and run.is_resumable and not run.is_finished:
        state = "interrupted"
    training = {} if model is None else model.training
    record, corpus = run.read_record(), training.get("corpus")
    named = corpus.get("name") if isinstance(corpus, dict) else None
    val_loss = _number(training.get("val_loss_nats"))
    is_validated = val_loss is not None
    return RunSummary(
        path=run.path,
        text=_text(record.get("text")) or _text(named) or _text(texts_of(training)),
        started=_text(record.get("started")) or _last_written(run),
        val_loss=val_loss,
        train_loss=None if is_validated else _number(training.get("train_loss_nats")),
        bits_per_char=_number(training.get("bits_per_char")) if is_validated else None,
        unit=None if model is None else model.vocabulary.unit,
        members=None if model is None else model.config.members,
        state="running" if run.is_running else state,
    )


class CurvePoint(NamedTuple):
    """One evaluation of a run; what is not known of it is None."""

    step: int | None
    epoch: float | None
    characters: int | None
    """Units of the training text read so far, all epochs together."""
    elapsed_s: float | None
    train_loss_nats: float | None
    val_loss_nats: float | None
    bits_per_char: float | None


class RunCurve(NamedTuple):
    """How a run went.

    Attributes:
        name: of the run, as it was given.
        unit: of its losses.
        points: its evaluations.
    """

    name: str
    unit: Unit
    points: tuple[CurvePoint, ...]


def training_curve(given: Path) -> RunCurve:
    """Return how a run went, by its metrics or, without them, by the record of its model.

    Args:
        given: run directory, model file, or `builtin`.

    Raises:
        ModelFileError: there is no model, nor a run that has been evaluated.
        RunError: nothing is recorded, as of a merged model.
    """
    folder = given if given.is_dir() else given.parent
    run = RunDirectory(folder)
    is_run = given.is_dir() or given.name in (run.model.name, run.last.name)
    rows = read_metrics(run) if is_run else []
    model = None
    if not rows or run.model.is_file():
        model = read_model_record(find_model(given if not rows else folder))
    training: Mapping[str, Any] = {} if model is None else model.training
    recorded = training.get("curve")
    if not rows and isinstance(recorded, list):
        rows = [row for row in recorded[:MOST_ROWS] if isinstance(row, dict)]
    if not rows:
        raise RunError(f"{given} has no record of its training: name the directory of a run")
    corpus = training.get("corpus")
    n_train = _real(corpus.get("n_train")) if isinstance(corpus, dict) else None
    points = []
    for row in rows:
        values: dict[str, Any] = {name: _real(row.get(name)) for name in CurvePoint._fields}
        if values["epoch"] is not None and n_train is not None:
            values["characters"] = values["epoch"] * n_train
        in_chars = row.get("unit", training.get("unit", "char")) == "char"
        if values["bits_per_char"] is None and in_chars and values["val_loss_nats"] is not None:
            values["bits_per_char"] = values["val_loss_nats"] / math.log(2)
        for name in ("step", "characters"):
            values[name] = None if values[name] is None else round(values[name])
        points.append(CurvePoint(**values))
    in_bytes = any(row.get("unit") == "byte" for row in rows) or training.get("unit") == "byte"
    return RunCurve(str(given), "byte" if in_bytes else "char", tuple(points))


def read_metrics(run: RunDirectory) -> list[Mapping[str, Any]]:
    """Return the rows of a run's `metrics.jsonl`; none if it has not been evaluated yet.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        with open_ordinary(run.metrics) as file:
            lines = file.read(MAX_METRICS_BYTES).splitlines()
        rows = [json.loads(line) for line in lines[:MOST_ROWS]]
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as error:
        raise RunError(f"{run.metrics} cannot be read: {reason(error)}") from error
    return [row for row in rows if isinstance(row, dict)]


class Surroundings(NamedTuple):
    """What stands beside a model in its run directory.

    Attributes:
        record: `run.json`; empty without one.
        which: what the run's other model is, `last` or `best`.
        other: its file; None if there is none.
        found: what it says of itself, or why it cannot be read.
    """

    record: Mapping[str, Any]
    which: str
    other: Path | None
    found: ModelRecord | ModelFileError | None


def surroundings(path: Path) -> Surroundings | None:
    """Return what stands beside a model; None if it is not in a run directory."""
    run = RunDirectory(path.parent)
    others = {run.model: ("last", run.last), run.last: ("best", run.model)}
    if path not in others:
        return None
    which, other = others[path]
    if not other.exists():
        return Surroundings(run.read_record(), which, None, None)
    try:
        return Surroundings(run.read_record(), which, other, read_model_record(other))
    except ModelFileError as error:
        return Surroundings(run.read_record(), which, other, error)


def parts_of(training: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the records of the models that were merged into one, each with its text."""
    for part in training.get("merged") or ():
        known = {"corpus": training.get("corpus"), **part}
        if "merged" in part:
            yield from parts_of(known)
        else:
            yield known


def texts_of(training: Mapping[str, Any]) -> str:
    """Return the names of the texts that the models of a merged one were trained on."""
    try:
        parts = itertools.islice(parts_of(training), MAX_MEMBERS)
        return ", ".join(dict.fromkeys(str(part["corpus"]["name"]) for part in parts))
    except UNREADABLE:
        return ""


def _last_written(run: RunDirectory) -> str:
    """Return when a run was last written to; nothing if that is no date."""
    written = max(p.lstat().st_mtime for p in (run.path, *run.path.iterdir()))
    try:
        return datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _text(value: Any) -> str:
    return value[:SHOWN_CHARACTERS] if isinstance(value, str) else ""


def _real(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, float) and math.isfinite(value)
    return value if is_finite else None
