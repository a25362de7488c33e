"""Matrix products in 8-bit integers: a quarter of the bytes, and sums that are exact.

Shapes: M ensemble members, B streams, H hidden units, I inputs.

One step of one stream is bound by the bytes of its weights. A row of weights is kept as integers
from -127 to 127 and a scale; hidden states, which lie in [-1, 1], are rounded to multiples of
1/127. A product of integers has no rounding, so it does not depend on who computes it, in what
order, or for how many streams at once: the optional package numkong, or NumPy, many times as
slowly. Everything else stays in float32.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import cache, cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import EnginePrecision, ModelConfig, SamplingPrecision
from charrnn.engine.cells import Array, Layer, Matrix, expanded
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

numkong: Any
try:
    numkong = import_module("numkong")
except ImportError:  # an optional extra
    numkong = None

SMALLEST = 1 << 17
"""Weights of a recurrent matrix from which integers save more time than they cost."""
LARGE_OUTPUT = 1 << 18
"""The same for the output matrix, which is in integers from there on: rounding it costs more bits
than rounding the others, and with a small alphabet there is nothing to gain."""
MOST_BITS = 0.002
"""Per character or byte: what a choice nobody asked for may cost."""
SPLIT_WORK = 1 << 24
"""Multiplications for which it is worth waking another thread: some 70 µs."""
INT8_COST = "int8_cost_bits"
"""In a model's record of its training: what int8 adds to the loss on its validation text."""
LEVELS = 127
"""Of an integer on either side of zero; -128 is left out."""
EXACT_COLUMNS = 1040
"""Products of LEVELS by LEVELS whose sum float32 still holds exactly: 1,040 · 127² < 2^24."""


