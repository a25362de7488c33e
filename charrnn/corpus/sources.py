"""Where text comes from: files, directories and standard input, decoded piece by piece."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import difflib
import fnmatch
import glob
import gzip
import hashlib
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from charrnn.config import CorpusConfig, DecodingErrors, Normalization, Unit, quoted, shown
from charrnn.errors import ConfigError, CorpusError
from charrnn.normalize import Normalizer
from charrnn.storage.runs import LOCK_FILE, MODEL_FILE, RESUME_FILE

STDIN = "-"
PIECE_BYTES = 1 << 20
MAX_LINE = 10_000_000
"""Characters of a line, or of a text that has to be held in memory whole."""
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DROP_THEIR_MARK = ("utf-8-sig", "utf-16", "utf-32")
"""Codecs that do not decode a byte order mark as a character."""
RUN_FILES = {LOCK_FILE, MODEL_FILE, RESUME_FILE}
"""A directory with any of these is a run, and no text."""
DEFAULT = CorpusConfig()


@dataclass(frozen=True)
class Source:
    """One input to read: a file, or standard input when `path` is None."""

    path: Path | None
    identity: tuple[int, int] | None = None
    """Device and inode, the same for every name of a file."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def stem(self) -> str:
        """A short name for runs."""
        return "stdin" if self.path is None else self.path.name.split(".")[0] or "text"


class Sources(list[Source]):
    """Inputs in the order in which they are read.

    Attributes:
        left_out: files that are not read: hidden ones and those of other names in the
            directories, and those named or linked a second time.
    """

    left_out: tuple[str, ...] = ()

    stem = "text"
    """A short name for runs: that of the first file or directory given."""


def names(sources: Sequence[Source]) -> str:
    """Name the inputs in a message."""
    return sources[0].name if len(sources) == 1 else f"the {len(sources)} inputs together"


@dataclass
class Form:
    """What was found out about the form of the inputs while they were read."""

    encodings: set[str] = field(default_factory=set)
    newlines: set[str] = field(default_factory=set)


def find_sources(
    paths: Sequence[str | os.PathLike[str]], globs: Sequence[str] = CorpusConfig.glob
) -> Sources:
    """Turn the user's paths into sources; a directory means its text files, recursively.

    A file of a directory is read if its path there fits a pattern from the right, whatever the case
    of its letters, and with or without the suffix of a compressed file. Links are followed. Hidden
    files and directories and those of runs are left out, and a file is read once, however often it
    is named.

    Raises:
        ConfigError: there is no pattern for a directory, or one for paths outside of it.
        CorpusError: a path does not exist or cannot be read, or a directory holds no such file.
    """
    patterns = [_pattern(one) for one in globs]
    if not patterns and any(map(os.path.isdir, paths)):
        raise ConfigError("must be a pattern such as *.txt", field="glob")
    if not paths:
        raise CorpusError("no corpus given: name a text file, a directory, or - for stdin")
    sources, left_out = Sources(), list[str]()
    for given in [os.fspath(path) for path in paths]:
        found = [Source(None)]
        if given != STDIN:
            with _reading(given):
                found, others = _files_of(Path(given), patterns)
                left_out += map(str, others)
        if not found:
            wanted = " or ".join(globs)
            raise CorpusError(
                f"the directory {given} has no {wanted} file: name the files, or use --glob"
            )
        sources += found
    first: dict[tuple[int, int] | None, Source] = {}
    for source in sources:
        first.setdefault(source.identity, source)
    once = Sources(first.values())
    again = [source for source in sources if first[source.identity] is not source]
    once.left_out = (*left_out, *(source.name for source in again))
    given = os.fspath(paths[0])
    is_folder = given != STDIN and os.path.isdir(given)
    once.stem = Path(given).resolve().name or "text" if is_folder else sources[0].stem
    return once


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what can go wrong with a file into an error that names it.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise CorpusError(f"there is no file {name}: {_hint(name)}") from None
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CorpusError(f"cannot read {name}: {reason}") from error


def _hint(name: str) -> str:
    """Return what may be meant by the name of a file that does not exist."""
    path = Path(name)
    if glob.has_magic(name):
        return f"name the directory {path.parent}, with --glob {quoted(path.name)}"
    with contextlib.suppress(OSError, ValueError):
        there = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
        same = [other for other in there if other.split(".")[0].lower() == path.name.lower()]
        if close := same or difflib.get_close_matches(path.name, there, 1, 0.8):
            return f"did you mean {path.with_name(close[0])}?"
    return "check the path"


