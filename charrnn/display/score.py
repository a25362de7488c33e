"""Scores as tables for people, or as TSV and JSON lines for programs."""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.heatmap import show_heatmap, show_legend, visible, visible_text
from charrnn.display.records import Records
from charrnn.scoring.compare import Comparison
from charrnn.scoring.details import END, CharScore
from charrnn.scoring.lanes import LaneScore
from charrnn.scoring.pairs import Accuracy
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import list_unknown
from charrnn.scoring.words import WordScore, word_scores

SHOWN_CHARS = 160
"""A longer text is cut in a table."""
SURPRISES = 8
"""How many of the most surprising characters or words are named under a heat map."""
CONTEXT_CHARS = 20

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
    table = _table("text", *_SCORE_COLUMNS)
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


def _table(first: str, *others: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for header in others:
        table.add_column(header, justify="right")
    return table


def _add_score(table: Table, label: Text, score: Score) -> None:
    values = (getattr(score, field) for field in _SCORE_FIELDS)
    table.add_row(label, *(f"{v:,}" if isinstance(v, int) else f"{v:,.3f}" for v in values))


def show_characters(
    texts: Iterable[tuple[str, Iterable[CharScore]]], output: str, alternatives: int
) -> None:
    """Write the characters of texts: heat maps, or one record for each character.

    Args:
        texts: each text and its events.
        output: table, tsv or jsonl.
        alternatives: how many each event names.
    """
    if output == "table":
        console = Console(highlight=False)
        for _, characters in texts:
            _heat(console, list(characters), alternatives)
        show_legend(console, "bits per character")
        return
    records = Records(as_json=output == "jsonl")
    for number, (_, characters) in enumerate(texts, 1):
        for position, one in enumerate(characters):
            record: dict[str, Any] = {"text_number": number, "position": position}
            record.update(one.to_dict())
            if output == "tsv":
                del record["alternatives"]
                for k in range(alternatives):
                    other = one.alternatives[k] if k < len(one.alternatives) else ("", "")
                    record[f"alternative_{k + 1}"] = other[0]
                    record[f"alternative_{k + 1}_logprob"] = other[1]
            records.write(record)


def _heat(console: Console, characters: Sequence[CharScore], alternatives: int) -> None:
    """Print a heat map, and under it what surprised most."""
    show_heatmap(console, ((one.text, one.bits) for one in _characters(characters)))
    surprising = heapq.nlargest(SURPRISES, range(len(characters)), key=lambda k: characters[k].bits)
    table = _table("most surprising", "bits", "rank")
    if alternatives:
        table.add_column("expected")
    for k in surprising:
        one = characters[k]
        before = "".join(c.text for c in characters[max(0, k - CONTEXT_CHARS) : k])
        label = Text(visible_text(before), style="dim")
        label.append(_name(one.character), "bold")
        row: list[str | Text] = [label, f"{one.bits:.1f}", f"{one.rank:,}"]
        if alternatives:
            row.append(Text(_expected(one)))
        table.add_row(*row)
    console.print()
    console.print(table)
    console.print()


def _characters(events: Sequence[CharScore]) -> Iterator[CharScore]:
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


def _name(character: str) -> str:
    if character == " ":
        return "␣"
    return visible(character) if len(character) == 1 else character


def _expected(one: CharScore) -> str:
    return "  ".join(
        f"{_name(other.character)} {100 * math.exp(other.logprob):.0f}%"
        for other in one.alternatives
    )


def show_words(texts: Iterable[tuple[str, Iterable[CharScore]]], output: str) -> None:
    """Write the words of texts: coloured by their bits, or one record for each.

    Args:
        texts: each text and its events.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for number, (_, characters) in enumerate(texts, 1):
            position = 0
            for word in word_scores(characters):
                start = {"text_number": number, "position": position}
                records.write({**start, **word.to_dict()})
                position += word.n_chars
        return
    console = Console(highlight=False)
    for _, characters in texts:
        words = list(word_scores(characters))
        show_heatmap(
            console, ((c, _word_level(word)) for word in words for c in word.text or ("",))
        )
        table = _table("most surprising", "bits", "bits\nper char")
        real = [word for word in words if word.kind == "word"]
        for word in heapq.nlargest(SURPRISES, real, key=lambda word: word.bits):
            label = Text(visible_text(word.text, SHOWN_CHARS))
            table.add_row(label, f"{word.bits:.1f}", f"{word.bits / word.n_chars:.1f}")
        console.print()
        console.print(table)
        console.print()
    show_legend(console, "bits per character of the word")


def _word_level(word: WordScore) -> float:
    return word.bits / max(word.n_chars, 1)


def show_pairs(groups: Sequence[Accuracy], output: str) -> None:
    """Write the accuracy of each group of pairs, the overall one last."""
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for one in groups:
            records.write(one.to_dict(), label="total" if one is groups[-1] else "")
        return
    table = _table("pairs", "n", "right", "ties", "accuracy", "95 % interval")
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
    table = _table("model", f"bits\nper {found.unit}", "unknown")
    for name, bits, score in (
        (names[0], found.first_bits, found.first),
        (names[1], found.second_bits, found.second),
    ):
        table.add_row(Text(name), f"{bits:.4f}", f"{score.n_unknown:,}")
    console = Console(highlight=False)
    console.print(table)
    sure = found.low > 0 or found.high < 0
    better = names[0] if found.difference > 0 else names[1]
    console.print(
        f"\ndifference {found.difference:+.4f} bits per {found.unit}"
        + (
            f", 95 % interval {found.low:+.4f} to {found.high:+.4f} "
            f"({found.n_units:,} texts or blocks resampled)"
            if found.low == found.low
            else "; one short text gives no interval"
        ),
        soft_wrap=True,
        markup=False,
    )
    verdict = f"{better} is better." if sure else "The two cannot be told apart on this text."
    console.print(verdict, soft_wrap=True, markup=False)


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
    table = _table("text", "chars", "bits per char\nstatic", "bits per char\nadapted", "saved")
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


def tell_about(total: Score, *, n_empty: int, eos: bool) -> None:
    """Say on stderr which characters were unknown, and that texts were empty."""
    if total.unknown:
        n, fate = total.n_unknown, "scored as UNK"
        if total.n_skipped:
            n, fate = total.n_skipped, "left out"
        what = "unknown character" if n == 1 else "unknown characters"
        print(f"{n:,} {what} {fate}: {list_unknown(total.unknown)}", file=sys.stderr)
    if n_empty:
        which, it = (
            ("an empty text", "it") if n_empty == 1 else (f"{n_empty:,} empty texts", "each")
        )
        said = f"only the end of {it} is scored" if eos else f"nothing of {it} is scored"
        print(f"{which}: {said}", file=sys.stderr)


def tell_lanes(found: LaneScore, lanes: int, warmup: int) -> None:
    """Say on stderr that a score in lanes is an approximation, and what it costs."""
    bits = found.cost_logprob / math.log(2) / max(found.score.n_scored, 1)
    print(
        f"read in {lanes:,} pieces, each warmed up on {warmup:,} characters: an approximation, "
        f"measured at its seams to cost {bits:.2g} bits per character",
        file=sys.stderr,
    )
