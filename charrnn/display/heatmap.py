"""Characters and words of texts, coloured by how much they surprised the model, or as records."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from charrnn.display.records import Records, with_probability
from charrnn.display.table import new_table
from charrnn.display.terminal import print_table, visible, visible_text
from charrnn.scoring.details import END, CharScore, WordScore, word_scores

SURPRISES = 8
"""How many of the most surprising characters or words are named under a heat map."""
MISSPELT = "perhaps misspelt"
SUSPICIOUS = 20.0
"""How many times as probable another character is in the place of one that may be misspelt."""
CONTEXT_CHARS = 20
SHOWN_CHARS = 160
"""A longer text is cut in a table."""


Event = TypeVar("Event", CharScore, WordScore)


class _Surprises(Generic[Event]):
    """The most surprising characters or words of a text, which may be of any length."""

    def __init__(self, counts: Callable[[Event], bool] | None = None) -> None:
        self._counts: Callable[[Event], bool] | None = counts
        self._heap: list[tuple[float, int, str, Event]] = []

    def passed(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield events again, and keep the most surprising, each with the text before it."""
        before = ""
        for number, one in enumerate(events):
            is_named = not isinstance(one, WordScore) or one.kind == "word"
            if is_named and (self._counts is None or self._counts(one)):
                entry = (one.bits, -number, before, one)
                if len(self._heap) < SURPRISES:
                    heapq.heappush(self._heap, entry)
                elif entry > self._heap[0]:
                    heapq.heapreplace(self._heap, entry)
            before = (before + one.text)[-CONTEXT_CHARS:]
            yield one

    def largest(self) -> list[tuple[str, Event]]:
        """Return what came before each and itself, the most surprising first."""
        return [(before, one) for _, _, before, one in sorted(self._heap, reverse=True)]


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

Cell = tuple[str, float]
"""A character (or a word) and its bits, or another value."""


def level_of(bits: float) -> Level:
    """Return the band of a surprise in bits."""
    return [level for level in LEVELS if bits >= level.from_bits or level is LEVELS[0]][-1]


def show_heatmap(
    console: Console, cells: Iterable[Cell], band: Callable[[float], Level] = level_of
) -> None:
    """Print a text in its own lines, broken between words where the terminal is narrower.

    Args:
        console: where to.
        cells: character and bits; the character of the end is empty.
        band: from the bits, or another value, to what they look like.
    """
    for line in _lines(cells, console.width):
        shown = Text()
        for character, value in line:
            level = band(value)
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
    """Print what the colours mean, on a terminal in lines that end between two bands."""
    legend = Text(f"{what} ")
    bounds: Sequence[float | None] = [*(level.from_bits for level in LEVELS[1:]), None]
    for level, end in zip(LEVELS, bounds, strict=True):
        name = f"≥{level.from_bits:g}" if end is None else f"{level.from_bits:g}–{end:g}"
        band = Text(f" {name} ", level.plain if console.no_color else level.style)
        if console.is_terminal and legend.cell_len + 1 + band.cell_len > console.width:
            console.print(legend, soft_wrap=True)
            legend = Text()
        legend.append(" " if legend else "").append_text(band)
    console.print(legend, soft_wrap=True)


def show_characters(
    texts: Iterable[Iterable[CharScore]],
    output: str,
    alternatives: int,
    *,
    likelier: bool = False,
) -> None:
    """Write the characters of texts: heat maps, or one record for each character.

    Args:
        texts: the events of each text.
        output: table, tsv or jsonl.
        alternatives: how many each event names.
        likelier: name below a heat map only the characters in whose place another is far more
            probable, for a model that has read the text from both sides: perhaps they are misspelt.
    """
    if output == "table":
        console = Console(highlight=False)
        for events in texts:
            found = _Surprises[CharScore](_is_suspicious if likelier else None)
            seen = whole_characters(found.passed(events))
            show_heatmap(console, ((one.text, one.bits) for one in seen))
            heading = MISSPELT if likelier else "most surprising"
            _show_surprises(console, found, alternatives, heading)
        show_legend(console, "bits per character")
        return
    records = Records(as_json=output == "jsonl")
    for number, events in enumerate(texts, 1):
        for position, one in enumerate(events):
            where = {"text_number": number, "position": position}
            record = {**where, **with_probability(one.to_dict())}
            records.write(_in_columns(record) if output == "tsv" else record)


def _in_columns(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with two columns for each alternative in place of a list of them."""
    columns = dict(record)
    for k, one in enumerate(columns.pop("alternatives"), 1):
        columns[f"alternative_{k}"] = one["character"]
        columns[f"alternative_{k}_logprob"] = one["logprob"]
    return columns


def whole_characters(events: Iterable[CharScore]) -> Iterator[CharScore]:
    """Yield one event per character: the later bytes of a character add to its first."""
    held: CharScore | None = None
    for one in events:
        if held is not None and not one.text and one.character != END:
            held = replace(held, logprob=held.logprob + one.logprob)
            continue
        if held is not None:
            yield held
        held = one
    if held is not None:
        yield held


def _is_suspicious(one: CharScore) -> bool:
    """Say whether another character is far more probable in the place of this one."""
    best = one.alternatives[0] if one.alternatives else None
    return best is not None and best.logprob - one.logprob >= math.log(SUSPICIOUS)


def _show_surprises(
    console: Console, found: _Surprises[CharScore], alternatives: int, heading: str
) -> None:
    """Print the events that surprised most, each after what stands before it."""
    if heading == MISSPELT and not found.largest():
        console.print("\nNo character stands where another is far more probable.\n")
        return
    table = new_table(heading, "bits", "rank")
    if alternatives:
        table.add_column("expected")
    for before, one in found.largest():
        label = Text(visible_text(before), style="dim")
        label.append(_name(one.character), "bold")
        row: list[str | Text] = [label, f"{one.bits:.1f}", f"{one.rank:,}"]
        if alternatives:
            expected = (
                f"{_name(other.character)} {100 * math.exp(other.logprob):.0f}%"
                for other in one.alternatives
            )
            row.append(Text("  ".join(expected)))
        table.add_row(*row)
    console.print()
    print_table(table)
    console.print()


def _name(character: str) -> str:
    if character == " ":
        return "␣"
    return visible(character) if len(character) == 1 else character


def show_words(texts: Iterable[Iterable[CharScore]], output: str) -> None:
    """Write the words of texts: coloured by their bits, or one record for each.

    Args:
        texts: the events of each text.
        output: table, tsv or jsonl.
    """
    if output == "table":
        console = Console(highlight=False)
        for events in texts:
            found = _Surprises[WordScore]()
            words = found.passed(word_scores(events))
            cells = ((c, _bits_per_char(word)) for word in words for c in word.text or ("",))
            show_heatmap(console, cells)
            table = new_table("most surprising", "bits", "bits\nper char")
            for _, word in found.largest():
                label = Text(visible_text(word.text, SHOWN_CHARS))
                table.add_row(label, f"{word.bits:.1f}", f"{_bits_per_char(word):.1f}")
            console.print()
            print_table(table)
            console.print()
        show_legend(console, "bits per character of the word")
        return
    records = Records(as_json=output == "jsonl")
    for number, events in enumerate(texts, 1):
        position = 0
        for word in word_scores(events):
            where = {"text_number": number, "position": position}
            records.write({**where, **with_probability(word.to_dict())})
            position += word.n_chars


def _bits_per_char(word: WordScore) -> float:
    return word.bits / max(word.n_chars, 1)
