"""The texts that `charrnn score` is given: arguments, lines, or one long text in pieces."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from charrnn.config import CorpusConfig
from charrnn.errors import ConfigError, CorpusError

MAX_LINE = 10_000_000
"""Characters; a longer line is no sentence, and would have to be held in memory."""


def pieces_of(path: Path | None, unit: str = "char") -> Iterator[str]:
    """Yield the text of a file in pieces; None and `-` are standard input.

    Raises:
        CorpusError: it cannot be read or decoded.
    """
    from charrnn.corpus.sources import Source, read_text

    source = Source(None if path is None or str(path) == "-" else path)
    return read_text(source, config=CorpusConfig(unit=unit))


def lines_of(path: Path | None, unit: str = "char") -> Iterator[str]:
    """Yield the lines of a file without their line ends, nothing else stripped.

    Raises:
        CorpusError: it cannot be read or decoded, or a line is too long to be held in memory.
    """
    name = "standard input" if path is None or str(path) == "-" else str(path)
    parts: list[str] = []
    held = 0
    number = 1
    for piece in pieces_of(path, unit):
        first, *rest = piece.split("\n")
        parts.append(first)
        held += len(first)
        if held > MAX_LINE:
            raise CorpusError(
                f"line {number} of {name} has more than {MAX_LINE:,} characters: score the file "
                "as one text with --whole"
            )
        if rest:
            yield "".join(parts)
            yield from rest[:-1]
            parts, held = [rest[-1]], len(rest[-1])
            number += len(rest)
    if held:
        yield "".join(parts)


def texts_of(texts: Iterable[str], file: Path | None, unit: str = "char") -> Iterator[str]:
    """Yield the texts given as arguments, then the lines of the file."""
    return itertools.chain(texts, lines_of(file, unit) if file is not None else ())


def waiting_stdin() -> Path | None:
    """Return `-` if standard input is a file or a pipe, None if it is a terminal or closed."""
    return None if sys.stdin is None or sys.stdin.isatty() else Path("-")


def first_of(texts: Iterator[str]) -> Iterator[str]:
    """Return the texts, having made sure that there is one.

    Raises:
        ConfigError: there is none.
    """
    for first in texts:
        return itertools.chain([first], texts)
    raise ConfigError("nothing to score: give texts as arguments, --file, or lines on stdin")


def read_context(given: str) -> str:
    """Return the text of `--context`: as given, or after an @ the content of a file.

    Raises:
        CorpusError: the file cannot be read or decoded.
    """
    return "".join(pieces_of(Path(given[1:]))) if given.startswith("@") else given
