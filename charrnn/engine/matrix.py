"""Weight matrices, and how a step multiplies by them.

Shapes: B streams, H hidden units, G·H stacked gate rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NARROWEST_BLOCK = 32
"""Units in a block below which one product with the zeros costs less than many without."""


class Matrix:
    """A matrix applied from the left, `x W^T`, to one vector or to many at once."""

    def __init__(self, rows: Array) -> None:
        """Keep `[out, in]` as it is for one vector; the other layout is made when asked for."""
        self.rows = np.ascontiguousarray(rows)

    @cached_property
    def columns(self) -> Array:
        """The transpose `[in, out]`, the layout that BLAS streams best for many vectors."""
        return np.ascontiguousarray(self.rows.T)

    def bind(self, x: Array, out: Array) -> Callable[[], Any]:
        """Return a call that multiplies what is in `x` now and puts the product into `out`."""
        if x.ndim == 1:
            return partial(self.rows.dot, x, out)
        if out.flags.c_contiguous:
            return partial(x.dot, self.columns, out)
        return partial(np.matmul, x, self.columns, out)


class BlockMatrix:
    """Square matrices one above the other `[G·H, H]`, each zero but for blocks on its diagonal.

    Merged models have such weights (`charrnn.storage.merge`). The zeros are neither kept nor
    multiplied.

    Args:
        rows: the whole.
        bounds: where blocks begin, and H.
    """

    def __init__(self, rows: Array, bounds: Sequence[int]) -> None:
        """Keep the blocks, those of the same units one above the other: fewer, larger products."""
        self._square = (len(rows) // rows.shape[1], rows.shape[1])
        gates = rows.reshape(*self._square, rows.shape[1])
        self._blocks = [
            (start, end, Matrix(gates[:, start:end, start:end].reshape(-1, end - start)))
            for start, end in pairwise(bounds)
        ]

    def bind(self, x: Array, out: Array) -> Callable[[], Any]:
        """Return a call that multiplies what is in `x` now and puts the product into `out`."""
        # sizes are spelled out: of an array without rows, -1 could stand for anything
        gates = out.reshape(*out.shape[:-1], *self._square)
        assert gates.base is not None, "a view of `out`"
        calls = []
        for start, end, block in self._blocks:
            product = np.empty((*out.shape[:-1], len(block.rows)), out.dtype)
            parts = product.reshape(*out.shape[:-1], self._square[0], end - start)
            multiply = block.bind(x[..., start:end], product)
            calls.append((multiply, parts, gates[..., start:end]))

        def multiply_all() -> None:
            for multiply, parts, place in calls:
                multiply()
                place[...] = parts

        return multiply_all


def recurrent_matrix(rows: Array) -> Matrix | BlockMatrix:
    """Return the recurrent weights `[G·H, H]` in the form that is fastest to multiply by."""
    bounds = block_bounds(rows)
    wide_enough = all(end - start >= NARROWEST_BLOCK for start, end in pairwise(bounds))
    return BlockMatrix(rows, bounds) if len(bounds) > 2 and wide_enough else Matrix(rows)


def block_bounds(rows: Array) -> list[int]:
    """Return where the blocks on the diagonals begin, and H; `[0, H]` for dense ones `[G·H, H]`."""
    hidden = rows.shape[1]
    if rows[0, -1] != 0:
        return [0, hidden]
    used = np.any(rows.reshape(-1, hidden, hidden) != 0, axis=0)
    units = np.arange(hidden)
    last = np.maximum.accumulate(np.where(used, units, -1).max(1))
    first = np.minimum.accumulate(np.where(used, units, hidden).min(1)[::-1])[::-1]
    inner = [b for b in range(1, hidden) if last[b - 1] < b <= first[b]]
    return [0, *inner, hidden]
