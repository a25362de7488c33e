"""A text on the terminal, each character coloured by how much it surprised the model."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text


class Level(NamedTuple):
    """A band of surprise."""

    from_bits: float
    style: str
    plain: str
    """Style where colours are not wanted."""


LEVELS = (
    Level(0, "", ""),
    Level(1, "#b8860b", ""),
    Level(2, "#d2691e", ""),
    Level(4, "#3a1d00 on #f4a65b", "underline"),
    Level(6, "#ffffff on #d9482b", "bold underline"),
    Level(9, "#ffffff on #a3154d", "reverse"),
    Level(13, "bold #ffffff on #5b1a86", "bold reverse"),
)
"""Each band begins where the one before it ends; a bit is a halving of the probability."""

_SIGNS = {"\n": "↵", "\t": "→", "\x7f": "␡", "": "∎"}

Cell = tuple[str, float]
"""A character (or a word) and its bits."""


def visible(character: str) -> str:
    """Return a character that shows on a terminal and does nothing to it."""
    if character in _SIGNS:
        return _SIGNS[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def visible_text(text: str, limit: int = 0) -> str:
    """Return a text in one line, cut to `limit` characters if that is not 0."""
    cut = len(text) > limit > 0
    return "".join(map(visible, text[:limit] if cut else text)) + "…" * cut


def level_of(bits: float) -> Level:
    """Return the band of a surprise in bits."""
    return [level for level in LEVELS if bits >= level.from_bits or level is LEVELS[0]][-1]


def show_heatmap(console: Console, cells: Iterable[Cell]) -> None:
    """Print a text in its own lines, broken between words where the terminal is narrower.

    Args:
        console: where to.
        cells: character and bits; the character of the end is empty.
    """
    for line in _lines(cells, console.width):
        shown = Text()
        for character, bits in line:
            level = level_of(bits)
            style = level.plain if console.no_color else level.style
            shown.append(visible(character), style)
        console.print(shown, soft_wrap=True)


def _lines(cells: Iterable[Cell], width: int) -> Iterator[list[Cell]]:
    """Yield the lines of a text, none wider than the terminal."""
    line: list[Cell] = []
    used = 0
    for cell in cells:
        size = cell_len(visible(cell[0]))
        if used + size > width:
            spaces = [k for k, (character, _) in enumerate(line) if character == " "]
            cut = spaces[-1] + 1 if spaces else len(line)
            yield line[:cut]
            line = line[cut:]
            used = sum(cell_len(visible(character)) for character, _ in line)
        line.append(cell)
        used += size
        if cell[0] == "\n":
            yield line
            line, used = [], 0
    if line:
        yield line


def show_legend(console: Console, what: str = "bits") -> None:
    """Print what the colours mean."""
    legend = Text(f"{what}  ")
    bounds: Sequence[float | None] = [*(level.from_bits for level in LEVELS[1:]), None]
    for level, end in zip(LEVELS, bounds, strict=True):
        name = f"≥{level.from_bits:g}" if end is None else f"{level.from_bits:g}–{end:g}"
        legend.append(f" {name} ", level.plain if console.no_color else level.style)
        legend.append(" ")
    console.print(legend, soft_wrap=True)
