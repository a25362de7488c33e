"""`charrnn list`."""

from __future__ import annotations

from pathlib import Path

import typer

from charrnn.cli.options import FORMAT, Format, format_or_default, path_name


def list_(
    folder: Path = typer.Argument(
        "runs", metavar="DIR", parser=path_name, help="The folder of the runs."
    ),
    output_format: Format = FORMAT,
) -> None:
    """List the runs and their models, the one begun last first."""
    from charrnn.display.listing import show_runs
    from charrnn.display.terminal import say
    from charrnn.storage.listing import list_runs

    runs = list_runs(folder)
    show_runs(runs, format_or_default(output_format))
    if not runs:
        say(f"there are no runs under {folder}; charrnn train YOUR_TEXT.txt begins one")
