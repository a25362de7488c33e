"""The runs in a folder: a table for people, records for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from rich.cells import cell_len

from charrnn.display.records import Records
from charrnn.display.terminal import columns as columns_of
from charrnn.display.terminal import visible_text
from charrnn.storage.listing import RunSummary

GAP = "  "
"""Between columns."""


def show_runs(runs: Sequence[RunSummary], output: str) -> None:
    """Write one line for each run.

    Args:
        runs: what there is.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for run in runs:
            record = asdict(run)
            losses = {f"{name}_nats": record.pop(name) for name in ("val_loss", "train_loss")}
            records.write({**record, "path": str(run.path), **losses})
        return
    is_known = any(run.bits_per_char is not None for run in runs)
    columns = [_Column("path", 0, [str(run.path) for run in runs])]
    columns += [
        _Column("text", 3, [run.text for run in runs]),
        _Column("started", 5, [run.started[:16].replace("T", " ") for run in runs]),
        _Column("state", 2, [run.state for run in runs]),
        _Column("loss", 1, [_loss(run) for run in runs]),
        _Column("bits/char", 4 if is_known else 6, [_bits(run) for run in runs]),
    ]
    for line in _lines(columns, columns_of(sys.stdout)):
        print(line)


class _Column(NamedTuple):
    """A column of the table: the one of the highest rank is left out first, and 0 stays."""

    header: str
    rank: int
    cells: list[str]

    def width(self) -> int:
        """Return the cells of a terminal that it needs."""
        return max(cell_len(cell) for cell in (self.header, *self.cells))


def _lines(columns: Sequence[_Column], width: int | None) -> list[str]:
    """Lay a table out in a width; no cell is broken, for a name in pieces names nothing."""
    kept = [_Column(*column[:2], list(map(visible_text, column.cells))) for column in columns]
    while width is not None and sum(c.width() + len(GAP) for c in kept) - len(GAP) > width:
        if len(kept) == 1:
            break
        kept.remove(max(kept, key=lambda column: column.rank))
    rows = zip(*([c.header, *c.cells] for c in kept), strict=True)
    return [
        GAP.join(
            cell + " " * (column.width() - cell_len(cell))
            for cell, column in zip(row, kept, strict=True)
        ).rstrip()
        for row in rows
    ]


def _loss(run: RunSummary) -> str:
    """Write the validation loss, or the training loss as what it is."""
    loss = run.train_loss if run.val_loss is None else run.val_loss
    if loss is None:
        return ""
    return f"{loss:.3f} nats/{run.unit or 'char'}" + (" (training)" if run.val_loss is None else "")


def _bits(run: RunSummary) -> str:
    return "" if run.bits_per_char is None else f"{run.bits_per_char:.3f}"
