"""Scores as a table for people or as TSV for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.scoring import Score

FIELDS = (
    "n_chars",
    "n_bytes",
    "n_scored",
    "n_unknown",
    "logprob",
    "log2prob",
    "bits_per_char",
    "bits_per_byte",
    "perplexity_per_char",
)
TABLE_FIELDS = ("n_chars", "n_unknown", "logprob", "bits_per_char", "perplexity_per_char")


def show_scores(scores: Sequence[Score], *, to_terminal: bool) -> None:
    """Write scores to stdout, with a last line of totals when there are several."""
    if to_terminal:
        _table(scores)
    else:
        _tsv(scores)
    for one in scores:
        if one.unknown:
            listed = ", ".join(map(str, one.unknown[:5])) + (", …" if one.unknown[5:] else "")
            print(f"scored as UNK: {listed}", file=sys.stderr)


def _table(scores: Sequence[Score]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("text", overflow="fold")
    for header in ("chars", "unknown", "logprob\n(nats)", "bits\nper char", "perplexity\nper char"):
        table.add_column(header, justify="right")
    rows = [(Text(one.text), one) for one in scores]
    if len(scores) > 1:
        rows.append((Text("total", style="bold"), Score.total(scores)))
    for label, one in rows:
        values = (getattr(one, field) for field in TABLE_FIELDS)
        table.add_row(label, *(f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in values))
    Console().print(table)


def _tsv(scores: Sequence[Score]) -> None:
    print("\t".join(("text", *FIELDS)))
    rows = [(_escape(one.text), one) for one in scores]
    if len(scores) > 1:
        rows.append(("#total", Score.total(scores)))
    for label, one in rows:
        print("\t".join((label, *(repr(getattr(one, field)) for field in FIELDS))))


def _escape(text: str) -> str:
    """Keep a text in one cell: backslash, tab and line ends are written as escapes."""
    for raw, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return text