def quantize_rows(array: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers from -127 to 127 `[.., R, C]` and the scales of their rows `[.., R, 1]`.

    Integer times scale is the nearest such multiple: it differs from the number by at most half a
    scale, which is 1/254 of the largest number in the row.
    """
    largest = np.abs(array).max(axis=-1, keepdims=True, initial=0)
    scales = np.where(largest > 0, largest / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    return np.rint(array / scales).astype(np.int8), scales


def is_possible(config: ModelConfig) -> bool:
    """Return whether the hidden states lie in [-1, 1], as all do but those of a relu network."""
    return config.nonlinearity != "relu"


def is_worthwhile(config: ModelConfig) -> bool:
    """Return whether a network samples, and is large enough to gain by integers."""
    is_large = config.gates * config.hidden_size**2 >= SMALLEST
    return is_large and is_possible(config) and not config.bidirectional


def may_be_int8(config: ModelConfig, cost: float | None) -> bool:
    """Return whether `auto` means int8 where numkong is installed; see `choose_precision`."""
    return cost is not None and cost <= MOST_BITS and is_worthwhile(config)


def choose_precision(
    config: ModelConfig, wanted: SamplingPrecision, cost: float | None
) -> EnginePrecision:
    """Return the precision to sample in.

    Args:
        config: the shape of the network.
        wanted: what was asked for.
        cost: bits that int8 adds to each character or byte; None if it has not been measured.

    Raises:
        ConfigError: int8 was asked for, and the network is one of relu.
    """
    if wanted == "int8" and not is_possible(config):
        raise ConfigError(
            "cannot be int8 for a relu network, whose states have no bound: use float32",
            field="precision",
        )
    if wanted != "auto":
        return wanted
    return "int8" if numkong is not None and may_be_int8(config, cost) else "float32"


class QuantizedMatrix(Matrix):
    """One matrix of integers for each member, applied as x W^T to states in [-1, 1].

    Args:
        integers: `[M, out, in]`.
        scales: of its rows, `[M, out, 1]`.
    """

    def __init__(self, integers: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Keep the integers; what multiplies by them is made when it is first bound."""
        self.rows = integers
        self._scales = scales
        # what the sums of integer weights times integer states are counted in
        self._units = scales[..., 0] / np.float32(LEVELS)

    @cached_property
    def _factors(self) -> list[Any]:
        kind = BlockFactor if numkong is None else PackedFactor
        return [kind(one) for one in self.rows]

    def bind(self, x: Array, out: Array) -> Callable[[], Any]:
        """Return a call that multiplies what is in `x` now and puts the product into `out`.

        Args:
            x: `[M, in]` or `[M, B, in]`, numbers in [-1, 1].
            out: `[M, out]` or `[M, B, out]`, contiguous.
        """
        if not out.size:
            return lambda: None
        factors, (members, width, _) = self._factors, self.rows.shape
        lines = out.size // width // members
        scaled, rounded = np.empty(x.shape, np.float32), np.empty(x.shape, factors[0].dtype)
        whole = factors[0].empty((members, lines, width))
        vectors = rounded.reshape(members, lines, -1)
        product, *others = (factor.bind(vectors[m], whole[m]) for m, factor in enumerate(factors))
        sums, units = np.asarray(whole).reshape(out.shape), expanded(self._units, out)
        multiply, rint, put, levels = np.multiply, np.rint, np.copyto, np.array(LEVELS, np.float32)

        def apply() -> None:
            multiply(x, levels, scaled)
            rint(scaled, scaled)
            put(rounded, scaled, "unsafe")
            product()
            for one in others:
                one()
            put(out, sums, "same_kind")
            multiply(out, units, out)

        return apply

    def apply(self, x: Array, bias: Array) -> Array:
        """Return x W^T + b for a whole window: `[M, .., in]`, `[M, out]` → `[M, .., out]`."""
        y = np.empty((*x.shape[:-1], self.rows.shape[1]), np.float32)
        self.bind(x, y)()
        y += expanded(bias, y)
        return y

    def beside(self, other: Matrix) -> Matrix:
        """Return [self other] `[M, out, in + in']`; both have the same scales."""
        return QuantizedMatrix(np.concatenate([self.rows, other.rows], axis=2), self._scales)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def usable_threads() -> int:
    """Return how many threads a product may take: OMP_NUM_THREADS, or one for each core."""
    asked, cores = os.environ.get("OMP_NUM_THREADS", ""), usable_cores()
    return min(int(asked), cores) if asked.isdecimal() and int(asked) else cores


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads beside our own, since numkong has none."""
    from concurrent.futures import ThreadPoolExecutor  # which one stream does without

    return ThreadPoolExecutor(max(1, usable_threads() - 1), "int8")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


class PackedFactor:
    """Integers `[out, in]` that numkong multiplies by."""

    dtype = np.int8

    def __init__(self, integers: NDArray[np.int8]) -> None:
        """Put the integers into the order that the machine reads them in."""
        self._packed = numkong.dots_pack(np.ascontiguousarray(integers), "int8")
        self._width = len(integers)

    @staticmethod
    def empty(shape: tuple[int, ...]) -> Any:
        """Return an array for sums, which is cut along its first axis."""
        return numkong.empty(shape, dtype="int32")

    def bind(self, x: NDArray[np.int8], out: Any) -> Callable[[], Any]:
        """Return a call that puts the sums for the whole numbers in `x` `[N, in]` into `out`."""
        multiply = partial(numkong.dots_packed, x, self._packed, out=out)
        parts = min(usable_threads(), x.size * self._width // SPLIT_WORK, len(x))
        if parts < 2:
            return multiply
        edges = [len(x) * k // parts for k in range(parts + 1)]
        first, *others = (
            partial(multiply, start_row=a, end_row=b) for a, b in itertools.pairwise(edges)
        )

        def call() -> None:
            submit = _pool().submit
            waiting = [submit(one) for one in others]
            first()
            for one in waiting:
                one.result()

        return call


class BlockFactor:
    """Integers `[out, in]` that NumPy multiplies by; its only fast products are those of floats.

    The sums of EXACT_COLUMNS products are whole numbers that float32 holds, in whatever order they
    are added; those of several such blocks are added in float64.
    """

    dtype = np.float32

    def __init__(self, integers: NDArray[np.int8]) -> None:
        """Cut the columns into blocks."""
        self._cuts = range(EXACT_COLUMNS, integers.shape[1], EXACT_COLUMNS)
        self._blocks = [
            np.ascontiguousarray(block.T, np.float32)
            for block in np.split(integers, self._cuts, axis=1)
        ]

    @staticmethod
    def empty(shape: tuple[int, ...]) -> Any:
        """Return an array for sums, which is cut along its first axis."""
        return np.empty(shape, np.float64)

    def bind(self, x: NDArray[np.float32], out: Any) -> Callable[[], Any]:
        """Return a call that puts the sums for the whole numbers in `x` `[N, in]` into `out`."""
        product = np.empty(out.shape, np.float32)
        pairs = list(zip(np.split(x, self._cuts, axis=1), self._blocks, strict=True))

        def call() -> None:
            out[...] = 0
            for part, block in pairs:
                np.dot(part, block, product)
                np.add(out, product, out)

        return call


def quantize_layer(layer: Layer, *, is_first: bool) -> None:
    """Replace the matrices of a layer by integers, in place.

    Weights of the input and of the state have a scale in common for each row, so that their
    products can be one. The first layer's input is no state: its product stays as it is.
    """
    if not is_first:
        joint, scales = quantize_rows(np.concatenate([layer.input.rows, layer.recurrent.rows], 2))
        width = layer.input.rows.shape[2]
        layer.input = QuantizedMatrix(joint[..., :width], scales)
        layer.recurrent = QuantizedMatrix(joint[..., width:], scales)
    for name, value in vars(layer).items():
        if type(value) is Matrix and value is not layer.input:
            setattr(layer, name, QuantizedMatrix(*quantize_rows(value.rows)))


def quantized_output(output: Matrix) -> Matrix:
    """Return the output matrix in integers if it is large, or else as it is."""
    if output.rows.size < LARGE_OUTPUT:
        return output
    return QuantizedMatrix(*quantize_rows(output.rows))
