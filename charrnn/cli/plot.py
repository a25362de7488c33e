"""`charrnn plot`."""

from __future__ import annotations

from pathlib import Path

import typer

import charrnn.cli.options as options
from charrnn.cli.pictures import FORCE, OUT, check_picture, say_written, write_picture
from charrnn.config import CurveAxis
from charrnn.errors import ConfigError


def plot(
    runs: list[Path] = typer.Argument(
        None,
        metavar="RUN",
        parser=options.model_name,
        show_default="the newest under runs/, or else builtin",
        help="Run directories or model files.",
    ),
    axis: CurveAxis = options.output(
        None,
        "--x",
        "Draw the losses over the time, the characters read, or the epochs.",
        show_default="time, or epochs of a model without times",
    ),
    output_format: options.Format = options.FORMAT,
    out: Path = OUT,
    force: bool = FORCE,
) -> None:
    """Show the training curves of runs.

    Of one run both losses are drawn, of several the validation losses.
    """
    check_picture(out, force=force)
    from charrnn.display.charts import show_chart
    from charrnn.display.plot import curves_chart, show_records
    from charrnn.storage.listing import training_curve
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL, find_model

    given = list(runs or ())
    if not given:
        found = find_model(None)
        given = [Path(BUILTIN) if found == BUILTIN_MODEL else found.parent]
    if len(set(given)) < len(given):
        raise ConfigError("a run is named twice: name each once")
    curves = [training_curve(path) for path in given]
    form = options.format_or_default(output_format)
    chart = curves_chart(curves, axis)
    if out is not None:
        write_picture(chart, out, ", ".join(run.name for run in curves))
    if form == "table":
        show_chart(chart)
    else:
        show_records(curves, form)
    say_written(out)
