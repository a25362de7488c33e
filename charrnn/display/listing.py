"""The runs in a folder: a table for people, records for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.text import Text

from charrnn.display.heatmap import new_table
from charrnn.display.info import texts_of
from charrnn.display.records import Records
from charrnn.display.terminal import print_table, visible_text
from charrnn.errors import ModelFileError
from charrnn.storage.listing import SHOWN_CHARACTERS, RunSummary
from charrnn.storage.model_file import read_model_record
from charrnn.storage.runs import RunDirectory


def show_runs(runs: Sequence[RunSummary], output: str) -> None:
    """Write one line for each run.

    Args:
        runs: what there is.
        output: table, tsv or jsonl.
    """
    runs = [run if run.text else replace(run, text=_texts(run)) for run in runs]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for run in runs:
            record = asdict(run)
            loss_nats = record.pop("val_loss")
            records.write({**record, "path": str(run.path), "val_loss_nats": loss_nats})
        return
    table = new_table("run")
    table.add_column("text", overflow="fold")
    for header in ("begun", "state", "validation"):
        table.add_column(header, no_wrap=True)
    table.add_column("bits/char", justify="right")
    for run in runs:
        loss = "" if run.val_loss is None else f"{run.val_loss:.3f} nats/{run.unit or 'char'}"
        bits = "" if run.bits_per_char is None else f"{run.bits_per_char:.3f}"
        texts = (str(run.path), run.text, run.started[:16].replace("T", " "), run.state)
        table.add_row(*(Text(visible_text(text)) for text in texts), loss, bits)
    print_table(table)


def _texts(run: RunSummary) -> str:
    """Return what a merged model has read; nothing of any other one."""
    try:
        record = read_model_record(RunDirectory(run.path).model)
    except ModelFileError:
        return ""
    return texts_of(record)[:SHOWN_CHARACTERS]
