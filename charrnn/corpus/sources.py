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
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from charrnn.config import CorpusConfig, Unit
from charrnn.errors import ConfigError, CorpusError
from charrnn.normalize import Normalizer

STDIN = "-"
PIECE_BYTES = 1 << 20
MAX_LINE = 10_000_000
"""Characters; a longer line would have to be held in memory whole."""
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
KEEP_THEIR_MARK = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
"""Codecs that decode a byte order mark as a character."""
DEFAULT = CorpusConfig()


@dataclass(frozen=True)
class Source:
    """One input to read: a file, or standard input when `path` is None."""

    path: Path | None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def stem(self) -> str:
        """A short name for runs."""
        return "stdin" if self.path is None else self.path.name.split(".")[0] or "text"


def names(sources: Sequence[Source]) -> str:
    """Name the inputs in a message."""
    return sources[0].name if len(sources) == 1 else f"the {len(sources)} inputs together"


@dataclass
class Form:
    """What was found out about the form of the inputs while they were read."""

    encodings: set[str] = field(default_factory=set)
    newlines: set[str] = field(default_factory=set)


def find_sources(
    paths: Sequence[str | os.PathLike[str]], glob: str = CorpusConfig.glob
) -> list[Source]:
    """Turn the user's paths into sources; a directory means its text files, recursively.

    A file of a directory is read if its name fits the pattern, whatever the case of its letters,
    and with or without the suffix of a compressed file. Hidden files and directories are left out.

    Raises:
        ConfigError: the pattern is empty.
        CorpusError: a path does not exist, or a directory holds no such file.
    """
    if not glob:
        raise ConfigError("must be a pattern such as *.txt", field="glob")
    if not paths:
        raise CorpusError("no corpus given: name a text file, a directory, or - for stdin")
    sources: list[Source] = []
    for given in paths:
        path = Path(given)
        if str(given) == STDIN:
            sources.append(Source(None))
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if _is_wanted(p, path, glob) and p.is_file())
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


def _is_wanted(path: Path, directory: Path, glob: str) -> bool:
    """Return whether a path in a directory is not hidden and fits the pattern."""
    inside = path.relative_to(directory)
    if any(part.startswith(".") for part in inside.parts):
        return False
    pattern = glob.casefold().removeprefix("**/")
    name = PurePosixPath(inside.as_posix().casefold())
    return name.match(pattern) or (name.suffix in OPENERS and name.with_suffix("").match(pattern))


def pieces_of(path: Path, *, unit: Unit = "char", encoding: str = "auto") -> Iterator[str]:
    """Yield the decoded text of a file piece by piece; `-` is standard input.

    Raises:
        CorpusError: it cannot be read or decoded.
    """
    source = Source(None if str(path) == STDIN else path)
    return read_text(source, config=CorpusConfig(unit=unit, encoding=encoding))


def lines_of(path: Path, *, unit: Unit = "char", encoding: str = "auto") -> Iterator[str]:
    """Yield the lines of a file without their line ends; `-` is standard input.

    Raises:
        CorpusError: it cannot be read or decoded, or a line is too long to be held in memory.
    """
    parts: list[str] = []
    held, number = 0, 1
    for piece in pieces_of(path, unit=unit, encoding=encoding):
        first, *rest = piece.split("\n")
        parts.append(first)
        held += len(first)
        if held > MAX_LINE:
            name = "standard input" if str(path) == STDIN else str(path)
            raise CorpusError(
                f"line {number} of {name} has more than {MAX_LINE:,} characters: break it into "
                "lines, or read the text whole"
            )
        if rest:
            yield "".join(parts)
            yield from rest[:-1]
            parts, held = [rest[-1]], len(rest[-1])
            number += len(rest)
    if held:
        yield "".join(parts)


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
    encoding = codec = ""
    offset = 0
    for piece, final in read_bytes(source, digest):
        if decoder is None:
            encoding = config.encoding if config.encoding != "auto" else _guess(piece, source.name)
            codec = codecs.lookup(encoding).name
            # in byte models undecodable bytes go through unchanged (PEP 383)
            raw = config.unit == "byte" and config.errors == "strict"
            errors = "surrogateescape" if raw else config.errors
            decoder = codecs.getincrementaldecoder(codec)(errors)
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
        except UnicodeError as error:
            raise CorpusError(
                f"{source.name} is not {_called(encoding)} ({error}): name its encoding with "
                "--encoding (such as utf-16-le)"
            ) from None
        if offset == 0 and codec in KEEP_THEIR_MARK:
            text = text.removeprefix("\ufeff")
        offset += len(piece)
        yield normalizer.feed(newlines.decode(text, final), final)
    if form is not None:
        form.encodings.add(_called(encoding))
        seen = newlines.newlines
        form.newlines |= {seen} if isinstance(seen, str) else set(seen or ())


def _guess(beginning: bytes, name: str) -> str:
    """Return the encoding of a file that begins with these bytes: UTF-8 or what its mark says.

    Raises:
        CorpusError: it is UTF-16 without a mark, which would pass for UTF-8 full of NULs.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if beginning.startswith(mark):
            return encoding
    # in UTF-16 the spaces and line ends of any language have a NUL, always on the same side
    even, odd = (beginning[side:4096:2].count(0) for side in (0, 1))
    if min(even, odd) == 0 and max(even, odd) >= max(4, len(beginning[:4096:2]) // 20):
        order = "le" if odd else "be"
        raise CorpusError(
            f"{name} looks like UTF-16 without a byte order mark: read it with "
            f"--encoding utf-16-{order}, or if it is UTF-8 with --encoding utf-8"
        )
    return "utf-8"


def _called(encoding: str) -> str:
    """Return an encoding as messages name it: codecs of UTF-8 have several spellings."""
    return "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding.upper()


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
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CorpusError(f"cannot read {source.name}: {reason}") from error
    yield b"", True
