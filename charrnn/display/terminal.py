"""What reaches a terminal: foreign text with its control characters escaped, and commands to paste.

A text may come from anybody: a corpus, a model file, a prompt, the name of a file. On a terminal it
must show and do nothing else; what is no terminal gets it exactly.

Lines are broken between words on a terminal, and nowhere else: a pipe has no width. A word and a
command to paste are never broken, however long; a terminal shows the rest in its next row and
copies it as one line.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from charrnn.config import quoted

if TYPE_CHECKING:
    from rich.table import Table

_SIGNS = {"\n": "↵", "\t": "→", "\x7f": "␡", "": "∎"}
_KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners of scripts and emoji do no harm in running text."""
_COMMANDS = "train|sample|fill|score|pairs|compare|info|inspect|plot|list|merge|export"
_COMMAND = rf"charrnn (?:{_COMMANDS})\b"
_WHOLE = re.compile(rf"{_COMMAND}[^\n]*|\S+|\n")
"""What a line is broken between: a word, or a command with the rest of its line."""


def visible(character: str) -> str:
    """Return a character that shows on a terminal and does nothing to it.

    Control characters become their signs; other ones without a shape, such as the marks of writing
    direction, and surrogates, are spelled out: `\\u202e`.
    """
    if character in _SIGNS:
        return _SIGNS[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    is_shapeless = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return repr(character)[1:-1] if is_shapeless else character


def visible_text(text: str, limit: int = 0) -> str:
    """Return a text in one line, cut to `limit` characters if that is not 0."""
    cut = len(text) > limit > 0
    return "".join(map(visible, text[:limit] if cut else text)) + "…" * cut


def terminal_text(text: str) -> str:
    """Return a text in its own lines that does nothing to a terminal but show."""
    if text.isprintable():
        return text
    return "".join(c if c in _KEPT else visible(c) for c in text)


def say(text: str) -> None:
    """Write a line of commentary to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        print(wrapped(terminal_text(text), columns(sys.stderr)), file=sys.stderr, flush=True)


def columns(stream: TextIO) -> int | None:
    """Return the width of a terminal; None of what is none."""
    if not stream.isatty():
        return None
    from rich.console import Console

    return Console(file=stream).width


def wrapped(text: str, width: int | None) -> str:
    """Return a text with line ends between its words where lines would be wider than a terminal."""
    bounds = [0, *line_starts(text, width), len(text)]
    lines = [text[begin:end] for begin, end in itertools.pairwise(bounds)]
    return "\n".join([*(line.rstrip(" ") for line in lines[:-1]), lines[-1]])


def line_starts(text: str, width: int | None) -> list[int]:
    """Return where the lines of a text begin that are not its own, in a terminal of such a width.

    Args:
        text: may have line ends.
        width: None for a pipe, where no line is broken.
    """
    starts: list[int] = []
    if width is None:
        return starts
    begin = 0
    for match in _WHOLE.finditer(text):
        if match[0] == "\n":
            begin = match.end()
        elif text[begin : match.start()].strip() and _cells(text[begin : match.end()]) > width:
            begin = match.start()
            starts.append(begin)
    return starts


def _cells(text: str) -> int:
    """Return how wide a text is on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def print_table(table: Table) -> None:
    """Print a table to stdout: fitted into a terminal, elsewhere as wide as it is."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    console.width = sys.maxsize
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def pasted(words: Iterable[str]) -> str:
    """Return a command that can be pasted into a shell, whatever its words consist of."""
    return " ".join(map(quoted, words))