def _files_of(given: Path, patterns: Sequence[Sequence[str]]) -> tuple[list[Source], list[Path]]:
    """Return a file, or the wanted files of a directory and the others, by path."""
    if not given.is_dir():
        return [Source(given, _identity(given))], []
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    others: list[Path] = []
    for folder, folders, files in os.walk(given, onerror=_raise, followlinks=True):
        is_run = Path(folder) != given and not RUN_FILES.isdisjoint(files)
        if is_run or _identity(folder) in entered:  # a link to where we have been
            folders.clear()
            continue
        entered.add(_identity(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(folder, name) for name in files]
        for path in paths:
            is_text = _is_wanted(path.relative_to(given).parts, patterns) and path.is_file()
            (found if is_text else others).append(path)
    return [Source(path, _identity(path)) for path in sorted(found)], sorted(others)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _pattern(given: str) -> list[str]:
    """Return the parts of a pattern.

    Raises:
        ConfigError: it is empty, or for paths outside a directory.
    """
    parts = [part for part in given.casefold().split("/") if part not in ("", ".")]
    if not parts or ".." in parts or Path(given).is_absolute():
        raise ConfigError(
            f"must be a pattern for paths in a directory such as *.txt, got {shown(given)}",
            field="glob",
        )
    return ["**", *parts]


def _is_wanted(parts: tuple[str, ...], patterns: Sequence[Sequence[str]]) -> bool:
    """Return whether a file of a directory is not hidden and fits a pattern."""
    *folders, name = [part.casefold() for part in parts]
    stem, suffix = os.path.splitext(name)
    possible = [name, stem] if suffix in OPENERS else [name]
    return not name.startswith(".") and any(
        _fits([*folders, name], pattern) for pattern in patterns for name in possible
    )


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path fits a pattern, in which `**` stands for any directories."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:]
        if rest[:1] == ["**"]:
            return _fits(parts, rest)
        return not rest or any(_fits(parts[k:], rest) for k in range(len(parts)))
    is_first = bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0])
    return is_first and _fits(parts[1:], pattern[1:])


def pieces_of(
    path: Path,
    *,
    unit: Unit = "char",
    encoding: str = "auto",
    errors: DecodingErrors = "strict",
    normalize: Normalization = "none",
) -> Iterator[str]:
    """Yield the decoded text of a file piece by piece; `-` is standard input.

    Raises:
        ConfigError: there is no such encoding.
        CorpusError: the file cannot be read or decoded.
    """
    config = CorpusConfig(unit=unit, encoding=encoding, errors=errors, normalize=normalize)
    return read_text(_source(path), config=config)


def text_of(path: Path, **how: Any) -> str:
    """Return the whole text of a file; keywords as for `pieces_of`.

    Raises:
        CorpusError: also if it is too long to be held in memory.
    """
    parts: list[str] = []
    held = 0
    for piece in pieces_of(path, **how):
        parts.append(piece)
        held += len(piece)
        if held > MAX_LINE:
            raise CorpusError(
                f"{_source(path).name} has more than {MAX_LINE:,} characters: give a shorter text"
            )
    return "".join(parts)


def _source(path: Path) -> Source:
    return Source(None if str(path) == STDIN else path)


