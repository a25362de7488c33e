"""A model written for others: as a page, as NumPy's archive, or as JSON."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np

from charrnn.config import ExportFormat, StoredPrecision
from charrnn.errors import ConfigError
from charrnn.export.page import model_page
from charrnn.export.weights import record
from charrnn.storage.atomic import atomic_writer
from charrnn.storage.model_file import SavedModel, require_one_way
from charrnn.storage.reading import require_possible
from charrnn.storage.runs import require_new_file, slug


def write_export(
    saved: SavedModel,
    out: Path | None,
    *,
    path: Path | None,
    format: ExportFormat,
    title: str | None,
    prompt: str,
    precision: StoredPrecision,
    force: bool,
) -> Path:
    """Write a model for others and return the file; see `CharModel.export`.

    Args:
        path: where the model came from, which is never written over.

    Raises:
        ConfigError: the file exists, or the page would be too large.
        StorageError: it cannot be written.
    """
    if format == "html":
        require_one_way(saved)
    name = name_of(saved)
    out = destination(saved, out, path=path, format=format, force=force)
    if format == "html":
        page = model_page(
            saved, title=name if title is None else title, prompt=prompt, precision=precision
        )
        data = page.encode("utf-8", "replace")
    else:
        data = npz(saved) if format == "npz" else as_json(saved)
    with atomic_writer(out, follow_links=True) as file:
        file.write(data)
    return out


def destination(
    saved: SavedModel, out: Path | None, *, path: Path | None, format: ExportFormat, force: bool
) -> Path:
    """Return the file that `write_export` writes; the arguments are the same.

    Raises:
        ConfigError: it must not be written.
    """
    if out is None:
        out = Path(f"{slug(name_of(saved))}.{format}")
    require_possible(out, "out")
    if out.is_file() and path is not None and os.path.samefile(out, path):
        raise ConfigError(f"names the model itself, {out}: name another file", field="out")
    require_new_file(out, force=force)
    return out


def npz(saved: SavedModel) -> bytes:
    """Return an archive of the arrays by name; `charrnn` is the record, as JSON in UTF-8 bytes."""
    about = np.frombuffer(json.dumps(record(saved)).encode("utf-8"), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, charrnn=about, **saved.weights)
    return file.getvalue()


def as_json(saved: SavedModel) -> bytes:
    """Return one object: the record, and `arrays`, nested lists by name.

    The numbers have the fewest digits that give the same float32 again.
    """
    arrays = {
        name: np.reshape([float(str(x)) for x in array.ravel()], array.shape).tolist()
        for name, array in saved.weights.items()
    }
    return json.dumps({**record(saved), "arrays": arrays}, separators=(",", ":")).encode("utf-8")


def name_of(saved: SavedModel) -> str:
    """Return the name of the training text, if the record has one."""
    corpus = saved.training.get("corpus")
    name = corpus.get("name") if isinstance(corpus, dict) else None
    return name if isinstance(name, str) and name else "charrnn"
