"""Training curves: a chart for people, records for programs."""

from __future__ import annotations

from collections.abc import Sequence

from charrnn.config import CurveAxis
from charrnn.display.charts import Curves, Series
from charrnn.display.format import count, duration
from charrnn.display.records import Records
from charrnn.errors import ConfigError
from charrnn.storage.listing import CurvePoint, RunCurve

AXES = {
    "time": ("elapsed_s", "time"),
    "characters": ("characters", "characters read"),
    "epochs": ("epoch", "epochs"),
}
"""Field of a point, and name of the axis."""
MARKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 12 * 3600)
"""Seconds between two marks of the time."""


def curves_chart(runs: Sequence[RunCurve], axis: CurveAxis | None) -> Curves:
    """Return the curves of runs; of one run both losses, of several the validation losses.

    Args:
        runs: at least one.
        axis: what to draw them over; None for the time, or epochs where a run has no times.

    Raises:
        ConfigError: a run has no record of that.
    """
    if axis is None:
        axis = "time" if all(_has(run, "elapsed_s") for run in runs) else "epochs"
    field, label = AXES[axis]
    for run in runs:
        if not _has(run, field):
            raise ConfigError(
                f"{axis} is not in the record of {run.name}: ask for --x epochs", field="axis"
            )
    units = {run.unit for run in runs}
    is_mixed = len(units) > 1
    for run in runs:
        if is_mixed and not _has(run, "bits_per_char"):
            raise ConfigError(
                f"{run.name} has no record of its bits per character, and a run in bytes cannot be "
                "drawn beside runs in characters without: draw it alone"
            )
    texts = {"time": duration, "characters": count, "epochs": lambda x: f"{x:.6g}"}
    series = []
    for number, run in enumerate(runs):
        losses = "bits_per_char" if is_mixed else "val_loss_nats"
        is_validated = _has(run, losses)
        shown = [(losses, "validation", False)] if is_validated else []
        if not is_mixed and (len(runs) == 1 or not is_validated):
            shown.append(("train_loss_nats", "training", is_validated))
        for loss, kind, is_faint in shown:
            named = kind if len(runs) == 1 else run.name
            series.append(
                Series(
                    name=named if kind == "validation" or len(runs) == 1 else f"{named} ({kind})",
                    points=[(x, y) for x, y in _points(run.points, field, loss)],
                    is_faint=is_faint,
                    colour=number,
                )
            )
    return Curves(
        title="Training of " + ", ".join(run.name for run in runs),
        x_label="bytes read" if axis == "characters" and units == {"byte"} else label,
        y_label="bits/char" if is_mixed else f"nats/{units.pop()}",
        series=series,
        x_text=texts[axis],
        x_steps=MARKS if axis == "time" else (),
    )


def _has(run: RunCurve, field: str) -> bool:
    return any(getattr(point, field) is not None for point in run.points)


def _points(points: Sequence[CurvePoint], x: str, y: str) -> list[tuple[float, float]]:
    pairs = ((getattr(point, x), getattr(point, y)) for point in points)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def show_records(runs: Sequence[RunCurve], output: str) -> None:
    """Write one record for each evaluation.

    Args:
        runs: in their order.
        output: tsv or jsonl.
    """
    records = Records(as_json=output == "jsonl")
    for run in runs:
        for point in run.points:
            records.write({"run": run.name, "unit": run.unit, **point._asdict()})
