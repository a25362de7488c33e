"""Curves, points and bars in a terminal: what a picture shows, in characters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from charrnn.display.format import can_show
from charrnn.display.terminal import visible

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of series, in terminals and pictures: those of Okabe & Ito 2008, which people who see few colours
can tell apart; legible on light and on dark."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ROWS = 16
"""Lines of a chart, without its axes."""
SCATTER_ROWS = 22
MAX_COLUMNS = 110
LEAST_COLUMNS = 16
LETTER_EVERY = 12
"""Columns between two letters on a curve, which tell curves apart without colours."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille's dots in a cell, by row and column."""
_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve."""

    name: str
    points: Sequence[tuple[float, float]]
    """By x; what is not finite is left out."""
    is_faint: bool = False
    """Shown behind the others; in a picture with dashes."""
    colour: int = 0
    """Number of its colour."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Several curves over one axis."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    is_log: bool = False
    """The y axis is logarithmic."""
    x_text: Callable[[float], str] = lambda x: f"{x:,.6g}"
    """How a value of the x axis is written."""
    x_steps: Sequence[float] = ()
    """Distances between its marks, in rising order; none for round numbers."""


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Labels in a plane."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[tuple[str, float, float]]
    """Label, x and y."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Pairs of shares, before and after."""

    title: str
    names: tuple[str, str]
    rows: Sequence[tuple[str, float, float]]
    """Label, and two shares from 0 to 1."""


Chart = Curves | Scatter | Bars


_IN_ASCII = {
    **dict.fromkeys(map(chr, range(0x2801, 0x2900)), "*"),
    **dict(zip("│┤└─┬┌┐┘█▉▊▋▌▍▎▏–→↑∂−␣", "|++-++++#=======->^d-_", strict=True)),
}
"""What stands for the characters of a chart in a terminal that lacks them."""


def show_chart(chart: Chart, console: Console | None = None) -> None:
    """Print a chart as wide as the terminal, up to `MAX_COLUMNS`."""
    console = console or Console(highlight=False)
    lines = {Curves: _curve_lines, Scatter: _scatter_lines, Bars: _bar_lines}[type(chart)]
    width = min(console.width, MAX_COLUMNS)
    console.print(Text(chart.title, style="bold"), soft_wrap=True)
    for line in lines(chart, width):  # type: ignore[operator]
        line.rstrip()
        if not can_show(line.plain, console.encoding):
            line.plain = "".join(
                c if can_show(c, console.encoding) else _IN_ASCII.get(c, c) for c in line.plain
            )
        console.print(line, soft_wrap=True)


def finite(series: Series, is_log: bool = False) -> list[tuple[float, float]]:
    """Return the points of a curve that can be drawn."""
    return [
        (x, y)
        for x, y in series.points
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not is_log)
    ]


