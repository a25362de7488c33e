"""What a model file says about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.format import architecture, count, duration, loss, verdict
from charrnn.events import Verdict
from charrnn.storage.model_file import SavedModel

BARS = "▁▂▃▄▅▆▇█"
SHOWN_CHARACTERS = 300
DOCUMENTS = {
    "none": "one long text",
    "line": "one a line",
    "blank-line": "separated by blank lines",
    "file": "one a file",
}

Row = tuple[str, str]
Record = Mapping[str, Any]


def show_info(
    path: Path, saved: SavedModel, *, other: tuple[str, Path, SavedModel] | None = None
) -> None:
    """Print a model's shape, alphabet and training to stdout.

    Args:
        path: where it was read from.
        saved: the model.
        other: the other model of its run, if it has one: `best` or `last`, its path, and itself.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = [("file", str(path)), *_model_rows(saved), *_training_rows(saved.training)]
    if other is not None:
        which, where, model = other
        rows += [(f"{which} of the run", str(where)), ("", ", ".join(_standing(model.training)))]
    for label, value in rows:
        table.add_row(label, Text(value))
    Console(highlight=False).print(table)


def _model_rows(saved: SavedModel) -> Iterator[Row]:
    yield "architecture", architecture(saved.config)
    yield "parameters", f"{saved.config.num_parameters():,}"
    characters = saved.vocabulary.characters
    if saved.vocabulary.unit == "byte":
        yield "alphabet", f"{len(characters)} bytes, UNK and EOS"
    else:
        yield "alphabet", f"{len(characters)} characters, UNK and EOS"
        shown = "".join(c if c.isprintable() else "·" for c in characters[:SHOWN_CHARACTERS])
        yield "", shown + "…" * (len(characters) > SHOWN_CHARACTERS)
    yield "documents", DOCUMENTS[saved.text.documents]
    yield "normalisation", saved.text.normalize


def _training_rows(training: Record) -> Iterator[Row]:
    """Yield what the record of the training says; it comes from the file and may be anything."""
    for rows in (_corpus, _extent, _merged, _settings, _validation, _curve, _verdict):
        yield from _readable(rows, training)


def _readable(rows: Callable[[Record], Iterable[Row]], training: Record) -> list[Row]:
    """Return some rows, or that they cannot be read."""
    try:
        return list(rows(training))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        what = rows.__name__.removeprefix("_")
        return [(what, "the file's record of it cannot be read")]


def _corpus(training: Record) -> Iterator[Row]:
    corpus = training.get("corpus")
    if corpus:
        yield "corpus", f"{corpus['name']}, {count(corpus['n_chars'])} characters"
        yield "", f"sha256 {corpus['sha256']}"


def _extent(training: Record) -> Iterator[Row]:
    if "step" in training:
        yield (
            "trained for",
            f"{training['epochs']:.3g} epochs, {training['step']:,} steps, "
            f"{duration(training['elapsed_s'])}, {training['device']} {training['dtype']}",
        )


def _merged(training: Record) -> Iterator[Row]:
    parts = training.get("merged")
    if parts:
        yield "merged from", f"{len(parts)} models"
    for part in parts or ():
        if "merged" in part:
            yield "", f"one that was itself merged from {len(part['merged'])} models"
        else:
            yield "", ", ".join([f"seed {part['config']['seed']}", *_standing(part)])


def _settings(training: Record) -> Iterator[Row]:
    settings = training.get("config")
    if settings:
        yield "settings", ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None)


def _validation(training: Record) -> Iterator[Row]:
    if training.get("val_loss_nats") is not None:
        yield "validation", f"{loss(training['val_loss_nats'])} per character"
        temperature = training.get("temperature", 1)
        if temperature != 1:
            yield "calibration", f"temperature {temperature:.3f}, fitted to the validation text"


def _curve(training: Record) -> Iterator[Row]:
    losses = [row["val_loss_nats"] for row in training.get("curve", []) if row["val_loss_nats"]]
    if len(losses) > 1:
        low, high = min(losses), max(losses)
        scale = (len(BARS) - 1) / ((high - low) or 1.0)
        bars = "".join(BARS[round((value - low) * scale)] for value in losses)
        yield "curve", f"{losses[0]:.2f} {bars} {losses[-1]:.2f}"


def _verdict(training: Record) -> Iterator[Row]:
    found = training.get("verdict")
    if isinstance(found, Mapping):
        yield "verdict", verdict(Verdict(**found))
    elif found is not None:  # a sentence, as in the bundled model
        yield "verdict", str(found)


def _standing(training: Record) -> list[str]:
    """Return how far a model was trained and how good it was then."""

    def parts(training: Record) -> Iterator[Row]:
        yield "", f"step {training['step']:,}"
        if training["val_loss_nats"] is not None:
            yield "", f"validation {loss(training['val_loss_nats'])} per character"

    return [text for _, text in _readable(parts, training)]
