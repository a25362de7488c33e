"""What a model file says about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.format import architecture, count, duration, loss
from charrnn.storage.merge import part_configs
from charrnn.storage.model_file import SavedModel

BARS = "▁▂▃▄▅▆▇█"


def show_info(
    path: Path, saved: SavedModel, *, other: tuple[str, Path, SavedModel] | None = None
) -> None:
    """Print a model's shape, alphabet and training to stdout.

    Args:
        path: where it was read from.
        saved: the model.
        other: the other model of its run, if it has one: `best` or `last`, its path, and itself.
    """
    training = saved.training
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def row(label: str, value: Any) -> None:
        table.add_row(label, Text(str(value)))

    row("file", path)
    parts = part_configs(saved.config, saved.weights)
    row("architecture", architecture(parts))
    row("parameters", f"{sum(part.num_parameters() for part in parts):,}")
    shown = "".join(c if c.isprintable() else "·" for c in saved.vocabulary.characters)
    row("vocabulary", f"{len(saved.vocabulary.characters)} characters, UNK and EOS")
    row("", shown if len(shown) <= 300 else shown[:300] + "…")
    try:
        for label, value in _training_rows(training):
            row(label, value)
        if other is not None:
            which, where, model = other
            row(f"{which} of the run", where)
            row("", ", ".join(_standing(model.training)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        row("training", "the file's record of its training cannot be read")
    Console(highlight=False).print(table)


def _spark(values: list[float]) -> str:
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / ((high - low) or 1.0)
    return "".join(BARS[round((value - low) * scale)] for value in values)


def _training_rows(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the record of the training says; it comes from the file and may be anything."""
    corpus = training.get("corpus")
    if corpus:
        yield "corpus", f"{corpus['name']}, {count(corpus['n_chars'])} characters"
        yield "", f"sha256 {corpus['sha256']}"
    if "step" in training:
        yield (
            "training",
            f"step {training['step']:,} of {training['total_steps'] or 0:,}, "
            f"{training['epochs']:.3g} passes, {duration(training['elapsed_s'])}, "
            f"{training['device']} {training['dtype']}",
        )
    parts = training.get("merged")
    if parts:
        yield "merged from", f"{len(parts)} models"
        for part in parts:
            if "merged" in part:
                yield "", f"one that was merged from {len(part['merged'])} models itself"
            else:
                yield "", ", ".join([f"seed {part['config']['seed']}", *_standing(part)])
    settings = training.get("config")
    if settings:
        yield "settings", ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None)
    if training.get("val_loss_nats") is not None:
        scale = training.get("logit_scale", 1)
        yield "validation", f"{loss(training['val_loss_nats'])} per character"
        if scale != 1:
            yield "calibration", f"all logits times {scale:.3g} fit the validation text best"
    curve = [r["val_loss_nats"] for r in training.get("curve", []) if r["val_loss_nats"]]
    if len(curve) > 1:
        yield "curve", f"{curve[0]:.2f} {_spark(curve)} {curve[-1]:.2f}"
    if "verdict" in training:
        yield "verdict", training["verdict"]


def _standing(training: Mapping[str, Any]) -> Iterator[str]:
    """Yield how far a model was trained and how good it was then."""
    yield f"step {training['step']:,}"
    if training["val_loss_nats"] is not None:
        yield f"validation {loss(training['val_loss_nats'])} per character"
