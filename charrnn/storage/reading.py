"""Reading files that may come from strangers: ordinary files only, and nothing taken on trust."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from charrnn.config import shown
from charrnn.errors import ConfigError

MAX_HEADER_BYTES = 1 << 25
"""Of a safetensors file: room for an alphabet of all of Unicode."""
FREE_HEADER_BYTES = 1 << 22
"""A longer header needs arrays: at most `HEADER_SHARE` bytes of it for each of theirs."""
HEADER_SHARE = 4
LONGEST_REASON = 200
"""Characters of a reason that a file may have part in."""
TOO_LONG, NO_NAME = 206, 123
"""Windows' numbers of such errors: Python makes ENOENT and EINVAL of them."""
METADATA = "__metadata__"
"""The one entry of the header that is no array."""


def reason(error: Exception) -> str:
    """Return why a file cannot be used, as it stands in a message: of the system, its words."""
    words = error.strerror if isinstance(error, OSError) else None
    return words.lower() if words else str(error)[:LONGEST_REASON]


def require_possible(path: str | os.PathLike[str], field: str) -> None:
    """See that the system could have a file of that name.

    Args:
        path: may or may not exist.
        field: the setting that names it.

    Raises:
        ConfigError: the name is too long, or has characters that no name has.
    """
    try:
        os.stat(path)
    except OSError as error:
        reason = getattr(error, "winerror", None)
        if error.errno == errno.ENAMETOOLONG or reason == TOO_LONG:
            raise ConfigError(
                "is too long for the name of a file: choose another", field=field
            ) from None
        if reason == NO_NAME:
            raise _no_name(path, field) from None
    except ValueError:
        raise _no_name(path, field) from None


def _no_name(path: str | os.PathLike[str], field: str) -> ConfigError:
    return ConfigError(f"is no name that a file can have: {shown(os.fspath(path))}", field=field)


def open_ordinary(path: Path) -> BinaryIO:
    """Open a file to read; a pipe or a device, which might never end, is refused.

    Raises:
        OSError: it is missing, may not be read, or is no ordinary file with data in it.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except PermissionError:
        if path.is_dir():  # which Windows does not open
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path)) from None
        raise
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        if _is_hollow(handle):
            raise OSError(errno.EINVAL, "most of it is holes without data", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _is_hollow(handle: int) -> bool:
    """Say whether less than half of a file is on the disk: a few bytes could fill the memory."""
    size, data, end = os.fstat(handle).st_size, 0, 0
    if not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        while end < size:
            begin = os.lseek(handle, end, os.SEEK_DATA)
            end = os.lseek(handle, begin, os.SEEK_HOLE)
            data += end - begin
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says: no data from here to the end
            data = size
    os.lseek(handle, 0, os.SEEK_SET)
    return 2 * data < size


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Return the header of a safetensors file, which is left where the arrays begin.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not in the format, or its header is longer than any needs to be.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    n_header = int.from_bytes(prefix, "little")
    n_data = size - 8 - n_header
    if len(prefix) < 8 or n_data < 0:
        raise ValueError("it is cut short, or no safetensors file")
    if n_header > min(MAX_HEADER_BYTES, FREE_HEADER_BYTES + HEADER_SHARE * n_data):
        raise ValueError("its header is too long")
    try:
        header = json.loads(file.read(n_header))
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    if not _is_filled(header, n_data):
        raise ValueError("its arrays do not fill the file: it is cut short or damaged")
    return header


def _is_filled(header: dict[str, Any], n_data: int) -> bool:
    """Say whether the arrays follow one another without a gap up to the end of the file."""
    try:
        spans = sorted(array["data_offsets"] for name, array in header.items() if name != METADATA)
        ends = [0, *(end for _, end in spans)]
        return [begin for begin, _ in spans] == ends[:-1] and ends[-1] == n_data
    except (LookupError, TypeError, ValueError):
        return False


def header_record(
    header: dict[str, Any], key: str, parse_constant: Callable[[str], Any] | None = None
) -> dict[str, Any]:
    """Return the JSON object that stands as text under a key of a header's metadata.

    Args:
        header: of a safetensors file.
        key: the name of the record.
        parse_constant: as of `json.loads`, for what Python reads as a number and JSON does not.

    Raises:
        ValueError: there is none.
    """
    metadata = header.get(METADATA)
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"it has no {key} record")
    try:
        record = json.loads(text, parse_constant=parse_constant)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"its {key} record is not a JSON object")
    return record
