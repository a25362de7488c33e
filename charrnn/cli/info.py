"""`charrnn info`."""

from __future__ import annotations

from pathlib import Path

from charrnn.cli.options import MODEL, open_model


def info(model: Path = MODEL) -> None:
    """Show a model: architecture, size, vocabulary, training and how well it did."""
    from charrnn.display.info import show_info

    loaded = open_model(model)
    assert loaded.path is not None
    show_info(loaded.path, loaded.saved)
