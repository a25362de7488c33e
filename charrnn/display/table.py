"""Tables for people: a column of texts, then columns of numbers, which are never broken."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from charrnn.display.terminal import print_table, say

LEAST_TEXT = 12
"""Columns of a terminal that the texts have at least, if any is so long."""
_GAP = 2
"""Between two columns of a table."""


def new_table(first: str, *others: str) -> Table:
    """Return a table without borders: a column of texts, then columns of numbers."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for header in others:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def show_table(table: Table, gives_way: Sequence[str] = ()) -> None:
    """Print a table to stdout; on a narrow terminal, columns give way to the others.

    Args:
        table: made by `new_table`.
        gives_way: beginnings of the headers of columns that may be missing, the first ones first;
            stderr tells which are.
    """
    console = Console()
    missing: list[str] = []
    if console.is_terminal:
        for header in gives_way:
            if _least_width(table) <= console.width:
                break
            kept = [one for one in table.columns if not str(one.header).startswith(header)]
            missing += [header] * (len(table.columns) - len(kept))
            table = new_table(*(str(one.header) for one in kept))
            for row in zip(*(one.cells for one in kept), strict=True):
                table.add_row(*row)
    print_table(table)
    if missing:
        say(f"no room for {', '.join(missing)}: widen the terminal, or ask for --format tsv")


def _least_width(table: Table) -> int:
    """Return how wide a terminal must be for every number to stand in one line."""
    texts, *numbers = map(_width, table.columns)
    return min(texts, LEAST_TEXT) + sum(_GAP + width for width in numbers)


def _width(column: Column) -> int:
    """Return the width of the longest line in a column."""
    cells = [column.header, *column.cells]
    plain = (cell.plain if isinstance(cell, Text) else str(cell) for cell in cells)
    return max(cell_len(line) for text in plain for line in text.split("\n"))
