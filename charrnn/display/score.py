"""Scores as tables for people, or as TSV and JSON lines for programs."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from charrnn.config import Unit
from charrnn.display.format import UNITS
from charrnn.display.heatmap import SHOWN_CHARS, new_table
from charrnn.display.records import Records, with_probability
from charrnn.display.terminal import columns, print_table, say, visible_text, wrapped
from charrnn.scoring.compare import LEAST_TEXTS, Comparison
from charrnn.scoring.pairs import Accuracy
from charrnn.scoring.rows import RowScore
from charrnn.scoring.score import Score, bits
from charrnn.scoring.scorer import CHUNK
from charrnn.vocab import Unknown, Vocabulary, list_unknown, name_of

_SCORE_COLUMNS = ("chars", "unknown", "logprob\n(nats)", "bits\n{}", "perplexity\n{}")
_SCORE_FIELDS = ("n_chars", "n_unknown", "logprob", "bits_per_char", "perplexity_per_char")
NAMED = 5
"""Unknown characters that are named, each with its text."""
TOO_FEW = (
    f"too few texts for a 95 % interval: it takes {LEAST_TEXTS}, or one text of "
    f"{LEAST_TEXTS * CHUNK:,} characters"
)
_LEAST_COST = 5e-5
"""Bits per character; less is 0 to four decimals."""
_TOTAL = Text("total", style="bold")
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_OTHER_FORM = (
    "; the model knows {} in the Unicode form {}: bring the text into it, or train with "
    "--normalize {}"
)


def show_scores(scores: Iterable[Score], output: str, *, only_total: bool = False) -> None:
    """Write scores to stdout as they come.

    Args:
        scores: one per text.
        output: table, tsv or jsonl; a table waits for all, and ends with their total.
        only_total: write the total of all in place of them.
    """
    if only_total:
        scores = [Score.total(scores)]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for one in scores:
            records.write(with_probability(one.to_dict()))
        return
    several = list(scores)
    total = Score.total(several)
    unit = _per_unit(total, "char")
    table = new_table("text", *(column.format(unit) for column in _SCORE_COLUMNS))
    for one in several:
        label = _TOTAL if only_total else Text(visible_text(one.text, SHOWN_CHARS))
        _add_score(table, label, one)
    if len(several) > 1:
        _add_score(table, _TOTAL, total)
    if total.n_unknown:
        _add_score(table, Text("without unknown characters", style="dim"), total.known)
    print_table(table)


def _per_unit(score: Score, unit: str) -> str:
    """Return what bits per character are per: ends that are scored count as characters."""
    ends = "" if score.n_scored == score.n_chars else " or end"
    return f"per {unit}{ends}"


def _add_score(table: Table, label: Text, score: Score) -> None:
    values = (getattr(score, field) for field in _SCORE_FIELDS)
    table.add_row(label, *(f"{v:,}" if isinstance(v, int) else _number(v, 3) for v in values))


def _number(value: float, digits: int) -> str:
    """Return a number as it stands in a table: a dash for none, and no sign for zero."""
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:,.{digits}f}"


def show_pairs(groups: Sequence[Accuracy], output: str, *, only_total: bool = False) -> None:
    """Write the accuracy of each group of pairs, in a table the overall one too, which is last."""
    if only_total:
        groups = groups[-1:]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for one in groups[:-1] or groups:
            records.write(one.to_dict())
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
    print_table(table)


def show_comparison(found: Comparison, names: tuple[str, str], output: str) -> None:
    """Write how two models differ on the same texts."""
    if output != "table":
        first = {"model": names[0], "model_compared": names[1]}
        Records(as_json=output == "jsonl").write({**first, **found.to_dict()})
        return
    unit = UNITS[found.unit][0]
    per = f"per {unit}" if found.unit == "byte" else _per_unit(found.first, unit)
    table = new_table("model", f"bits\n{per}", "unknown")
    for name, value, score in (
        (names[0], found.first_bits, found.first),
        (names[1], found.second_bits, found.second),
    ):
        table.add_row(Text(visible_text(name)), f"{value:.4f}", f"{score.n_unknown:,}")
    print_table(table)
    difference = f"difference {found.difference:+.4f} bits {per}"
    verdict = f"{TOO_FEW.capitalize()}."
    if found.n_units:
        difference += (
            f", 95 % interval {found.low:+.4f} to {found.high:+.4f} "
            f"({found.n_units:,} texts or blocks resampled)"
        )
        verdict = "These texts cannot tell the two models apart."
    if found.is_certain:
        verdict = f"{visible_text(names[0] if found.difference > 0 else names[1])} is better."
    width = columns(sys.stdout)
    print(f"\n{wrapped(difference, width)}\n{wrapped(verdict, width)}")


def show_adaptation(
    pairs: Iterable[tuple[Score, Score]], output: str, *, only_total: bool = False
) -> None:
    """Write static and adapted scores of each text side by side, or only those of the total."""
    several = list(pairs)
    total = (Score.total(a for a, _ in several), Score.total(b for _, b in several))
    if only_total:
        several = [total]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for static, adapted in several:
            records.write(_adapted(static, adapted))
        return
    bits_per = f"bits {_per_unit(total[0], 'char')}"
    table = new_table("text", "chars", f"{bits_per}\nstatic", f"{bits_per}\nadapted", "saved")
    rows = [(Text(visible_text(a.text, SHOWN_CHARS)), a, b) for a, b in several]
    if len(several) > 1:
        rows.append((_TOTAL, *total))
    for label, static, adapted in rows:
        before, after = static.bits_per_char, adapted.bits_per_char
        figures = (_number(value, 4) for value in (before, after, before - after))
        table.add_row(label, f"{static.n_chars:,}", *figures)
    print_table(table)


def _adapted(static: Score, adapted: Score) -> dict[str, Any]:
    return {
        **with_probability(static.to_dict()),
        "logprob_adapted": adapted.logprob,
        "bits_per_char_adapted": adapted.bits_per_char,
        "bits_per_byte_adapted": adapted.bits_per_byte,
    }


def tell_about(
    total: Score,
    vocabulary: Vocabulary,
    *,
    n_texts: int,
    n_empty: int,
    eos: bool,
    places: Mapping[str, str],
    model: str = "",
) -> None:
    """Say on stderr what all texts come to, what was unknown (to which model), and what was empty.

    Args:
        total: of all texts.
        vocabulary: the model's.
        n_texts: how many the total is worth being told of; 0 where it is not.
        n_empty: how many of them were empty.
        eos: ends are scored.
        places: by unknown character, the text that its position is in, if there are several.
        model: the name of the model, if there are several.
    """
    if n_texts > 1:
        n_ends = total.n_scored - total.n_chars
        ends = f" and {n_ends:,} ends" if n_ends else ""
        mean = f", {total.bits_per_char:.4f} bits {_per_unit(total, 'character')}"
        say(
            f"total: {n_texts:,} texts, {total.n_chars:,} characters{ends}, "
            f"{total.logprob:,.3f} nats{mean if total.n_scored else ''}"
        )
    if total.unknown:
        n, fate = total.n_unknown, "scored as UNK"
        if total.n_skipped:
            n, fate = total.n_skipped, "left out"
        what = "unknown character" if n == 1 else "unknown characters"
        whose = f"{model}: " if model else ""
        hint = unknown_hint((one.character for one in total.unknown), vocabulary)
        named = _list_unknown(total.unknown, places)
        say(f"{whose}{n:,} {what} {fate}: {named}{hint}")
    if n_empty:
        which = "an empty text" if n_empty == 1 else f"{n_empty:,} empty texts"
        what = "only its end" if n_empty == 1 else "only their ends"
        say(f"{which}: {what if eos else 'nothing'} to score")


def _list_unknown(unknown: Sequence[Unknown], places: Mapping[str, str]) -> str:
    """Name the first few of some unknown characters, each with the text it is in."""
    if not places:
        return list_unknown(unknown)
    named = [f"{one} of {places[one.character]}" for one in unknown[:NAMED]]
    return ", ".join(named) + ", …" * (len(unknown) > NAMED)


def unknown_hint(characters: Iterable[str], vocabulary: Vocabulary) -> str:
    """Return why characters may be unknown and what to do about it, or nothing.

    They may be in another Unicode form than the model's alphabet, or an escape that was not read.
    """
    known = set(vocabulary.characters)
    for one in characters:
        if one == "\\":
            return "; with --escapes, \\n is a line end"
        if unicodedata.combining(one) or "\u1100" <= one <= "\u11ff":  # marks, and jamo
            if any(one in unicodedata.normalize("NFD", other) for other in known):
                return _OTHER_FORM.format(name_of(one), "NFC", "nfc")
        else:
            for form in _FORMS:
                if known.issuperset(unicodedata.normalize(form, one)):
                    kind = "nfkc" if "K" in form else "nfc"
                    return _OTHER_FORM.format(name_of(one), form, kind)
    return ""


def tell_rows(found: RowScore, warmup: int, unit: Unit) -> None:
    """Say on stderr that a score in rows is an approximation, and what it costs."""
    if found.rows < 2 or warmup > found.score.n_bytes:  # it is exact
        return
    cost, error = (
        bits(nats) / found.score.n_scored for nats in (found.cost_logprob, found.cost_error)
    )
    most = max(cost, 0.0) + 2 * error
    if most < _LEAST_COST:
        shown = "less than 0.0001"
    elif cost < 2 * error:  # it may as well be nothing
        shown = f"at most about {most:.4f}"
    else:
        shown = f"about {cost:.4f}"
    after = "without warm-up"
    if warmup:
        after = f"each after {warmup:,} uncounted {UNITS[unit][warmup > 1]}"
    say(
        f"read in {found.rows:,} pieces, {after}: an approximation that costs {shown} bits "
        f"{_per_unit(found.score, 'character')}, measured where the pieces meet"
    )
