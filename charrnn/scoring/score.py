"""What a score is: exact sums and counts, and the quotients that are taken from them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from charrnn.vocab import Unknown

FIELDS = (
    "text",
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
"""What a report gives of each score, in this order."""
REPR_CHARS = 60
COUNTS = ("n_chars", "n_bytes", "n_scored", "n_unknown", "n_unknown_bytes", "n_skipped")


def bits(nats: float) -> float:
    """Return nats in bits."""
    return nats / math.log(2)


class ExactSum:
    """A running sum of floats, exact to twice the digits of a float, in constant memory."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._high = 0.0
        self._low = 0.0

    def add(self, value: float) -> None:
        """Add one number (Knuth's two-sum: the rounding error of the sum is itself a float)."""
        high = self._high + value
        back = high - self._high
        self._low += (self._high - (high - back)) + (value - back)
        self._high = high

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._high + self._low


@dataclass(frozen=True, kw_only=True)
class Score:
    """The probability of one text, or of several taken together."""

    text: str
    n_chars: int
    """Characters of the text; those left out by `on_unknown="skip"` are not among them."""
    n_bytes: int
    """Their size in UTF-8."""
    n_scored: int
    """Events with a probability: the characters, and the end where it was asked for."""
    n_unknown: int
    """Characters charged with the probability of UNK."""
    logprob: float
    """Natural logarithm of the text's probability."""
    unknown_logprob: float = 0.0
    """The part of `logprob` that belongs to unknown characters."""
    n_unknown_bytes: int = 0
    """Size of the unknown characters in UTF-8."""
    n_skipped: int = 0
    """Unknown characters left out before scoring."""
    unknown: tuple[Unknown, ...] = ()
    """Each unknown character, charged or left out."""

    def __repr__(self) -> str:
        """Show the beginning of the text, the counts, and what is mostly asked for."""
        text = self.text if len(self.text) <= REPR_CHARS else self.text[:REPR_CHARS] + "…"
        unknown = f", n_unknown={self.n_unknown}" if self.n_unknown else ""
        return (
            f"Score(text={text!r}, n_chars={self.n_chars}, n_scored={self.n_scored}{unknown}, "
            f"logprob={self.logprob:.6g}, bits_per_char={self.bits_per_char:.6g})"
        )

    @property
    def log2prob(self) -> float:
        """Logarithm to base 2 of the probability."""
        return bits(self.logprob)

    @property
    def bits_per_char(self) -> float:
        """-log2 probability per scored event; NaN for an empty text."""
        return (0.0 - self.log2prob) / self.n_scored if self.n_scored else math.nan

    @property
    def bits_per_byte(self) -> float:
        """-log2 probability per UTF-8 byte; NaN for an empty text."""
        return (0.0 - self.log2prob) / self.n_bytes if self.n_bytes else math.nan

    @property
    def perplexity_per_char(self) -> float:
        """2 to the power of bits per character."""
        exponent = self.bits_per_char
        return math.inf if exponent >= 1024 else 2.0**exponent  # more than a float can hold

    @property
    def known(self) -> Score:
        """The same without the unknown characters, which were read but are not counted."""
        return replace(
            self,
            n_chars=self.n_chars - self.n_unknown,
            n_bytes=self.n_bytes - self.n_unknown_bytes,
            n_scored=self.n_scored - self.n_unknown,
            n_unknown=0,
            logprob=math.fsum((self.logprob, -self.unknown_logprob)),
            unknown_logprob=0.0,
            n_unknown_bytes=0,
        )

    @classmethod
    def total(cls, scores: Iterable[Score], *, text: str = "") -> Score:
        """Return the sums over scores, as one score; they may come from an endless generator.

        The `unknown` of the total are those of the parts: the first place of each character, and
        how often it occurs in all.
        """
        counts = dict.fromkeys(COUNTS, 0)
        logprob, unknown_logprob = ExactSum(), ExactSum()
        unknown: dict[str, Unknown] = {}
        for one in scores:
            for name in COUNTS:
                counts[name] += getattr(one, name)
            logprob.add(one.logprob)
            unknown_logprob.add(one.unknown_logprob)
            for item in one.unknown:
                first = unknown.get(item.character)
                times = item.times + (0 if first is None else first.times)
                unknown[item.character] = (first or item)._replace(times=times)
        return cls(
            text=text,
            logprob=logprob.value,
            unknown_logprob=unknown_logprob.value,
            unknown=tuple(unknown.values()),
            **counts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return `FIELDS`, what was left out, and what remains without unknown characters."""
        known = self.known
        return {
            **{name: getattr(self, name) for name in FIELDS},
            "n_skipped": self.n_skipped,
            "logprob_known": known.logprob,
            "bits_per_char_known": known.bits_per_char,
            "bits_per_byte_known": known.bits_per_byte,
        }
