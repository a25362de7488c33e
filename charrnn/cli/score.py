"""`charrnn score`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from charrnn.cli.options import MODEL, open_model, read_lines
from charrnn.errors import ConfigError


def score(
    texts: list[str] = typer.Argument(
        None, metavar="TEXT...", show_default=False, help="Texts to score."
    ),
    model: Path = MODEL,
    file: Path = typer.Option(
        None, metavar="FILE", show_default=False, help="Score each line of a file; - is stdin."
    ),
    eos: bool = typer.Option(
        False, "--eos/--no-eos", help="Count the end of each text as an event."
    ),
) -> None:
    """Say how probable texts are under the model: a table on a terminal, TSV in a pipe."""
    if not texts and file is None:
        raise ConfigError("nothing to score: give texts as arguments, or --file")
    from charrnn.display.score import show_scores

    loaded = open_model(model)
    given = [*(texts or []), *(read_lines(file) if file is not None else [])]
    show_scores([loaded.score(text, eos=eos) for text in given], to_terminal=sys.stdout.isatty())
