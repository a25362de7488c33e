"""Locks on files, which the system lets go of when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

PATIENCE_S = 0.25
"""How long an owner waits for those that hold a lock for a moment, to look or to tidy up."""


class RunLock:
    """A file that one process at a time holds.

    A file system without locks leaves every run unlocked.

    Raises:
        BlockingIOError: another process, or another run of this one, holds it.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        """Make the file if needed and take it."""
        self._path, self._file = path, -1
        deadline = time.monotonic() + patience_s
        while self._file < 0:
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                take_lock(file)
                if is_named(file, path):  # its last owner may have removed it in between
                    self._file = file
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PATIENCE_S / 50)
            finally:
                if self._file < 0:
                    os.close(file)

    def release(self) -> None:
        """Remove the file and let go of it; a second time does nothing."""
        if self._file < 0:
            return
        file, self._file = self._file, -1
        if os.name != "nt":  # there, a file in use cannot be removed
            self._path.unlink(missing_ok=True)
        os.close(file)
        if os.name == "nt":
            with contextlib.suppress(OSError):
                self._path.unlink()

    def __del__(self) -> None:
        """Let go when nobody uses the run any more; the file is left to the next owner."""
        if self._file >= 0:
            os.close(self._file)


def is_named(file: int, path: Path) -> bool:
    """Say whether an open file is still the one of that name."""
    if os.name == "nt":  # there, an open file keeps its name
        return True
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Say whether a process holds the lock on a file.

    Raises:
        OSError: the file cannot be opened.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        take_lock(file, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def take_lock(file: int, *, shared: bool = False) -> None:
    """Take a lock on an open file without waiting.

    Args:
        file: its descriptor.
        shared: with others who only look; an owner is alone. Windows knows owners only.

    Raises:
        BlockingIOError: another process holds it.
    """
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                raise BlockingIOError(*error.args) from error
            _require_no_locks(error)
        return
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        _require_no_locks(error)


def _require_no_locks(error: OSError) -> None:
    """Go on without a lock where a file system knows none."""
    if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
        raise error
