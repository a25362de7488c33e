"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import StorageError


@contextmanager
def atomic_writer(path: Path, *, follow_links: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it when the block ends without error.

    The data is flushed to the disk (fsync) before the rename, so that after a crash the
    file is either the old one or the new one, whole.

    Args:
        path: what to write.
        follow_links: for a file that the user names: a link keeps its place, and what is no
            ordinary file, such as a device or a pipe, is written to as it is. Otherwise a link is
            replaced, so that nothing outside the folder is written over.

    Raises:
        StorageError: the folder cannot be created or the file cannot be written.
    """
    with storage_errors(path):
        if follow_links:
            path = path.resolve()
            if path.exists() and not path.is_file():
                with open(path, "wb") as file:
                    yield file
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            os.chmod(name, 0o666 & ~_umask())  # mkstemp is private; a model is an ordinary file
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def remove_temporary_files(folder: Path) -> None:
    """Remove what `atomic_writer` has left in a folder whose process was killed."""
    for path in folder.glob(".*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot write {path}: {reason}") from error


def write_text_atomically(path: Path, text: str, *, follow_links: bool = False) -> None:
    """Write `text` as UTF-8 through `atomic_writer`."""
    with atomic_writer(path, follow_links=follow_links) as file:
        file.write(text.encode("utf-8", "surrogatepass"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
