"""`charrnn info`."""

from __future__ import annotations

from pathlib import Path

import typer

from charrnn import __version__
from charrnn.cli.options import MODEL, MODEL_ARGUMENT, one_model, open_model
from charrnn.errors import ConfigError


def info(
    named: Path = MODEL_ARGUMENT,
    model: Path = MODEL,
    system: bool = typer.Option(
        False,
        "--system",
        show_default="off",
        help="Show what a bug report needs instead: versions, machine, devices and precision, "
        "where the runs are, encodings.",
    ),
) -> None:
    """Show what a model is, and how it was trained."""
    chosen = one_model(named, model)
    if system:
        from charrnn.display.info import show_system
        from charrnn.training.machine import this_machine

        if chosen is not None:
            raise ConfigError(f"--system is about the machine: leave {chosen} out")
        show_system(__version__, this_machine())
        return
    from charrnn.display.info import show_info
    from charrnn.storage.listing import surroundings

    loaded = open_model(chosen)
    assert loaded.path is not None
    show_info(loaded.path, loaded.saved, surroundings(loaded.path))
