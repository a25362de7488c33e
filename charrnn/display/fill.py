"""Fillings of the gaps of texts, as tables or records."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from charrnn.display.records import Records, with_probability
from charrnn.display.table import new_table, show_table
from charrnn.display.terminal import visible_text
from charrnn.sampling.fill import Filling

LEAST_SHOWN = 1e-4
"""A smaller probability is shown by its logarithm alone."""


class FillDisplay:
    """Writes the fillings of texts to stdout.

    Args:
        output: table, tsv or jsonl.
        is_random: they were drawn, and do not come in the order of their probability.
    """

    def __init__(self, output: str, *, is_random: bool) -> None:
        """Write nothing yet."""
        self._records = None if output == "table" else Records(as_json=output == "jsonl")
        self._is_random = is_random

    def add(self, number: int, found: Sequence[Filling]) -> None:
        """Write the fillings of the text of this number, from 1."""
        if self._records is not None:
            for k, one in enumerate(found, 1):
                record = {
                    "number": number,
                    "filling": k,
                    "text": one.text,
                    "gaps": list(one.gaps),
                    "logprob": one.logprob,
                }
                self._records.write(with_probability(record))
            return
        if number > 1:
            Console(highlight=False).print()
        if not found[0].gaps:
            Console(highlight=False, soft_wrap=True).print(_marked(found[0]))
            return
        table = new_table(
            "drawn" if self._is_random else "filled", "probability", "logprob\n(nats)"
        )
        for one in found:
            share = f"{one.probability:.2%}" if one.probability >= LEAST_SHOWN else "< 0.01%"
            table.add_row(_marked(one), share, f"{one.logprob:.2f}")
        show_table(table, ("probability",))


def _marked(one: Filling) -> Text:
    """Return a filled text in which what was filled in stands out, with colours or without."""
    shown, end = Text(), 0
    for start, gap in zip(one.starts, one.gaps, strict=True):
        shown.append(visible_text(one.text[end:start]))
        end = start + len(gap)
        shown.append(visible_text(one.text[start:end]), "bold underline")
    return shown.append(visible_text(one.text[end:]))
