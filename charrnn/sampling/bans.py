"""What a text forbids to come next, taken out of the logits of many streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.sampling.writer import Writer
from charrnn.vocab import Vocabulary


class Bans:
    """Removes, stream by stream, impossible bytes and ids that would repeat an N-gram.

    A ban on repetition is dropped where it would leave nothing; a byte that breaks a character off
    is never written.
    """

    def __init__(self, vocabulary: Vocabulary, config: SamplingConfig) -> None:
        """Note what has to be looked at."""
        self._impossible = vocabulary.unit == "byte"
        self._repeated = config.no_repeat > 0
        self._size = len(vocabulary)
        self._lists: list[Sequence[int]] = []
        self._number: dict[int, int] = {}
        self._masks = np.empty((0, self._size), dtype=bool)

    def apply(self, logits: NDArray[Any], writers: Sequence[Writer]) -> None:
        """Set the forbidden logits `[B, V]` of each writer's row to -inf, in place."""
        if self._impossible:
            numbers = [self._mask_number(writer.impossible()) for writer in writers]
            np.copyto(logits, -np.inf, where=self._masks[numbers])
        if self._repeated:
            remove_repeated(logits, [writer.repeated() for writer in writers])

    def _mask_number(self, ids: Sequence[int]) -> int:
        """Return which row of `_masks` stands for a list of ids.

        A decoder has a handful of lists and returns them again and again, so each is known by
        its identity; it is kept here, so that no other list can take its place.
        """
        number = self._number.get(id(ids))
        if number is None:
            mask = np.zeros((1, self._size), dtype=bool)
            mask[0, list(ids)] = True
            number = self._number[id(ids)] = len(self._lists)
            self._lists.append(ids)
            self._masks = np.concatenate([self._masks, mask])
        return number


def remove_repeated(logits: NDArray[Any], repeated: Sequence[Sequence[int]]) -> None:
    """Set the given ids of each row of the logits `[B, V]` to -inf unless nothing would be left."""
    ids = np.array([k for row in repeated for k in row], dtype=np.intp)
    if not len(ids):
        return
    rows = np.repeat(np.arange(len(repeated)), [len(row) for row in repeated])
    kept = logits[rows, ids]
    logits[rows, ids] = -np.inf
    empty = logits.max(axis=-1)[rows] == -np.inf
    logits[rows[empty], ids[empty]] = kept[empty]
