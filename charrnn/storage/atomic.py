"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import StorageError
from charrnn.storage.lock import RunLock, is_named, take_lock
from charrnn.storage.reading import reason

READERS_S = 2.0 if os.name == "nt" else 0.0
"""How long to wait for those who read a file that is to be replaced: Windows has them finish."""
TEMPORARY = (".charrnn-", ".tmp")
"""How the name of a temporary file begins and ends."""


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
            remove_temporary_files(path.parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # the folder is a file
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        handle, name = _temporary_file(path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.chmod(name, 0o666 & ~_umask())  # mkstemp is private; a model is not
                yield file
                file.flush()
                os.fsync(handle)
            replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def replace(source: str | Path, target: Path) -> None:
    """Move a file to the place of another.

    Raises:
        OSError: the system does not allow it.
    """
    deadline = time.monotonic() + READERS_S
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(READERS_S / 50)


def _temporary_file(folder: Path) -> tuple[int, str]:
    """Make a file and hold its lock, so that nobody takes it for a left-over."""
    prefix, suffix = TEMPORARY
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
        with contextlib.suppress(BlockingIOError):
            take_lock(handle)
            if is_named(handle, Path(name)):
                return handle, name
        os.close(handle)  # somebody was faster, and removes it


def is_temporary(path: Path) -> bool:
    """Say whether a file is called as `atomic_writer` calls those that are not done."""
    prefix, suffix = TEMPORARY
    return path.name.startswith(prefix) and path.name.endswith(suffix)


def remove_temporary_files(folder: Path) -> None:
    """Remove what `atomic_writer` has left in a folder when its process was killed."""
    for path in filter(is_temporary, folder.glob(".*")):
        with contextlib.suppress(OSError):  # such as that it is being written
            RunLock(path, patience_s=0).release()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error


def write_text_atomically(path: Path, text: str, *, follow_links: bool = False) -> None:
    """Write `text` as UTF-8 through `atomic_writer`."""
    with atomic_writer(path, follow_links=follow_links) as file:
        file.write(text.encode("utf-8", "surrogatepass"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