def lines_of(path: Path, **how: Any) -> Iterator[str]:
    """Yield the lines of a file without their line ends; keywords as for `pieces_of`.

    Raises:
        CorpusError: also if a line is too long to be held in memory.
    """
    parts: list[str] = []
    held, number = 0, 1
    for piece in pieces_of(path, **how):
        first, *rest = piece.split("\n")
        parts.append(first)
        held += len(first)
        if held > MAX_LINE:
            raise CorpusError(
                f"line {number} of {_source(path).name} has more than {MAX_LINE:,} characters: "
                "break it into lines, or read the text whole"
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
    digests: Sequence[hashlib._Hash] = (),
    config: CorpusConfig = DEFAULT,
    form: Form | None = None,
) -> Iterator[str]:
    """Yield the decoded, normalised text of a source piece by piece, its line ends all `\\n`.

    Files named .gz, .bz2 or .xz are decompressed. A byte order mark decides the encoding and is
    dropped.

    Args:
        source: what to read.
        digests: get the (decompressed) bytes.
        config: encoding, errors and normalisation.
        form: gets the encoding and the line ends found.

    Raises:
        CorpusError: the source cannot be read or decoded.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    normalizer = Normalizer(config.normalize)
    decoder: codecs.IncrementalDecoder | None = None
    encoding = codec = ""
    offset, is_first = 0, True
    for piece, final in read_bytes(source, digests):
        if decoder is None:
            encoding = config.encoding if config.encoding != "auto" else _guess(piece, source.name)
            codec = codecs.lookup(encoding).name
            _check_mark(piece, codec, source.name)
            # in byte models undecodable bytes go through unchanged (PEP 383)
            raw = config.unit == "byte" and config.errors == "strict"
            errors = "surrogateescape" if raw else config.errors
            decoder = codecs.getincrementaldecoder(codec)(errors)
        try:
            text = decoder.decode(piece, final)
        except UnicodeError as error:
            # from Python 3.13 on, a missing byte order mark is an error of decoding, too
            if not isinstance(error, UnicodeDecodeError) or "BOM" in error.reason:
                raise CorpusError(
                    f"{source.name} is not {_called(encoding)} ({error}): name its encoding with "
                    "--encoding (such as utf-16-le)"
                ) from None
            # error.object is what was left to decode: a mark or earlier pieces may be gone from it
            at = offset + len(piece) - len(error.object) + error.start
            raise CorpusError(
                f"{source.name} is not {_called(encoding)}: byte 0x{error.object[error.start]:02X} "
                f"at offset {at} cannot be decoded; name its encoding with --encoding (such as "
                "latin-1 or cp1252), or use --errors replace"
            ) from None
        if is_first and text:
            text = text if codec in DROP_THEIR_MARK else text.removeprefix("\ufeff")
            is_first = False
        offset += len(piece)
        yield normalizer.feed(newlines.decode(text, final), final)
    if form is not None:
        form.encodings.add(_called(encoding))
        seen = newlines.newlines
        form.newlines |= {seen} if isinstance(seen, str) else set(seen or ())


def _guess(beginning: bytes, name: str) -> str:
    """Return the encoding of a file that begins with these bytes: UTF-8 or what its mark says.

    Raises:
        CorpusError: it is UTF-16 or UTF-32 without a mark, which would pass for UTF-8 full of NULs.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if beginning.startswith(mark):
            return encoding
    start = beginning[:4096]
    nuls = [start[k::4].count(0) for k in range(4)]
    sides = nuls[0] + nuls[2], nuls[1] + nuls[3]
    few, wide = len(start) // 8, ""
    # UTF-32 has a NUL at one place in four, and mostly at the one beside it; UTF-16 has them in the
    # spaces and line ends of any language, always on the same side
    for order, high, middle, low in (("be", 0, 1, 3), ("le", 3, 2, 0)):
        if 16 <= 4 * nuls[high] == len(start) - len(start) % 4 and nuls[middle] > few >= nuls[low]:
            wide = f"utf-32-{order}"
        elif min(sides) == 0 and sides[high % 2] >= max(4, len(start) // 40):
            wide = f"utf-16-{order}"
    if wide:
        raise CorpusError(
            f"{name} looks like {wide[:6].upper()} without a byte order mark: read it with "
            f"--encoding {wide}, or if it is UTF-8 with --encoding utf-8"
        )
    return "utf-8"


def _check_mark(beginning: bytes, codec: str, name: str) -> None:
    """Refuse a byte order mark that the codec would decode as characters.

    Raises:
        CorpusError: the file has the mark of another encoding.
    """
    marks = [(mark, owner) for mark, owner in BYTE_ORDER_MARKS if beginning.startswith(mark)]
    for mark, _ in marks:
        with contextlib.suppress(UnicodeError):
            if mark.decode(codec) in ("", "\ufeff"):
                return
    if marks:
        raise CorpusError(
            f"{name} begins with the byte order mark of {marks[0][1].upper()}, and is not "
            f"{_called(codec)}: leave --encoding out"
        )


def _called(encoding: str) -> str:
    """Return an encoding as messages name it: codecs of UTF-8 have several spellings."""
    return "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding.upper()


def read_bytes(
    source: Source, digests: Sequence[hashlib._Hash] = ()
) -> Iterator[tuple[bytes, bool]]:
    """Yield the raw bytes in pieces, also to the digests, then an empty last piece marked True.

    Raises:
        CorpusError: the source cannot be read.
    """
    if source.path is None and sys.stdin is None:
        raise CorpusError("standard input is closed: give a file, or a text through a pipe")
    with _reading(source.name), contextlib.ExitStack() as stack:
        if source.path is None:
            file: IO[bytes] = sys.stdin.buffer
        else:
            opener = OPENERS.get(source.path.suffix.lower(), open)
            file = stack.enter_context(cast("IO[bytes]", opener(source.path, "rb")))
        _require_end(file)
        while piece := file.read(PIECE_BYTES):
            for digest in digests:
                digest.update(piece)
            yield piece, False
    yield b"", True


def _require_end(file: IO[bytes]) -> None:
    """Refuse a device such as `/dev/zero`, which may never end; terminals and pipes can.

    Raises:
        ValueError: it is one.
    """
    try:
        status = os.fstat(file.fileno())
    except io.UnsupportedOperation:  # a stream of this process
        return
    is_device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
    is_empty = status.st_rdev == os.stat(os.devnull).st_rdev
    if is_device and not is_empty and not os.isatty(file.fileno()):
        raise ValueError("it is a device, which may never end; give a file, or use a pipe")
