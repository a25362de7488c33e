"""Where text comes from: files, directories and standard input, decoded piece by piece."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from charrnn.config import CorpusConfig
from charrnn.errors import CorpusError
from charrnn.normalize import Normalizer

STDIN = "-"
PIECE_BYTES = 1 << 20
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DEFAULT = CorpusConfig()


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


@dataclass
class Form:
    """What was found out about the form of the inputs while they were read."""

    encodings: set[str] = field(default_factory=set)
    newlines: set[str] = field(default_factory=set)


def find_sources(
    paths: Sequence[str | os.PathLike[str]], glob: str = CorpusConfig.glob
) -> list[Source]:
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
            found = sorted(p for p in path.rglob(glob) if p.is_file())
            if not found:
                raise CorpusError(
                    f"the directory {path} has no {glob} file: name the files, or use --glob"
                )
            sources += map(Source, found)
        elif path.exists():
            sources.append(Source(path))
        else:
            raise CorpusError(f"there is no file {path}: check the path")
    return sources


def read_text(
    source: Source,
    digest: hashlib._Hash | None = None,
    config: CorpusConfig = DEFAULT,
    form: Form | None = None,
) -> Iterator[str]:
    """Yield the decoded, normalised text of a source piece by piece, its line ends all `\\n`.

    Files named .gz, .bz2 or .xz are decompressed. A byte order mark decides the encoding and is
    dropped.

    Args:
        source: what to read.
        digest: gets the (decompressed) bytes.
        config: encoding, errors and normalisation.
        form: gets the encoding and the line ends found.

    Raises:
        CorpusError: the source cannot be read or decoded.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    normalizer = Normalizer(config.normalize)
    decoder: codecs.IncrementalDecoder | None = None
    encoding = ""
    offset = 0
    for piece, final in read_bytes(source, digest):
        if decoder is None:
            encoding = _encoding(piece, config.encoding)
            # in byte models undecodable bytes go through unchanged (PEP 383)
            raw = config.unit == "byte" and config.errors == "strict"
            errors = "surrogateescape" if raw else config.errors
            decoder = codecs.getincrementaldecoder(encoding)(errors)
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            # error.object is what was left to decode: a mark or earlier pieces may be gone from it
            at = offset + len(piece) - len(error.object) + error.start
            raise CorpusError(
                f"{source.name} is not {_called(encoding)}: byte 0x{error.object[error.start]:02X} "
                f"at offset {at} cannot be decoded; name its encoding with --encoding (such as "
                "latin-1 or cp1252), or use --errors replace"
            ) from None
        if offset == 0 and encoding == "utf-8":
            text = text.removeprefix("\ufeff")  # the codec itself takes the other marks
        offset += len(piece)
        yield normalizer.feed(newlines.decode(text, final), final)
    if form is not None:
        form.encodings.add(_called(encoding))
        seen = newlines.newlines
        form.newlines |= {seen} if isinstance(seen, str) else set(seen or ())


def _encoding(beginning: bytes, asked: str) -> str:
    """Return the codec for a file that begins with these bytes."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if beginning.startswith(mark) and asked in ("auto", encoding):
            return encoding
    return "utf-8" if asked == "auto" else asked


def _called(encoding: str) -> str:
    return encoding.upper()


def read_bytes(source: Source, digest: hashlib._Hash | None = None) -> Iterator[tuple[bytes, bool]]:
    """Yield the raw bytes in pieces, each added to `digest`, then an empty last piece marked True.

    Raises:
        CorpusError: the source cannot be read.
    """
    if source.path is None and sys.stdin is None:
        raise CorpusError("standard input is closed: give a file, or a text through a pipe")
    try:
        with contextlib.ExitStack() as stack:
            if source.path is None:
                file: IO[bytes] = sys.stdin.buffer
            else:
                opener = OPENERS.get(source.path.suffix.lower(), open)
                file = stack.enter_context(cast("IO[bytes]", opener(source.path, "rb")))
            while piece := file.read(PIECE_BYTES):
                if digest is not None:
                    digest.update(piece)
                yield piece, False
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CorpusError(f"cannot read {source.name}: {reason}") from error
    yield b"", True
