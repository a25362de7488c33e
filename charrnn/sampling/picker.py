"""From logits to the next character: the filters in their order, then one uniform number.

Shapes: B streams, V ids. Everything works on one stream `[V]` and on many `[B, V]`, with the same
operations in the same order, so that a sample does not depend on what it is drawn with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.sampling import filters
from charrnn.vocab import EOS_ID, UNK_ID


class Picker:
    """Applies a sampling config to logits."""

    def __init__(self, config: SamplingConfig) -> None:
        """Keep the config."""
        self.config = config
        self._filtered = config.top_k > 0 or config.top_p < 1 or config.min_p > 0

    def forbid(self, logits: Any, written: int) -> None:
        """Remove UNK from the logits `[V]` of one stream, and EOS before the minimal length.

        Args:
            logits: changed in place.
            written: characters written so far.
        """
        logits[UNK_ID] = -np.inf
        if written < self.config.min_length:
            logits[EOS_ID] = -np.inf

    def forbid_rows(self, logits: Any, written: Any) -> None:
        """Do the same for many streams: logits `[B, V]`, characters written `[B]`."""
        logits[:, UNK_ID] = -np.inf
        if self.config.min_length:
            logits[written < self.config.min_length, EOS_ID] = -np.inf

    def distribution(self, logits: Any, temperature: Any) -> NDArray[np.float64]:
        """Return the unnormalised log-probabilities that are drawn from, forbidden ids removed.

        Args:
            logits: `[V]` or `[B, V]` after `forbid`.
            temperature: positive; a number, or `[B, 1]`.
        """
        scaled = filters.scale(logits, temperature)
        if self.config.top_k:
            scaled = filters.top_k(scaled, self.config.top_k)
        if self.config.top_p < 1:
            scaled = filters.top_p(scaled, self.config.top_p)
        if self.config.min_p:
            scaled = filters.min_p(scaled, self.config.min_p)
        return scaled

    def bind(self, temperature: float) -> Callable[[Any, float], int]:
        """Return `pick(logits, uniform)`, the id for one stream; temperature 0 takes the best.

        Inverse transform sampling: the first id whose cumulative probability exceeds `uniform`.
        """
        if temperature == 0:
            return lambda logits, _: int(logits.argmax())
        filtered = self._filtered
        # NumPy takes an array without axes in half the time that it takes a number
        divisor, top = np.array(temperature), np.empty(())
        subtract, divide, exp, accumulate = np.subtract, np.divide, np.exp, np.add.accumulate

        def pick(logits: Any, uniform: float) -> int:
            if filtered:
                p = self.distribution(logits, temperature)
            else:  # the same in fewer calls: at 256 units they take as long as half the products
                p = logits.astype(np.float64)
                top[()] = p[p.argmax()]
                subtract(p, top, p)
                divide(p, divisor, p)
            exp(p, p)
            p = accumulate(p)
            chosen = int(p.searchsorted(uniform * p.item(-1), "right"))
            return chosen if chosen < len(p) else int(logits.argmax())

        return pick

    def pick_rows(
        self, logits: Any, temperature: NDArray[np.float64], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the ids `[B]` for many streams.

        Args:
            logits: `[B, V]` after `forbid_rows`.
            temperature: `[B, 1]`, 0 for the most probable.
            uniform: `[B, 1]` numbers in [0, 1).
        """
        divisor = positive(temperature)
        p = self.distribution(logits, divisor)
        p = np.add.accumulate(np.exp(p, p), axis=-1)
        ids: NDArray[np.int64] = (p > uniform * p[:, -1:]).argmax(axis=-1)
        if divisor is not temperature:
            ids[temperature[:, 0] == 0] = UNK_ID
        if not ids.all():  # nothing above the number leaves 0 as well, which is UNK, never drawn
            best = ids == UNK_ID
            ids[best] = logits[best].argmax(axis=-1)
        return ids

    def log_probability(self, logits: Any, temperature: Any, chosen: Any) -> NDArray[np.float64]:
        """Return the log-probabilities `[B]`, in nats, of ids `[B]` under what is drawn from.

        Args:
            logits: `[B, V]` after `forbid_rows`.
            temperature: `[B, 1]`.
            chosen: `[B]`.
        """
        logp = log_probability(self.distribution(logits, positive(temperature)), chosen)
        return np.where(temperature[:, 0] == 0, 0.0, logp)


def positive(temperature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return temperatures `[B, 1]` to divide by: where 0 takes the best, any will do."""
    return temperature if temperature.all() else np.where(temperature == 0, 1.0, temperature)


def log_probability(logits: Any, chosen: Any) -> NDArray[np.float64]:
    """Return the log-probabilities `[B]`, in nats, of ids `[B]` under logits `[B, V]`."""
    shifted = filters.scale(logits, 1.0)
    own = np.take_along_axis(shifted, np.asarray(chosen)[:, None], axis=-1)
    logp: NDArray[np.float64] = own - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logp[:, 0]
