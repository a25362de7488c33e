"""What is in the run directories under a folder, in short."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from charrnn.config import Unit
from charrnn.errors import ModelFileError, RunError
from charrnn.storage.model_file import ModelRecord, read_model_record
from charrnn.storage.runs import DEFAULT_ROOT, RunDirectory, runs_under

SHOWN_CHARACTERS = 200
"""Of a text in a record, which may be anything."""
RunState = Literal["finished", "interrupted", "running", "damaged"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What is in a run directory, in short."""

    path: Path
    text: str
    """Name of the text; empty if it is not known."""
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
        text=_text(record.get("text")) or _text(named),
        started=_text(record.get("started")) or _last_written(run),
        val_loss=val_loss,
        train_loss=None if is_validated else _number(training.get("train_loss_nats")),
        bits_per_char=_number(training.get("bits_per_char")) if is_validated else None,
        unit=None if model is None else model.vocabulary.unit,
        members=None if model is None else model.config.members,
        state="running" if run.is_running else state,
    )


def _last_written(run: RunDirectory) -> str:
    """Return when a run was last written to; nothing if that is no date."""
    written = max(p.lstat().st_mtime for p in (run.path, *run.path.iterdir()))
    try:
        return datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _text(value: Any) -> str:
    return value[:SHOWN_CHARACTERS] if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, float) and math.isfinite(value)
    return value if is_finite else None
