"""From logits to the next character: what is forbidden, the filters, then one uniform number.

Shapes: B streams, V ids. The order is always: forbidden ids, temperature, top-k, top-p, min-p; what
is left is renormalised. One stream `[V]` and many `[B, V]` go through the same operations, so that
a sample does not depend on the batch. Every filter is pure, takes `[..., V]`, and returns the same
shape with removed ids at -inf; at least one id is left in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine.network import require_finite, target_logprobs
from charrnn.sampling.writer import Writer
from charrnn.vocab import EOS_ID, UNK_ID, Vocabulary

Logits = NDArray[Any]

LEAST = 1e-200
"""A lower temperature draws what this one does; dividing by it could overflow."""


def scale(logits: Logits, temperature: Any) -> NDArray[np.float64]:
    """Divide by the temperature, with the largest logit of each row moved to 0 first.

    Args:
        logits: `[..., V]`, at least one finite value in each row.
        temperature: at least `LEAST`; one number, or one per row as `[..., 1]`.

    Raises:
        ModelFileError: there is none, or an infinite one.
    """
    scaled = logits.astype(np.float64)
    top = scaled.max(axis=-1, keepdims=True)
    require_finite(top)
    scaled -= top
    scaled /= temperature
    return scaled


def top_k(logits: Logits, k: int) -> Logits:
    """Keep the `k` largest logits; of equal ones those with the lower ids."""
    if k >= logits.shape[-1]:
        return logits
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :k]
    kept = np.full(logits.shape, -np.inf, dtype=logits.dtype)
    np.put_along_axis(kept, ids, np.take_along_axis(logits, ids, axis=-1), axis=-1)
    return kept


def top_p(logits: Logits, p: float) -> Logits:
    """Keep the fewest most probable ids whose probabilities sum to at least `p`.

    Nucleus sampling, Holtzman et al. 2020.
    """
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = np.take_along_axis(softmax(logits), order, axis=-1)
    before = np.cumsum(probabilities, axis=-1) - probabilities
    dropped = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(dropped, order, before >= p, axis=-1)
    np.put_along_axis(dropped, order[..., :1], False, axis=-1)
    return np.where(dropped, -np.inf, logits)


def min_p(logits: Logits, p: float) -> Logits:
    """Keep the ids at least `p` times as probable as the most probable one (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    return np.where(logits < logits.max(axis=-1, keepdims=True) + np.log(p), -np.inf, logits)


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the probabilities of each row."""
    p = np.exp(scale(logits, 1.0))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def remove_repeated(logits: Logits, repeated: Sequence[Sequence[int]]) -> None:
    """Set the given ids of each row of the logits `[B, V]` to -inf unless nothing would be left."""
    ids = np.array([k for row in repeated for k in row], dtype=np.intp)
    if not len(ids):
        return
    rows = np.repeat(np.arange(len(repeated)), [len(row) for row in repeated])
    kept = logits[rows, ids]
    logits[rows, ids] = -np.inf
    empty = logits.max(axis=-1)[rows] == -np.inf
    logits[rows[empty], ids[empty]] = kept[empty]


class Picker:
    """Applies a sampling config to logits."""

    def __init__(self, vocabulary: Vocabulary, config: SamplingConfig) -> None:
        """Note what has to be looked at."""
        self.config = config
        self._filtered = config.top_k > 0 or config.top_p < 1 or config.min_p > 0
        self._in_bytes = vocabulary.unit == "byte"
        self._watchful = self._in_bytes or config.no_repeat > 0
        self._lists: list[Sequence[int]] = []
        self._number: dict[int, int] = {}
        self._masks = np.empty((0, len(vocabulary)), dtype=bool)

    def forbid(self, logits: Logits, writer: Writer) -> None:
        """Remove from the logits `[V]` of one stream, in place, what must not come next.

        That is UNK, EOS before the minimal length, bytes that UTF-8 forbids, and ids that would
        repeat an N-gram. The ban on repetition is dropped where it would leave nothing.
        """
        logits[UNK_ID] = -np.inf
        if writer.written < self.config.min_length:
            logits[EOS_ID] = -np.inf
        if self._watchful:
            self._forbid_written(logits[None], [writer])

    def forbid_rows(self, logits: Logits, writers: Sequence[Writer], written: Any) -> None:
        """Do the same for many streams: logits `[B, V]`, characters written `[B]`.

        `written` is looked at only if the config has a minimal length.
        """
        logits[:, UNK_ID] = -np.inf
        if self.config.min_length:
            logits[written < self.config.min_length, EOS_ID] = -np.inf
        if self._watchful:
            self._forbid_written(logits, writers)

    def _forbid_written(self, logits: Logits, writers: Sequence[Writer]) -> None:
        if self._in_bytes:
            numbers = [self._mask_number(writer.impossible()) for writer in writers]
            np.copyto(logits, -np.inf, where=self._masks[numbers])
        if self.config.no_repeat:
            remove_repeated(logits, [writer.repeated() for writer in writers])

    def _mask_number(self, ids: Sequence[int]) -> int:
        """Return which row of `_masks` stands for a list of ids.

        A decoder returns the same few lists again and again, so each is known by its identity; it
        is kept here, so that no other list can take its place.
        """
        number = self._number.get(id(ids))
        if number is None:
            mask = np.zeros((1, self._masks.shape[1]), dtype=bool)
            mask[0, list(ids)] = True
            number = self._number[id(ids)] = len(self._lists)
            self._lists.append(ids)
            self._masks = np.concatenate([self._masks, mask])
        return number

    def distribution(self, logits: Logits, temperature: Any) -> NDArray[np.float64]:
        """Return the unnormalised log-probabilities that are drawn from.

        Args:
            logits: `[V]` after `forbid`, or `[B, V]` after `forbid_rows`.
            temperature: at least `LEAST`; a number, or `[B, 1]`.
        """
        scaled = scale(logits, temperature)
        if self.config.top_k:
            scaled = top_k(scaled, self.config.top_k)
        if self.config.top_p < 1:
            scaled = top_p(scaled, self.config.top_p)
        if self.config.min_p:
            scaled = min_p(scaled, self.config.min_p)
        return scaled

    def bind(self, temperature: float) -> Callable[[Any, float], int]:
        """Return `pick(logits, uniform)`, the id for one stream; temperature 0 takes the best.

        Inverse transform sampling: the first id whose cumulative probability exceeds `uniform`.
        It raises a ModelFileError for logits that are not finite.
        """

        def best(logits: Any, _: float) -> int:
            chosen = int(logits.argmax())  # of one that is no number, if there is one
            if not isfinite(logits.item(chosen)):
                require_finite(logits[chosen])
            return chosen

        if temperature == 0:
            return best
        filtered = self._filtered
        # NumPy takes an array without axes in half the time that it takes a number
        divisor, top = np.array(max(temperature, LEAST)), np.empty(())
        subtract, divide, exp, accumulate = np.subtract, np.divide, np.exp, np.add.accumulate

        def pick(logits: Any, uniform: float) -> int:
            if filtered:
                p = self.distribution(logits, divisor)
            else:  # the same in fewer calls: at 256 units they take as long as half the products
                p = logits.astype(np.float64)
                top[()] = largest = p.item(p.argmax())
                if not isfinite(largest):
                    require_finite(largest)
                subtract(p, top, p)
                divide(p, divisor, p)
            exp(p, p)
            p = accumulate(p)
            chosen = int(p.searchsorted(uniform * p.item(-1), "right"))
            return chosen if chosen < len(p) else int(logits.argmax())

        return pick

    def pick_rows(
        self, logits: Logits, temperature: NDArray[np.float64], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the ids `[B]` for many streams.

        Args:
            logits: `[B, V]` after `forbid_rows`.
            temperature: `[B, 1]`, 0 for the most probable.
            uniform: `[B, 1]` numbers in [0, 1).
        """
        p = self.distribution(logits, np.maximum(temperature, LEAST))
        p = np.add.accumulate(np.exp(p, p), axis=-1)
        ids: NDArray[np.int64] = (p > uniform * p[:, -1:]).argmax(axis=-1)
        ids[temperature[:, 0] == 0] = UNK_ID
        if not ids.all():  # nothing above the number leaves 0 as well, which is UNK, never drawn
            best = ids == UNK_ID
            ids[best] = logits[best].argmax(axis=-1)
        return ids

    def log_probability(
        self, logits: Logits, temperature: NDArray[np.float64], chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the log-probabilities `[B]`, in nats, of ids `[B]` under what is drawn from.

        Args:
            logits: `[B, V]` after `forbid_rows`.
            temperature: `[B, 1]`.
            chosen: `[B]`.
        """
        scaled = self.distribution(logits, np.maximum(temperature, LEAST))
        logp = target_logprobs(scaled, chosen)
        return np.where(temperature[:, 0] == 0, 0.0, logp)
