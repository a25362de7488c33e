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
from charrnn.display.heatmap import SHOWN_CHARS
from charrnn.display.records import Records, with_probability
from charrnn.display.table import new_table, show_table
from charrnn.display.terminal import columns, say, visible_text, wrapped
from charrnn.scoring.compare import LEAST_TEXTS, Comparison
from charrnn.scoring.pairs import Accuracy
from charrnn.scoring.rows import RowScore
from charrnn.scoring.score import Score, bits
from charrnn.scoring.scorer import CHUNK
from charrnn.vocab import Vocabulary, list_unknown, name_of

_SCORE_COLUMNS = ("chars", "unknown", "logprob\n(nats)", "bits\n{}", "perplexity\n{}")
_SCORE_FIELDS = ("n_chars", "n_unknown", "logprob", "bits_per_char", "perplexity_per_char")
_GIVES_WAY = ("perplexity", "unknown", "chars", "logprob")
_LEAST_COST = 5e-5
"""Bits per character; less is 0 to four decimals."""
COPIED = 0.5
"""Share of a text from which on it is told that it stands in the corpus."""
_TOTAL = Text("total", style="bold")
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_OTHER_FORM = (
    "; the model knows {} in the Unicode form {}: bring the text into it, or train with "
    "--normalize {}"
)


def show_scores(
    scores: Iterable[tuple[int, Score]], output: str, signature: str, *, only_total: bool = False
) -> None:
    """Write scores to stdout as they come.

    Args:
        scores: one per text, with the number of the text.
        output: table, tsv or jsonl; a table waits for all, and ends with their total.
        signature: what they were computed with.
        only_total: write the total of all in place of them.
    """
    numbered: Iterable[tuple[int | None, Score]] = scores
    if only_total:
        numbered = [(None, Score.total(one for _, one in scores))]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for number, one in numbered:
            record = {"number": number, **with_probability(one.to_dict()), "signature": signature}
            records.write(record)
        return
    several = [one for _, one in numbered]
    total = Score.total(several)
    unit = _per_unit(total, "char").replace(" or", "\nor")
    table = new_table("text", *(column.format(unit) for column in _SCORE_COLUMNS))
    for one in several:
        label = _TOTAL if only_total else Text(visible_text(one.text, SHOWN_CHARS))
        _add_score(table, label, one)
    if len(several) > 1:
        _add_score(table, _TOTAL, total)
    if total.n_unknown:
        _add_score(table, Text("without unknown characters", style="dim"), total.known)
    show_table(table, _GIVES_WAY)


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
    show_table(table, ("ties", "right", "n"))


