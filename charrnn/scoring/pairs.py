"""Minimal pairs: how often the better text is the more probable one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from charrnn.errors import CorpusError
from charrnn.scoring.score import Score

GROUP_FIELDS = ("group", "UID", "uid", "linguistics_term", "field")
"""Names under which a JSON line may have its group; the first one present counts."""

Z_95 = 1.959963984540054
"""Normal quantile of a 95 % interval."""


class Pair(NamedTuple):
    """Two texts of which the first should be the more probable."""

    good: str
    bad: str
    group: str
    line: int
    """Of the file it is from, the first being 1."""


class Accuracy(NamedTuple):
    """How many pairs of a group came out right."""

    group: str
    n: int
    n_correct: int
    n_ties: int
    """Pairs of equal probability; they count as wrong."""

    @property
    def accuracy(self) -> float:
        """Share of right pairs."""
        return self.n_correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, Wilson 1927."""
        return wilson(self.n_correct, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record."""
        low, high = self.interval
        return {
            **self._asdict(),
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
        }


def wilson(n_correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, by Wilson's score method (1927)."""
    share, z2 = n_correct / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def read_pairs(lines: Iterable[str], name: str = "the file") -> list[Pair]:
    """Return the pairs of a file: TSV `good bad [group]`, or JSON lines.

    A JSON line has `sentence_good`, `sentence_bad`, and its group under one of `GROUP_FIELDS`.
    A first TSV line `good bad` is a heading.

    Raises:
        CorpusError: a line is malformed; it is named by number. Or there is no pair.
    """
    pairs = list(_parse(lines, name))
    if not pairs:
        raise CorpusError(f"{name} has no pairs: put one on each line, good, tab, bad")
    return pairs


def _parse(lines: Iterable[str], name: str) -> Iterator[Pair]:
    is_json = False
    for number, line in enumerate(lines, 1):
        if number == 1:
            is_json = line.lstrip().startswith("{")
            cells = line.lower().split("\t")
            if cells[:2] in (["good", "bad"], ["sentence_good", "sentence_bad"]):
                continue
        read = _from_json if is_json else _from_tsv
        yield Pair(*read(line, f"line {number} of {name}"), number)


def _from_tsv(line: str, where: str) -> tuple[str, str, str]:
    cells = line.split("\t")
    if len(cells) not in (2, 3):
        raise CorpusError(
            f"{where} has {len(cells)} column{'s' * (len(cells) != 1)}: a pair is good, tab, bad, "
            "and optionally tab, group"
        )
    return cells[0], cells[1], cells[2] if len(cells) == 3 else ""


def _from_json(line: str, where: str) -> tuple[str, str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise CorpusError(f"{where} is not JSON") from None
    if not isinstance(record, Mapping):
        raise CorpusError(f"{where} is not a JSON object")
    for field in ("sentence_good", "sentence_bad"):
        if not isinstance(record.get(field), str):
            raise CorpusError(f"{where} has no text called {field}")
    group = next((str(record[field]) for field in GROUP_FIELDS if field in record), "")
    return record["sentence_good"], record["sentence_bad"], group


def judge(
    pairs: Sequence[Pair], scores: Mapping[str, Score], *, per_char: bool = False
) -> list[Accuracy]:
    """Return the accuracy of each group, by name, and of all pairs last.

    Args:
        pairs: what to judge.
        scores: of every text of the pairs. A text has one score, so that equal texts tie.
        per_char: compare probabilities per scored character instead of in all.
    """
    tallies: dict[str, list[int]] = {}
    for pair in pairs:
        good, bad = (_merit(scores[text], per_char) for text in (pair.good, pair.bad))
        tally = tallies.setdefault(pair.group, [0, 0, 0])
        for k, value in enumerate((1, good > bad, good == bad)):
            tally[k] += value
    total = [sum(column) for column in zip(*tallies.values(), strict=True)]
    groups = [Accuracy(group, *tally) for group, tally in sorted(tallies.items())]
    return [*(groups if set(tallies) != {""} else []), Accuracy("", *total)]


def _merit(score: Score, per_char: bool) -> float:
    return score.logprob / max(score.n_scored, 1) if per_char else score.logprob


def rank(scores: Iterable[tuple[int, Score]], *, per_char: bool = False) -> list[tuple[int, Score]]:
    """Return numbered scores with the most probable first; equal ones stay in their order.

    A text of which nothing is scored comes last.
    """
    return sorted(scores, key=lambda one: (not one[1].n_scored, -_merit(one[1], per_char)))
