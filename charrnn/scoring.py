"""How probable a text is under a model.

Log-probabilities are natural (nats) and float64; names say the base where it is another. Sums and
counts travel; a quotient is taken once, when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.engine import Engine
from charrnn.vocab import EOS_ID, UNK_ID, Unknown, Vocabulary

CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Score:
    """The probability of one text, or of several taken together."""

    text: str
    n_chars: int
    """Characters of the text."""
    n_bytes: int
    """Its size in UTF-8."""
    n_scored: int
    """Events with a probability: the characters, and the end where it was asked for."""
    n_unknown: int
    """Characters charged with the probability of UNK."""
    logprob: float
    """Natural logarithm of the text's probability."""
    unknown: tuple[Unknown, ...] = ()
    """First occurrence of each unknown character."""

    @property
    def log2prob(self) -> float:
        """Logarithm to base 2 of the probability."""
        return self.logprob / math.log(2)

    @property
    def bits_per_char(self) -> float:
        """-log2 probability per scored event; NaN for an empty text."""
        return -self.log2prob / self.n_scored if self.n_scored else math.nan

    @property
    def bits_per_byte(self) -> float:
        """-log2 probability per UTF-8 byte; NaN for an empty text."""
        return -self.log2prob / self.n_bytes if self.n_bytes else math.nan

    @property
    def perplexity_per_char(self) -> float:
        """2 to the power of bits per character."""
        bits = self.bits_per_char
        return math.inf if bits >= 1024 else 2.0**bits  # what a float cannot hold is infinite

    @classmethod
    def total(cls, scores: Iterable[Score]) -> Score:
        """Return the sums over several scores, as one score without a text."""
        scores = list(scores)
        return cls(
            text="",
            n_chars=sum(s.n_chars for s in scores),
            n_bytes=sum(s.n_bytes for s in scores),
            n_scored=sum(s.n_scored for s in scores),
            n_unknown=sum(s.n_unknown for s in scores),
            logprob=math.fsum(s.logprob for s in scores),
        )


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-probabilities in float64 over the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def char_logprobs(
    engine: Engine, vocabulary: Vocabulary, text: str, *, eos: bool = False
) -> NDArray[np.float64]:
    """Return the log-probability of each character given those before it, in nats.

    The first character is predicted from EOS and a zero state; unknown characters are charged
    UNK's probability; with `eos`, the end of the text is one more event.

    Returns:
        `[len(text)]`, or `[len(text) + 1]` with `eos`.
    """
    end = [EOS_ID] if eos else []
    targets = np.concatenate([vocabulary.encode(text), end]).astype(np.int64)
    inputs = np.concatenate([[EOS_ID], targets[:-1]])
    result = np.empty(len(targets))
    state = engine.initial_state()
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        logprobs_TV = log_softmax(engine.run(inputs[part], state))
        result[part] = np.take_along_axis(logprobs_TV, targets[part, None], axis=1)[:, 0]
    return result


def score(engine: Engine, vocabulary: Vocabulary, text: str, *, eos: bool = False) -> Score:
    """Return the probability of a text; see `char_logprobs` for what is counted."""
    logprobs = char_logprobs(engine, vocabulary, text, eos=eos)
    return Score(
        text=text,
        n_chars=len(text),
        n_bytes=len(text.encode("utf-8", "surrogatepass")),
        n_scored=len(logprobs),
        n_unknown=int(np.count_nonzero(vocabulary.encode(text) == UNK_ID)),
        logprob=math.fsum(logprobs),
        unknown=tuple(vocabulary.unknown(text)),
    )
