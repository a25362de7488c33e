"""A bidirectional network in NumPy: the logits of each character of a text, given all the others.

Shapes: B texts, T characters, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.engine.cells import Array
from charrnn.engine.network import Engine
from charrnn.storage.merge import reverse_part
from charrnn.vocab import EOS_ID

STRETCH = 64
"""Characters that are read together from the right."""
AHEAD = 64
"""Characters behind them that are read first. More than a window of training would be longer than
anything the network has learned to read."""
ROWS = 256
"""Texts of which a stretch is read together."""


class BidirectionalEngine:
    """Two engines, of which one reads from left to right and one from right to left.

    The logits at a place are the sum of those that the first gives after the characters before the
    place, and those that the second gives after the characters behind it; see
    `charrnn.models.network.BidirectionalNetwork`.

    Args:
        config: the shape of the network.
        weights: its arrays, as in `ModelConfig.weight_shapes`.
        dtype: float32, or float64 where exactness is worth more than speed.
    """

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, NDArray[Any]], dtype: Any = np.float32
    ) -> None:
        """Arrange the weights of both."""
        one = replace(config, bidirectional=False)
        self.forwards = Engine(one, weights, dtype)
        self.backwards = Engine(one, reverse_part(weights), dtype)

    def from_right(self, ids_BT: NDArray[Any], n: int | None = None) -> Array:
        """Return what the text behind each place adds to its logits, `[B, n, V]`.

        The characters behind a place are those to the end of its row, then EOS.

        Args:
            ids_BT: of texts of one length.
            n: of the places from the first on; all by default.
        """
        B, T = ids_BT.shape
        inputs_BT = np.full((B, T), EOS_ID, np.int64)
        inputs_BT[:, 1:] = ids_BT[:, :0:-1]
        logits_BTV = self.backwards.run(inputs_BT, self.backwards.initial_state(B))
        return logits_BTV[:, ::-1][:, :n]

    def from_right_at(self, ids_BT: NDArray[Any], places: Sequence[int]) -> Iterator[Array]:
        """Yield the same at a few places of long texts, `[B, V]` at each, read in stretches.

        A stretch is read when its first place is asked for; others are not read at all.

        Args:
            ids_BT: of texts of one length.
            places: in ascending order.
        """
        for start, inside in groupby(places, lambda place: place - place % STRETCH):
            stretch_BT = ids_BT[:, start : start + STRETCH + AHEAD]
            columns = [place - start for place in inside]
            read = [
                self.from_right(stretch_BT[row : row + ROWS], STRETCH)[:, columns]
                for row in range(0, len(ids_BT), ROWS)
            ]
            yield from np.moveaxis(np.concatenate(read), 1, 0)

    def from_right_of_long(self, ids_BT: NDArray[Any], ahead_BA: NDArray[Any]) -> Array:
        """Return the same for a part of long texts, `[B, T, V]`, read in stretches of `STRETCH`.

        Of the text behind a stretch `AHEAD` characters are read, so that a place sees at least
        those, and the end of the text where it is nearer.

        Args:
            ids_BT: of the part.
            ahead_BA: what follows it, at least `AHEAD` characters unless the text ends before.
        """
        B, T = ids_BT.shape
        ids = np.concatenate([ids_BT, ahead_BA[:, :AHEAD]], axis=1).astype(np.int64)
        width = STRETCH + AHEAD
        n_whole = max(0, min(T // STRETCH, (ids.shape[1] - width) // STRETCH + 1))
        parts = [np.empty((B, 0, self.backwards.config.vocab_size), self.backwards.dtype)]
        if n_whole:
            rows = np.lib.stride_tricks.sliding_window_view(ids, width, 1)[:, ::STRETCH]
            rows = rows[:, :n_whole].reshape(B * n_whole, width)
            parts.append(self.from_right(rows, STRETCH).reshape(B, n_whole * STRETCH, -1))
        for start in range(n_whole * STRETCH, T, STRETCH):
            n = min(STRETCH, T - start)
            parts.append(self.from_right(ids[:, start : start + n + AHEAD], n))
        return np.concatenate(parts, axis=1)
