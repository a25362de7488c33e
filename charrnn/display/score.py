"""Scores as tables for people, or as TSV and JSON lines for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.heatmap import SHOWN_CHARS, new_table
from charrnn.display.records import Records, with_probability
from charrnn.display.terminal import say, visible_text
from charrnn.scoring.compare import Comparison
from charrnn.scoring.pairs import Accuracy
from charrnn.scoring.rows import RowScore
from charrnn.scoring.score import Score, bits
from charrnn.vocab import Vocabulary, list_unknown

_SCORE_COLUMNS = ("chars", "unknown", "logprob\n(nats)", "bits\nper char", "perplexity\nper char")
_SCORE_FIELDS = ("n_chars", "n_unknown", "logprob", "bits_per_char", "perplexity_per_char")
_TOTAL = Text("total", style="bold")
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_OTHER_FORM = (
    "; the model knows them in the Unicode form {}: bring the text into it, or train with "
    "--normalize nfc"
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
    table = new_table("text", *_SCORE_COLUMNS)
    several = list(scores)
    for one in several:
        label = _TOTAL if only_total else Text(visible_text(one.text, SHOWN_CHARS))
        _add_score(table, label, one)
    total = Score.total(several)
    if len(several) > 1:
        _add_score(table, _TOTAL, total)
    if total.n_unknown:
        _add_score(table, Text("without unknown characters", style="dim"), total.known)
    Console().print(table)


def _add_score(table: Table, label: Text, score: Score) -> None:
    values = (getattr(score, field) for field in _SCORE_FIELDS)
    table.add_row(label, *(f"{v:,}" if isinstance(v, int) else f"{v:,.3f}" for v in values))


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
    table = new_table("text", "chars", "bits per char\nstatic", "bits per char\nadapted", "saved")
    rows = [(Text(visible_text(a.text, SHOWN_CHARS)), a, b) for a, b in several]
    if len(several) > 1:
        rows.append((_TOTAL, *total))
    for label, static, adapted in rows:
        before, after = static.bits_per_char, adapted.bits_per_char
        table.add_row(
            label, f"{static.n_chars:,}", f"{before:.4f}", f"{after:.4f}", f"{before - after:.4f}"
        )
    Console().print(table)


def _adapted(static: Score, adapted: Score) -> dict[str, Any]:
    return {
        **with_probability(static.to_dict()),
        "logprob_adapted": adapted.logprob,
        "bits_per_char_adapted": adapted.bits_per_char,
        "bits_per_byte_adapted": adapted.bits_per_byte,
    }


def tell_about(
    total: Score, vocabulary: Vocabulary, *, n_texts: int, n_empty: int, eos: bool, model: str = ""
) -> None:
    """Say on stderr what all texts come to, what was unknown (to which model), and what was empty.

    Args:
        total: of all texts.
        vocabulary: the model's.
        n_texts: how many the total is worth being told of; 0 where it is not.
        n_empty: how many of them were empty.
        eos: ends are scored.
        model: the name of the model, if there are several.
    """
    if n_texts > 1:
        say(
            f"total: {n_texts:,} texts, {total.n_chars:,} characters, {total.logprob:,.3f} nats, "
            f"{total.bits_per_char:.4f} bits per character"
        )
    if total.unknown:
        n, fate = total.n_unknown, "scored as UNK"
        if total.n_skipped:
            n, fate = total.n_skipped, "left out"
        what = "unknown character" if n == 1 else "unknown characters"
        whose = f"{model}: " if model else ""
        hint = unknown_hint((one.character for one in total.unknown), vocabulary)
        say(f"{whose}{n:,} {what} {fate}: {list_unknown(total.unknown)}{hint}")
    if n_empty:
        which = "an empty text" if n_empty == 1 else f"{n_empty:,} empty texts"
        what = "only its end" if n_empty == 1 else "only their ends"
        say(f"{which}: {what if eos else 'nothing'} to score")


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
                return _OTHER_FORM.format("NFC")
        else:
            for form in _FORMS:
                if known.issuperset(unicodedata.normalize(form, one)):
                    return _OTHER_FORM.format(form)
    return ""


def tell_rows(found: RowScore, rows: int, warmup: int) -> None:
    """Say on stderr that a score in rows is an approximation, and what it costs."""
    cost = bits(found.cost_logprob) / max(found.score.n_scored, 1)
    say(
        f"read in {rows:,} pieces, each after {warmup:,} uncounted characters: an approximation "
        f"that costs about {cost:.2g} bits per character, measured where the pieces meet"
    )