def ticks(low: float, high: float, count: int, steps: Sequence[float] = ()) -> list[float]:
    """Return at most some round values from `low` to `high`.

    Args:
        low: the first place.
        high: the last.
        count: most values.
        steps: what may lie between two; the numbers 1, 2 and 5 with zeros if none is enough.
    """
    span = high - low
    if not span > 0:
        return [low]
    ten = 10.0 ** math.floor(math.log10(span / count))
    usual = [k * ten for k in (1, 2, 5, 10, 20)]
    step = next(one for one in (*steps, *usual) if span / one <= count)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between two exponents of ten, in even steps, or the ends."""
    whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    every = max(1, math.ceil(len(whole) / 5))
    chosen = [float(k) for k in whole if k % every == 0]
    return chosen if len(chosen) > 1 else [low, high]


def _curve_lines(chart: Curves, width: int) -> list[Text]:
    drawn = [(one, finite(one, chart.is_log)) for one in chart.series]
    every = [point for _, points in drawn for point in points]
    if not every:
        return [Text("nothing to draw")]
    scale = math.log10 if chart.is_log else float
    xs, ys = [x for x, _ in every], [scale(y) for _, y in every]
    x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)
    if y_high - y_low < 1e-9 * max(1.0, abs(y_high)):
        y_low, y_high = y_low - 0.5, y_high + 0.5
    labels = _y_labels(chart, y_low, y_high)
    margin = max(map(len, labels.values())) + 1
    columns = max(LEAST_COLUMNS, width - margin - 1)
    canvas = _Canvas(columns, ROWS)
    for number, (one, points) in reversed(list(enumerate(drawn))):
        places = [
            (_place(x, x_low, x_high, 2 * columns), _place(scale(y), y_high, y_low, 4 * ROWS))
            for x, y in points
        ]
        style = COLOURS[one.colour % len(COLOURS)] + (" dim" if one.is_faint else "")
        letter = LETTERS[number % len(LETTERS)] if len(drawn) > 1 else ""
        canvas.curve(places, style, letter, offset=number * 5)
    lines = [Text(chart.y_label, style="dim")]
    for row in range(ROWS):
        label = labels.get(row, "")
        lines.append(Text(f"{label:>{margin - 1}} {'┤' if label else '│'}", style="dim"))
        lines[-1].append_text(canvas.line(row))
    lines += _x_axis(chart, x_low, x_high, margin, columns)
    if len(drawn) > 1:
        lines.append(_legend(drawn, margin))
    return lines


def _y_labels(chart: Curves, low: float, high: float) -> dict[int, str]:
    """Return the labels of the y axis by row of the chart."""
    values = _log_ticks(low, high) if chart.is_log else ticks(low, high, 5)
    return {
        _place(value, high, low, ROWS): f"{10**value if chart.is_log else value:.3g}"
        for value in values
    }


def _x_axis(chart: Curves, low: float, high: float, margin: int, columns: int) -> list[Text]:
    """Return the line of the axis, that of its labels, and its name."""
    axis, labels = list("─" * columns), " " * (margin + columns + 1)
    free = 0
    for value in ticks(low, high, max(2, columns // 14), chart.x_steps):
        at = _place(value, low, high, columns)
        text = chart.x_text(value)
        begin = max(0, min(margin + 1 + at - len(text) // 2, len(labels) - len(text)))
        if begin >= free:
            axis[at] = "┬"
            labels = labels[:begin] + text + labels[begin + len(text) :]
            free = begin + len(text) + 2
    name = " " * (margin + 1) + chart.x_label.center(columns)
    corner = " " * margin + "└"
    return [Text(line, style="dim") for line in (corner + "".join(axis), labels, name)]


def _legend(drawn: Sequence[tuple[Series, object]], margin: int) -> Text:
    legend = Text(" " * (margin + 1))
    for number, (one, _) in enumerate(drawn):
        letter = LETTERS[number % len(LETTERS)]
        legend.append(f"{letter} ", f"bold {COLOURS[one.colour % len(COLOURS)]}")
        legend.append("".join(map(visible, one.name)) + "   ", "dim" if one.is_faint else "")
    return legend


def _place(value: float, first: float, last: float, size: int) -> int:
    """Return which of `size` places stands for a value between two ends."""
    share = 0.0 if first == last else (value - first) / (last - first)
    return min(size - 1, max(0, round(share * (size - 1))))


class _Canvas:
    """Dots of braille, two columns and four rows to a character."""

    def __init__(self, columns: int, rows: int) -> None:
        self._dots = [[0] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]
        self._letters = [[""] * columns for _ in range(rows)]

    def curve(
        self, places: Sequence[tuple[int, int]], style: str, letter: str, *, offset: int
    ) -> None:
        """Draw a line through places, with its letter on it again and again."""
        reached = offset
        for (x, y), (next_x, next_y) in zip(places, places[1:] or places, strict=False):
            steps = max(abs(next_x - x), abs(next_y - y), 1)
            for k in range(steps + 1):
                across = round(x + (next_x - x) * k / steps)
                down = round(y + (next_y - y) * k / steps)
                self._dots[down // 4][across // 2] |= _DOTS[down % 4][across % 2]
                self._styles[down // 4][across // 2] = style
                if letter and across // 2 >= reached:
                    self._letters[down // 4][across // 2] = letter
                    reached = across // 2 + LETTER_EVERY
        if letter and reached == offset:  # too short for it
            x, y = places[-1]
            self._letters[y // 4][x // 2] = letter

    def line(self, row: int) -> Text:
        """Return a line of the drawing."""
        line = Text()
        cells = zip(self._dots[row], self._styles[row], self._letters[row], strict=True)
        for dots, style, letter in cells:
            shown = letter or (chr(0x2800 + dots) if dots else " ")
            line.append(shown, f"bold {style}" if letter else style)
        return line


def _scatter_lines(chart: Scatter, width: int) -> list[Text]:
    columns = max(LEAST_COLUMNS, width - 2)
    xs, ys = [x for _, x, _ in chart.points], [y for _, _, y in chart.points]
    taken: dict[tuple[int, int], str] = {}
    hidden = 0
    for label, x, y in chart.points:
        size = cell_len(label)
        row = _place(y, max(ys), min(ys), SCATTER_ROWS)
        column = _place(x, min(xs), max(xs), columns - size + 1)
        around = ((r, c) for d in (0, 1, -1) for r in (row + d,) for c in (column, column + 1))
        free = (
            (r, c)
            for r, c in around
            if 0 <= r < SCATTER_ROWS
            and c + size <= columns
            and not any((r, c + k) in taken for k in range(size))
        )
        place = next(free, None)
        if place is None:
            hidden += 1
            continue
        for k in range(size):
            taken[place[0], place[1] + k] = "" if k else label
    lines = [Text("┌" + "─" * columns + "┐", style="dim")]
    for row in range(SCATTER_ROWS):
        cells = "".join(taken.get((row, column), " ") for column in range(columns))
        line = Text("│", style="dim")
        line.append(cells, "not dim")
        line.append("│")
        lines.append(line)
    lines.append(Text("└" + "─" * columns + "┘", style="dim"))
    lines.append(Text(f"→ {chart.x_label}   ↑ {chart.y_label}", style="dim"))
    if hidden:
        lines.append(Text(f"{hidden} lie under others; a picture (-o) has them all", style="dim"))
    return lines


def _bar_lines(chart: Bars, width: int) -> list[Text]:
    label_width = max(cell_len(label) for label, _, _ in chart.rows)
    columns = max(LEAST_COLUMNS, width - label_width - 10)
    top = max(max(before, after) for _, before, after in chart.rows) or 1.0
    lines = []
    for label, before, after in chart.rows:
        for k, (share, style) in enumerate(((before, COLOURS[0]), (after, COLOURS[1]))):
            line = Text(" " * (label_width - cell_len(label)) if k == 0 else " " * label_width)
            line.append(label if k == 0 else "", "bold")
            line.append(" " + _bar(share / top, columns), style)
            line.append(f" {_percent(share)}" if share > 0 else "  –", "" if k == 0 else "bold")
            lines.append(line)
    legend = Text(" " * (label_width + 1))
    for name, colour, where in zip(chart.names, COLOURS, ("above", "below"), strict=False):
        legend.append("█ ", colour)
        legend.append(f"{name} ({where})   ", "dim")
    return [*lines, legend]


def _bar(share: float, columns: int) -> str:
    eighths = round(share * columns * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.0005 else "<0.1%"