def tell_pairs(total: Accuracy) -> None:
    """Say on stderr how many of all pairs are right."""
    low, high = total.interval
    say(
        f"total: {total.n_correct:,} of {total.n:,} pairs, {total.accuracy:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )


def show_comparison(
    found: Comparison, names: tuple[str, str], output: str, *, in_blocks: bool
) -> None:
    """Write how two models differ on the same texts; beside records, stderr says it in words.

    Args:
        found: the difference.
        names: of the models.
        output: table, tsv or jsonl.
        in_blocks: there is one text, which was resampled in blocks.
    """
    if output != "table":
        first = {"model": names[0], "model_compared": names[1]}
        Records(as_json=output == "jsonl").write({**first, **found.to_dict()})
        sys.stdout.flush()
        say("; ".join(_in_words(found, names, in_blocks)))
        return
    per = _per(found)
    table = new_table("model", f"bits\n{per}", "unknown")
    for name, value, score in (
        (names[0], found.first_bits, found.first),
        (names[1], found.second_bits, found.second),
    ):
        table.add_row(Text(visible_text(name)), f"{value:.4f}", f"{score.n_unknown:,}")
    show_table(table)
    print()
    for line in _in_words(found, names, in_blocks):
        print(wrapped(visible_text(line), columns(sys.stdout)))


def _per(found: Comparison) -> str:
    """Return what the bits of a comparison are per."""
    unit = UNITS[found.unit][0]
    return f"per {unit}" if found.unit == "byte" else _per_unit(found.first, unit)


def _in_words(found: Comparison, names: tuple[str, str], in_blocks: bool) -> list[str]:
    """Return the difference, what its sign means, how sure it is, and why it is per byte."""
    better, worse = names if found.difference > 0 else names[::-1]
    difference = f"{better} needs {abs(found.difference):.4f} bits {_per(found)} less than {worse}"
    if round(found.difference, 4) == 0:
        difference = f"both models need the same number of bits {_per(found)}, to four decimals"
    parts = [difference]
    if found.is_resampled:
        units = f"blocks of {CHUNK:,} characters" if in_blocks else "texts"
        parts.append(
            f"the 95 % interval of {names[1]} minus {names[0]} is {found.low:+.4f} to "
            f"{found.high:+.4f} ({found.n_units:,} {units} resampled)"
        )
        certain = f"{better} is better"
        parts.append(certain if found.is_certain else "these texts cannot tell the two apart")
    elif in_blocks:
        parts.append(
            f"the text is too short for a 95 % interval: it takes {LEAST_TEXTS * CHUNK:,} "
            "characters, or several texts"
        )
    else:
        parts.append(
            f"{found.n_units} texts are too few for a 95 % interval: it takes {LEAST_TEXTS} that "
            "have something to score"
        )
    if found.unit == "byte":
        parts.append(
            "bits are per byte because the alphabets differ, and an unknown character is charged "
            "for spelling it out"
        )
    return parts


def show_adaptation(
    pairs: Iterable[tuple[Score, Score]], output: str, signature: str, *, only_total: bool = False
) -> None:
    """Write static and adapted scores of each text side by side, or only those of the total.

    Args:
        pairs: the scores.
        output: table, tsv or jsonl.
        signature: what they were computed with.
        only_total: write the total alone.
    """
    several = list(pairs)
    total = (Score.total(a for a, _ in several), Score.total(b for _, b in several))
    if only_total:
        several = [total]
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for number, (static, adapted) in enumerate(several, 1):
            record = _adapted(static, adapted, signature)
            records.write({"number": None if only_total else number, **record})
        return
    bits_per = f"bits\n{_per_unit(total[0], 'char')}".replace(" or", "\nor")
    table = new_table("text", "chars", f"static\n{bits_per}", f"adapted\n{bits_per}", "saved")
    rows = [(Text(visible_text(a.text, SHOWN_CHARS)), a, b) for a, b in several]
    if len(several) > 1:
        rows.append((_TOTAL, *total))
    for label, static, adapted in rows:
        before, after = static.bits_per_char, adapted.bits_per_char
        figures = (_number(value, 4) for value in (before, after, before - after))
        table.add_row(label, f"{static.n_chars:,}", *figures)
    show_table(table, ("chars", "saved"))


def _adapted(static: Score, adapted: Score, signature: str) -> dict[str, Any]:
    return {
        **with_probability(static.to_dict()),
        "signature": signature,
        "logprob_adapted": adapted.logprob,
        "bits_per_char_adapted": adapted.bits_per_char,
        "bits_per_byte_adapted": adapted.bits_per_byte,
    }


def tell_corpus(n_counted: int, n_left_out: int, n_copied: int, n_scored: int) -> None:
    """Say on stderr what part of a corpus was not counted, and that it has the text that is scored.

    Args:
        n_counted: characters counted.
        n_left_out: characters before them.
        n_copied: characters scored that stand in the corpus, after the same characters.
        n_scored: characters scored.
    """
    if n_left_out:
        say(
            f"--from: the last {n_counted:,} characters were counted, not the {n_left_out:,} before"
        )
    if n_copied > COPIED * n_scored:
        say(
            f"{n_copied / n_scored:.0%} of what is scored stands word for word in the text of "
            "--from: the adapted figure is not that of an unseen text"
        )


def tell_about(
    total: Score,
    vocabulary: Vocabulary,
    *,
    n_texts: int,
    n_empty: int,
    first_empty: str,
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
        first_empty: the name of the first of those.
        eos: ends are scored.
        places: by unknown character, the text that its position is in, if there are several.
        model: the name of the model, if there are several.
    """
    n_texts -= 0 if eos else n_empty
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
        named = list_unknown(total.unknown, places)
        say(f"{whose}{n:,} {what} {fate}: {named}{hint}")
    if n_empty:
        which, whose = f"{first_empty} is empty", "its end"
        if n_empty > 1:
            which, whose = f"{n_empty:,} texts are empty, first {first_empty}", "their ends"
        say(f"{which}: {f'only {whose}' if eos else 'nothing'} to score")


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
