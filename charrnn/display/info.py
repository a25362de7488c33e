"""What a model file says about itself, and what a machine has: labels and values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from charrnn.config import MAX_MEMBERS, Unit
from charrnn.display.format import (
    UNITS,
    architecture,
    count,
    duration,
    loss,
    size,
    sparkline,
    verdict,
)
from charrnn.display.terminal import columns, visible_text, wrapped
from charrnn.engine.quantized import INT8_COST
from charrnn.errors import ModelFileError
from charrnn.events import Verdict
from charrnn.storage.listing import UNREADABLE, Surroundings, parts_of
from charrnn.storage.model_file import ModelRecord, SavedModel
from charrnn.training.machine import Machine

SHOWN_CHARACTERS = 300
LONGEST_VALUE = 1000
"""Characters of a value, which a stranger may have made as long as the file."""
LABEL_WIDTH = 15
DOCUMENTS = {
    "none": "none, one long text",
    "line": "one on each line",
    "blank-line": "separated by blank lines",
    "file": "one in each file",
}
Row = tuple[str, str]
Record = Mapping[str, Any]


def show_info(path: Path, saved: SavedModel, run: Surroundings | None) -> None:
    """Print a model's shape, alphabet, training and run to stdout.

    Args:
        path: where it was read from.
        saved: the model.
        run: what stands beside it; None if it is not in a run directory.
    """
    rows = [("file", str(path)), *_model_rows(saved), *_training_rows(saved)]
    _show([*rows, *(_run_rows(run) if run is not None else ())])


def show_system(version: str, machine: Machine) -> None:
    """Print the facts of a bug report to stdout.

    Args:
        version: charrnn's.
        machine: where it runs.
    """
    _show([("charrnn", version), *_library_rows(machine), *_machine_rows(machine)])


def _show(rows: Iterable[Row]) -> None:
    """Print values beside their labels, broken between words on a terminal."""
    width = columns(sys.stdout)
    console, margin = Console(highlight=False), " " * LABEL_WIDTH
    for label, value in rows:
        shown = visible_text(value, LONGEST_VALUE)
        lines = wrapped(shown, width and max(1, width - LABEL_WIDTH)).split("\n")
        row = Text.assemble((label.ljust(LABEL_WIDTH), "bold"), f"\n{margin}".join(lines))
        row.rstrip()
        console.print(row, soft_wrap=True)


def _library_rows(machine: Machine) -> Iterator[Row]:
    versions = {name: found or "not installed" for name, found in machine.libraries.items()}
    yield "Python", machine.python
    yield "NumPy", f"{versions.pop('numpy')}, products by {machine.blas}"
    yield "libraries", ", ".join(f"{name} {found}" for name, found in versions.items())
    torch = machine.torch
    if torch.problem:
        yield "torch", f"{torch.version}, which cannot be used ({torch.problem})"
    else:
        yield "torch", torch.version or "not installed, and needed for training only"


def _machine_rows(machine: Machine) -> Iterator[Row]:
    yield "system", machine.system
    memory = f", {size(machine.memory)} of memory" if machine.memory else ""
    yield "processor", f"{machine.processor or machine.system}{memory}"
    torch, cores = machine.torch, f"{machine.usable_cores} of {machine.cores} cores"
    yield "threads", f"{cores}, {torch.threads} for torch" if torch.threads else cores
    if torch.device:
        small, large = torch.dtypes
        below = f" ({small} below {torch.smallest} units)" if small != large else ""
        yield "training", f"on {torch.device}, in {large}{below}"
        for name, product in torch.devices.items():
            yield "", f"{name} is {product or 'a GPU'}"
    yield "runs", f"{machine.n_runs} in {machine.runs}"
    yield "encodings", ", ".join(f"{name} {code}" for name, code in machine.encodings.items())
    width = columns(sys.stdout)
    shown = f" ({width} columns)" if width else ""
    yield "terminals", ", ".join(machine.terminals).replace("stdout", f"stdout{shown}") or "none"
    yield "variables", " ".join(f"{k}={v}" for k, v in machine.variables.items()) or "none"


def _model_rows(saved: SavedModel) -> Iterator[Row]:
    yield "architecture", architecture(saved.config)
    yield "parameters", f"{saved.config.num_parameters():,}"
    characters = saved.vocabulary.characters
    unit = saved.vocabulary.unit
    yield "alphabet", f"{len(characters)} {UNITS[unit][1]}, UNK and EOS"
    if unit == "char":
        shown = "".join(c if c.isprintable() else "·" for c in characters[:SHOWN_CHARACTERS])
        yield "", shown + "…" * (len(characters) > SHOWN_CHARACTERS)
    yield "documents", DOCUMENTS[saved.text.documents]
    if saved.text.documents != "none":
        yield "", f"each end counts as one {UNITS[unit][0]} in the losses"
    yield "normalisation", saved.text.normalize


def _training_rows(saved: ModelRecord) -> Iterator[Row]:
    """Yield what the record of the training says; it comes from the file and may be anything."""
    for rows in (
        _corpus,
        _extent,
        _merged,
        _settings,
        _validation,
        _int8,
        _curve,
        _verdict,
        _versions,
    ):
        yield from _readable(rows, saved.training, saved.vocabulary.unit)
    if note := validation_note(saved):
        yield "validation", note


def validation_note(saved: ModelRecord) -> str:
    """Return what the validation of a merged model is worth if its models held out other texts."""
    try:
        parts = list(islice(parts_of(saved.training), MAX_MEMBERS))
        texts = {str(part["corpus"]["sha256"]) for part in parts}
        seeds = {str(part["config"]["seed"]) for part in parts}
    except UNREADABLE:
        return ""
    advice = "judge the merged model by a text that none of them has read"
    if len(texts) > 1:
        return (
            "the models were trained on different texts, and one may have read what another held "
            f"out: {advice}"
        )
    if saved.text.documents != "none" and len(seeds) > 1:
        return (
            "models trained with different seeds hold out different documents, unless they share "
            f"a --held-out file: {advice}"
        )
    return ""


def _readable(
    rows: Callable[[Record, Unit], Iterable[Row]], training: Record, unit: Unit
) -> list[Row]:
    """Return some rows, or that they cannot be read."""
    try:
        return list(rows(training, unit))
    except UNREADABLE:
        what = rows.__name__.removeprefix("_")
        return [(what, "the file's record of it cannot be read")]


def _corpus(training: Record, unit: Unit) -> Iterator[Row]:
    corpus = training.get("corpus")
    if corpus:
        yield "corpus", f"{corpus['name']}, {count(corpus['n_chars'])} characters"
        yield "sha256", str(corpus["sha256"])


def _extent(training: Record, unit: Unit) -> Iterator[Row]:
    if "step" in training:
        parts = [f"{training['epochs']:.3g} epochs", f"{training['step']:,} steps"]
        if "elapsed_s" in training:  # as in the bundled model
            parts.append(duration(training["elapsed_s"]))
        yield "trained for", ", ".join([*parts, f"{training['device']} {training['dtype']}"])


def _merged(training: Record, unit: Unit) -> Iterator[Row]:
    parts = training.get("merged")
    if parts:
        yield "merged from", f"{len(parts)} models"
    for part in (parts or ())[:MAX_MEMBERS]:
        if "merged" in part:
            yield "", f"one that was itself merged from {len(part['merged'])} models"
        else:
            corpus = part.get("corpus")
            text = [] if corpus is None else [str(corpus["name"])]
            yield "", ", ".join([*text, f"seed {part['config']['seed']}", *_standing(part, unit)])


def _settings(training: Record, unit: Unit) -> Iterator[Row]:
    settings = training.get("config")
    if settings:
        yield "settings", ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None)


def _validation(training: Record, unit: Unit) -> Iterator[Row]:
    if training.get("val_loss_nats") is not None:
        yield "validation", _loss(training, unit)
        share = training.get("unknown_share", 0)
        if share:
            yield "", f"of the known characters; {100 * share:.2g}% were unknown"
        temperature = training.get("temperature", 1)
        if temperature != 1:
            yield "calibration", f"temperature {temperature:.3f}, fitted to the validation text"


def _int8(training: Record, unit: Unit) -> Iterator[Row]:
    if INT8_COST in training:
        yield "int8", f"adds {training[INT8_COST]:.5f} bits/{unit} on the validation text"


def _curve(training: Record, unit: Unit) -> Iterator[Row]:
    losses = [row["val_loss_nats"] for row in training.get("curve", []) if row["val_loss_nats"]]
    if len(losses) > 1:
        first, last = (f"{losses[n]:.2f}" for n in (0, -1))
        room = (columns(sys.stdout) or LONGEST_VALUE) - LABEL_WIDTH - len(first) - len(last) - 2
        marks = sparkline(losses, max(1, room), sys.stdout.encoding or "utf-8")
        yield "curve", f"{first} {marks} {last}"


def _verdict(training: Record, unit: Unit) -> Iterator[Row]:
    found = training.get("verdict")
    if isinstance(found, Mapping):
        yield "verdict", verdict(Verdict(**found), unit)
    elif found is not None:  # a sentence, as in the bundled model
        yield "verdict", str(found)


def _versions(training: Record, unit: Unit) -> Iterator[Row]:
    made_by = [f"{name} {training[name]}" for name in ("charrnn", "torch") if name in training]
    if made_by:
        yield "made by", ", ".join(made_by)


def _run_rows(run: Surroundings) -> Iterator[Row]:
    """Yield how the model's run was begun, and what its other model is: the last, or the best."""
    yield from _readable(_begun, run.record, "char")
    if run.other is None:
        return
    yield f"{run.which} model", str(run.other)
    if isinstance(run.found, ModelFileError):
        yield "", str(run.found)
    elif run.found is not None:
        yield "", ", ".join(_standing(run.found.training, run.found.vocabulary.unit))


def _begun(record: Record, unit: Unit) -> Iterator[Row]:
    if "started" in record:
        yield "begun", str(record["started"])
    if "command" in record:
        yield "command", str(record["command"])


def _standing(training: Record, unit: Unit) -> list[str]:
    """Return how far a model was trained and how good it was then."""

    def parts(training: Record, unit: Unit) -> Iterator[Row]:
        yield "", f"step {training['step']:,}"
        if training["val_loss_nats"] is not None:
            yield "", f"validation {_loss(training, unit)}"

    return [text for _, text in _readable(parts, training, unit)]


def _loss(training: Record, unit: Unit) -> str:
    return loss(training["val_loss_nats"], unit, training.get("bits_per_char"))
