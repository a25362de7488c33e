"""The runs in a folder: a table for people, records for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from charrnn.display.format import UNITS
from charrnn.display.heatmap import new_table
from charrnn.display.records import Records
from charrnn.display.terminal import visible_text
from charrnn.storage.listing import RunSummary


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
            loss_nats = record.pop("val_loss")
            records.write({**record, "path": str(run.path), "val_loss_nats": loss_nats})
        return
    table = new_table("run")
    for header in ("text", "begun", "state"):
        table.add_column(header, overflow="fold")
    table.add_column("bits per\ncharacter", justify="right")
    table.add_column("validation loss", overflow="fold")
    for run in runs:
        loss = (
            ""
            if run.val_loss is None
            else f"{run.val_loss:.3f} nats per {UNITS[run.unit or 'char'][0]}"
        )
        bits = "" if run.bits_per_char is None else f"{run.bits_per_char:.3f}"
        several = f", {run.members} members" if (run.members or 1) > 1 else ""
        texts = (str(run.path), run.text, run.started[:16].replace("T", " "), run.state + several)
        table.add_row(*(Text(visible_text(text)) for text in texts), bits, loss)
    Console(highlight=False).print(table)
