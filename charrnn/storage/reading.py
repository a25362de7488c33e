"""Reading files that may come from strangers: ordinary files only, and nothing taken on trust."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 1 << 25
"""Of a safetensors file: room for an alphabet of all of Unicode."""
FREE_HEADER_BYTES = 1 << 22
"""A longer header needs arrays: at most `HEADER_SHARE` bytes of it for each of theirs."""
HEADER_SHARE = 4


def reason(error: OSError) -> str:
    """Return why the system refused something, as it stands in a message."""
    return (error.strerror or str(error)).lower()


def open_ordinary(path: Path) -> BinaryIO:
    """Open a file to read; a pipe or a device, which might never end, is refused.

    Raises:
        OSError: it is missing, may not be read, or is no ordinary file with data in it.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
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


def read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and the size of the arrays after it in bytes.

    The file is left where the arrays begin.

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
    return header, n_data


def header_record(header: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the JSON object that stands as text under a key of a header's metadata.

    Raises:
        ValueError: there is none.
    """
    metadata = header.get("__metadata__")
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"it has no {key} record")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"its {key} record is not a JSON object")
    return record
