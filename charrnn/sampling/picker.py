"""From logits to the next character: the filters in their order, then one uniform number.

Shapes: B streams, V ids. Everything works on one stream `[V]` and on many `[B, V]`, with the same
operations in the same order, so that a sample does not depend on what it is drawn with.
"""

from __future__ import annotations

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

    def forbid(self, logits: Any, written: int, banned: Any = ()) -> None:
        """Remove, in place, what one stream must not write now; something always stays.

        Args:
            logits: `[V]` of one stream.
            written: characters written so far; EOS is forbidden before `min_length`.
            banned: further ids, dropped if they would leave nothing.
        """
        logits[UNK_ID] = -np.inf
        if written < self.config.min_length:
            logits[EOS_ID] = -np.inf
        if len(banned):
            kept = logits[banned]
            logits[banned] = -np.inf
            if logits.max() == -np.inf:
                logits[banned] = kept

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

    def pick(self, logits: Any, temperature: float, uniform: float) -> int:
        """Return the id for one stream; temperature 0 takes the most probable.

        Inverse transform sampling: the first id whose cumulative probability exceeds `uniform`.
        """
        if temperature == 0:
            return int(logits.argmax())
        if self._filtered:
            p = self.distribution(logits, temperature)
        else:  # the same in fewer calls: at 256 units they take as long as a third of the products
            p = logits.astype(np.float64)
            p -= p[p.argmax()]
            p /= temperature
        np.exp(p, p)
        p.cumsum(out=p)
        chosen = int(p.searchsorted(uniform * p[-1], "right"))
        return chosen if chosen < len(p) else int(logits.argmax())

    def pick_rows(
        self, logits: Any, temperature: NDArray[np.float64], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the ids `[B]` for many streams.

        Args:
            logits: `[B, V]` after `forbid`.
            temperature: `[B, 1]`, 0 for the most probable.
            uniform: `[B, 1]` numbers in [0, 1).
        """
        best = logits.argmax(axis=-1)
        p = self.distribution(logits, np.where(temperature == 0, 1.0, temperature))
        np.exp(p, p)
        p.cumsum(axis=-1, out=p)
        chosen = (p <= uniform * p[:, -1:]).sum(axis=-1)
        greedy = (temperature[:, 0] == 0) | (chosen == p.shape[-1])
        ids: NDArray[np.int64] = np.where(greedy, best, chosen)
        return ids

    def log_probability(self, logits: Any, temperature: float, chosen: int) -> float:
        """Return the log-probability, in nats, of an id under what is drawn from."""
        if temperature == 0:
            return 0.0
        p = self.distribution(logits, temperature)
        return float(p[chosen] - np.log(np.exp(p).sum()))
