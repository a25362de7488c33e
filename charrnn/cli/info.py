"""`charrnn info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.cli.options import MODEL, open_model

if TYPE_CHECKING:
    from charrnn.storage.model_file import SavedModel


def info(model: Path = MODEL) -> None:
    """Show what a model is, and how it was trained."""
    from charrnn.display.info import show_info

    loaded = open_model(model)
    assert loaded.path is not None
    show_info(loaded.path, loaded.saved, other=_other_of_the_run(loaded.path))


def _other_of_the_run(path: Path) -> tuple[str, Path, SavedModel] | None:
    """Return the last model of a run beside the best one, or the best beside the last.

    Raises:
        ModelFileError: it is not a sound model.
    """
    from charrnn.storage.model_file import load_model
    from charrnn.storage.runs import RunDirectory

    run = RunDirectory(path.parent)
    others = {run.model: ("last", run.last), run.last: ("best", run.model)}
    if path not in others:
        return None
    which, other = others[path]
    return (which, other, load_model(other)) if other.is_file() else None
