"""Scores as tables for people, or as TSV and JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.heatmap import SHOWN_CHARS, new_table, visible_text
from charrnn.display.records import Records
from charrnn.scoring.compare import Comparison
from charrnn.scoring.pairs import Accuracy
from charrnn.scoring.rows import RowScore
from charrnn.scoring.score import Score, bits
from charrnn.vocab import list_unknown

_SCORE_COLUMNS = ("chars", "unknown", "logprob\n(nats)", "bits\nper char", "perplexity\nper char")
_SCORE_FIELDS = ("n_chars", "n_unknown", "logprob", "bits_per_char", "perplexity_per_char")


def show_scores(scores: Iterable[Score], output: str) -> Score:
    """Write scores to stdout as they come, and the total of all last; return the total.

    Args:
        scores: one per text.
        output: table, tsv or jsonl; a table waits for all, and leaves out the total of one text.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        total = Score.total(_written(scores, records))
        records.write(total.to_dict(), label="total")
        return total
    table = new_table("text", *_SCORE_COLUMNS)
    several = list(scores)
    for one in several:
        _add_score(table, Text(visible_text(one.text, SHOWN_CHARS)), one)
    total = Score.total(several)
    if len(several) > 1:
        _add_score(table, Text("total", style="bold"), total)
    if total.n_unknown:
        _add_score(table, Text("without unknown characters", style="dim"), total.known)
    Console().print(table)
    return total


def _written(scores: Iterable[Score], records: Records) -> Iterator[Score]:
    for one in scores:
        records.write(one.to_dict())
        yield one


def _add_score(table: Table, label: Text, score: Score) -> None:
    values = (getattr(score, field) for field in _SCORE_FIELDS)
    table.add_row(label, *(f"{v:,}" if isinstance(v, int) else f"{v:,.3f}" for v in values))


def show_pairs(groups: Sequence[Accuracy], output: str) -> None:
    """Write the accuracy of each group of pairs, the overall one last."""
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for one in groups:
            records.write(one.to_dict(), label="total" if one is groups[-1] else "")
        return
    table = new_table("pairs", "n", "right", "ties", "accuracy", "95 % interval")
    for one in groups:
        last = one is groups[-1]
        low, high = one.interval
        table.add_row(
            Text("all" if last else visible_text(one.group), style="bold" if last else ""),
            f"{one.n:,}",
            f"{one.n_correct:,}",
            f"{one.n_ties:,}",
            f"{one.accuracy:.1%}",
            f"{low:.1%} – {high:.1%}",
        )
    Console().print(table)


def show_comparison(found: Comparison, names: tuple[str, str], output: str) -> None:
    """Write how two models differ on the same texts."""
    if output != "table":
        first = {"model": names[0], "model_compared": names[1]}
        Records(as_json=output == "jsonl").write({**first, **found.to_dict()})
        return
    table = new_table("model", f"bits\nper {found.unit}", "unknown")
    for name, value, score in (
        (names[0], found.first_bits, found.first),
        (names[1], found.second_bits, found.second),
    ):
        table.add_row(Text(visible_text(name)), f"{value:.4f}", f"{score.n_unknown:,}")
    console = Console(highlight=False)
    console.print(table)
    difference = f"difference {found.difference:+.4f} bits per {found.unit}"
    if found.low == found.low:
        difference += (
            f", 95 % interval {found.low:+.4f} to {found.high:+.4f} "
            f"({found.n_units:,} texts or blocks resampled)"
        )
    else:
        difference += "; one short text gives no interval"
    better = visible_text(names[0] if found.difference > 0 else names[1])
    is_sure = found.low > 0 or found.high < 0
    verdict = f"{better} is better." if is_sure else "This text cannot tell the two models apart."
    for line in ("", difference, verdict):
        console.print(line, soft_wrap=True, markup=False)


def show_adaptation(pairs: Iterable[tuple[Score, Score]], output: str) -> Score:
    """Write static and adapted scores of each text side by side; return the static total."""
    several = list(pairs)
    total = (Score.total(a for a, _ in several), Score.total(b for _, b in several))
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for static, adapted in several:
            records.write(_adapted(static, adapted))
        records.write(_adapted(*total), label="total")
        return total[0]
    table = new_table("text", "chars", "bits per char\nstatic", "bits per char\nadapted", "saved")
    rows = [(Text(visible_text(a.text, SHOWN_CHARS)), a, b) for a, b in several]
    if len(several) > 1:
        rows.append((Text("total", style="bold"), *total))
    for label, static, adapted in rows:
        before, after = static.bits_per_char, adapted.bits_per_char
        table.add_row(
            label, f"{static.n_chars:,}", f"{before:.4f}", f"{after:.4f}", f"{before - after:.4f}"
        )
    Console().print(table)
    return total[0]


def _adapted(static: Score, adapted: Score) -> dict[str, Any]:
    return {
        **static.to_dict(),
        "logprob_adapted": adapted.logprob,
        "bits_per_char_adapted": adapted.bits_per_char,
        "bits_per_byte_adapted": adapted.bits_per_byte,
    }


def tell_about(total: Score, *, n_empty: int, eos: bool, model: str = "") -> None:
    """Say on stderr which characters were unknown (to which model), and that texts were empty."""
    if total.unknown:
        n, fate = total.n_unknown, "scored as UNK"
        if total.n_skipped:
            n, fate = total.n_skipped, "left out"
        what = "unknown character" if n == 1 else "unknown characters"
        whose = f"{model}: " if model else ""
        print(f"{whose}{n:,} {what} {fate}: {list_unknown(total.unknown)}", file=sys.stderr)
    if n_empty:
        which = "an empty text" if n_empty == 1 else f"{n_empty:,} empty texts"
        what = "only its end" if n_empty == 1 else "only their ends"
        print(f"{which}: {what if eos else 'nothing'} to score", file=sys.stderr)


def tell_rows(found: RowScore, rows: int, warmup: int) -> None:
    """Say on stderr that a score in rows is an approximation, and what it costs."""
    cost = bits(found.cost_logprob) / max(found.score.n_scored, 1)
    print(
        f"read in {rows:,} pieces, each after {warmup:,} uncounted characters: an approximation "
        f"that costs about {cost:.2g} bits per character, measured where the pieces meet",
        file=sys.stderr,
    )
