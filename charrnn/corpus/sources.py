"""Where text comes from: files, directories and standard input, decoded piece by piece."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import CorpusError

STDIN = "-"
PIECE_BYTES = 1 << 20
TEXT_FILES = "*.txt"


@dataclass(frozen=True)
class Source:
    """One input to read: a file, or standard input when `path` is None."""

    path: Path | None

    @property
    def name(self) -> str:
        """How messages call it."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def stem(self) -> str:
        """A short name for runs."""
        return "stdin" if self.path is None else self.path.name.split(".")[0] or "text"


def find_sources(paths: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Turn the user's paths into sources; a directory means its text files, recursively.

    Raises:
        CorpusError: a path does not exist, is not readable, or holds no text file.
    """
    if not paths:
        raise CorpusError("no corpus given: name a text file, a directory, or - for stdin")
    sources: list[Source] = []
    for given in paths:
        path = Path(given)
        if str(given) == STDIN:
            sources.append(Source(None))
        elif path.is_dir():
            found = sorted(p for p in path.rglob(TEXT_FILES) if p.is_file())
            if not found:
                raise CorpusError(f"the directory {path} has no {TEXT_FILES} file: name the files")
            sources += map(Source, found)
        elif path.exists():
            sources.append(Source(path))
        else:
            raise CorpusError(f"there is no file {path}: check the path")
    return sources


def read_text(source: Source, digest: hashlib._Hash | None = None) -> Iterator[str]:
    """Yield the decoded text of a source piece by piece, with `\\n` as the only line end.

    A byte order mark at the start is dropped. The raw bytes are added to `digest`.

    Raises:
        CorpusError: the source cannot be read or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0
    for piece, final in read_bytes(source, digest):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            at = offset - pending + error.start
            bad = error.object[error.start]
            raise CorpusError(
                f"{source.name} is not UTF-8: byte 0x{bad:02X} at offset {at} cannot be decoded; "
                "convert the file to UTF-8 first"
            ) from None
        if offset == 0:
            text = text.removeprefix("\ufeff")
        offset += len(piece)
        yield newlines.decode(text, final)


def read_bytes(source: Source, digest: hashlib._Hash | None = None) -> Iterator[tuple[bytes, bool]]:
    """Yield the raw bytes in pieces, each added to `digest`, then an empty last piece marked True.

    Raises:
        CorpusError: the source cannot be read.
    """
    try:
        with contextlib.ExitStack() as stack:
            file: BinaryIO = (
                sys.stdin.buffer
                if source.path is None
                else stack.enter_context(open(source.path, "rb"))
            )
            while piece := file.read(PIECE_BYTES):
                if digest is not None:
                    digest.update(piece)
                yield piece, False
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CorpusError(f"cannot read {source.name}: {reason}") from error
    yield b"", True
