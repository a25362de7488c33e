"""Two models on the same texts: the bits that one saves, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charrnn.engine.network import Engine, Floats
from charrnn.errors import ConfigError
from charrnn.scoring.batch import score_many
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import Vocabulary

RESAMPLES = 2000
LEAST_TEXTS = 6
"""With fewer, all may favour one model by chance with a probability above 5 %."""
BLOCK_CHARS = 1 << 22
"""Numbers drawn at a time."""
LARGEST_UNKNOWN_SHARE = 0.1
CODE_POINTS = 0x110000 - 0x800
"""Characters of Unicode, without the surrogates."""


def added_bits(saved: SavedModel, engine: Engine, texts: Sequence[str]) -> float:
    """Return the bits per event by which an engine's loss on some texts exceeds the model's own.

    Args:
        saved: the model, read in float32.
        engine: computes it with other weights, or in another precision.
        texts: read side by side.
    """
    bits = []
    for one in (Engine(saved.config, saved.weights), engine):
        scorer = Scorer(
            one,
            saved.vocabulary,
            eos=saved.text.documents != "none",
            normalize=saved.text.normalize,
        )
        total = Score.total(score_many(scorer, texts))
        bits.append(-total.logprob / math.log(2) / max(total.n_scored, 1))
    return bits[1] - bits[0]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of two models, the second minus the first: below zero, the second is better.

    Models with the same alphabet are compared in bits per character. With different alphabets the
    events differ, so it is bits per byte, and every unknown character is charged with UNK's
    probability times one over the number of characters that UNK can stand for: then both
    probabilities are of the very same text.
    """

    unit: str
    """`char` or `byte`."""
    first: Score
    second: Score
    first_bits: float
    """Bits per unit."""
    second_bits: float
    low: float
    """95 % interval of the difference, by the paired bootstrap; NaN with too few texts."""
    high: float
    n_units: int
    """Texts, or blocks of one text, that have something to score."""

    @property
    def is_resampled(self) -> bool:
        """There are enough of them for an interval."""
        return self.n_units >= LEAST_TEXTS

    @property
    def is_certain(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def difference(self) -> float:
        """Bits per unit, second minus first."""
        return self.second_bits - self.first_bits

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name; those of the second model are called `compared`."""
        unit = self.unit
        return {
            f"bits_per_{unit}": self.first_bits,
            f"bits_per_{unit}_compared": self.second_bits,
            "difference": self.difference,
            "difference_low": self.low,
            "difference_high": self.high,
            "n_resampled": self.n_units if self.is_resampled else None,
            "n_chars": self.first.n_chars,
            "n_bytes": self.first.n_bytes,
            "n_unknown": self.first.n_unknown,
            "n_unknown_compared": self.second.n_unknown,
        }


def compare(
    first: Sequence[Score],
    second: Sequence[Score],
    vocabularies: tuple[Vocabulary, Vocabulary],
    *,
    seed: int = 0,
) -> Comparison:
    """Compare two models by their scores of the same texts, or blocks of one text.

    Args:
        first: one score per text.
        second: the other model's.
        vocabularies: of the two models.
        seed: of the bootstrap.

    Raises:
        ConfigError: there is nothing to compare, the two did not score the same characters, or
            most of the difference would be about unknown characters.
    """
    assert len(first) == len(second)
    totals = (Score.total(first), Score.total(second))
    if not totals[0].n_scored:
        raise ConfigError("there is nothing to compare: the texts have no characters")
    if any(total.n_skipped for total in totals) and vocabularies[0] != vocabularies[1]:
        raise ConfigError(
            "must be unk here: the two models skip different characters, and so score different "
            "texts",
            field="on_unknown",
        )
    for total in totals:
        if total.n_unknown > LARGEST_UNKNOWN_SHARE * total.n_chars:
            raise ConfigError(
                f"{total.n_unknown:,} of {total.n_chars:,} characters are unknown to one of the "
                "models: a comparison would be about them, not about the text"
            )
    same = vocabularies[0] == vocabularies[1]
    bits = [
        np.array([_bits(one, None if same else vocabulary) for one in scores])
        for scores, vocabulary in zip((first, second), vocabularies, strict=True)
    ]
    sizes = np.array([one.n_scored if same else one.n_bytes for one in first], float)
    if not sizes.sum():
        raise ConfigError("there is nothing to compare per byte: the texts have no characters")
    units = [k for k, one in enumerate(first) if one.n_scored]
    low = high = math.nan
    if len(units) >= LEAST_TEXTS:
        low, high = bootstrap((bits[1] - bits[0])[units], sizes[units], seed=seed)
    return Comparison(
        unit="char" if same else "byte",
        first=totals[0],
        second=totals[1],
        first_bits=math.fsum(bits[0]) / math.fsum(sizes),
        second_bits=math.fsum(bits[1]) / math.fsum(sizes),
        low=low,
        high=high,
        n_units=len(units),
    )


def _bits(score: Score, vocabulary: Vocabulary | None) -> float:
    """Return the bits of a text; with a vocabulary, its unknown characters are spelled out."""
    spelling = 0.0
    if vocabulary is not None and score.n_unknown:
        spelling = score.n_unknown * math.log2(CODE_POINTS - len(vocabulary.characters))
    return spelling - score.log2prob


def bootstrap(
    differences: Floats,
    sizes: Floats,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of Σ differences / Σ sizes (Efron 1979).

    Whole texts are drawn with replacement, both models on the same ones: what makes a text hard
    is hard for both and drops out of the difference. Texts of no size may be among them.
    """
    n = len(sizes)
    rng = np.random.default_rng(seed)
    ratios: list[float] = []
    while len(ratios) < RESAMPLES:
        rows = min(max(1, BLOCK_CHARS // n), RESAMPLES - len(ratios))
        drawn = rng.integers(n, size=(rows, n))
        weights = sizes[drawn].sum(axis=1)
        sums = differences[drawn].sum(axis=1)
        ratios += (sums[weights > 0] / weights[weights > 0]).tolist()
    low, high = np.quantile(ratios, (0.025, 0.975)).tolist()
    return low, high
