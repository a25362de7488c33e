"""`charrnn info`."""

from __future__ import annotations

from pathlib import Path

from charrnn.cli.options import MODEL, MODEL_ARGUMENT, one_model, open_model


def info(named: Path = MODEL_ARGUMENT, model: Path = MODEL) -> None:
    """Show what a model is, and how it was trained."""
    from charrnn.display.info import show_info

    loaded = open_model(one_model(named, model))
    assert loaded.path is not None
    show_info(loaded.path, loaded.saved)
