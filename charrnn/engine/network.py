"""A whole network in NumPy: ids in, logits out, and from logits to log-probabilities.

Shapes: M ensemble members, B streams, T characters, H hidden units, G·H gate rows, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import EnginePrecision, ModelConfig
from charrnn.engine.cells import Array, LayerState, Matrix, build_layer
from charrnn.engine.quantized import is_possible, quantize_layer, quantized_output
from charrnn.errors import ModelFileError

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Return log-probabilities in float64 over the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def target_logprobs(logits: NDArray[Any], targets: NDArray[Any]) -> Floats:
    """Return the log-probabilities of the targets alone, `[..]` from logits `[.., V]`.

    The same numbers as `log_softmax` gives, without an array of all of them.
    """
    top = logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None].astype(np.intp), axis=-1)
    exp = np.subtract(logits, top, dtype=np.float64)
    np.exp(exp, out=exp)
    result: Floats = np.subtract(chosen, top, dtype=np.float64)[..., 0]
    result -= np.log(exp.sum(axis=-1))
    return result


def require_finite(logits: Any) -> None:
    """Check logits; of a row it is enough to give the largest, which shows any that is not finite.

    Raises:
        ModelFileError: one is not.
    """
    if not np.isfinite(logits).all():
        raise ModelFileError(
            "the model gives no probabilities: its weights are so large that its logits overflow; "
            "train it again with a lower learning rate, or use another model"
        )


TABLE_BYTES = 1 << 27
QUIETLY = np.errstate(over="ignore", invalid="ignore")
"""The states of a relu RNN have no bound and may overflow: who reads the logits sees it. And a BLAS
may raise the flags on values beside an array, of which nothing reaches the product."""


class State:
    """The recurrent state of one stream or of a batch, changed in place by each step.

    Attributes:
        layers: the states of the layers.
        batch: number of streams; None for one stream without a B axis.
        first_input: from one id, or `[B]` ids, to the first layer's projected input, perhaps in a
            buffer that the next call overwrites.
        step: reads one id, or `[B]` ids, and returns the logits, in a buffer that the next step
            overwrites.
        advances: per layer, one step from a projected input.
    """

    def __init__(self, engine: Engine, batch: int | None) -> None:
        """Make a zero state for a network."""
        config = engine.config
        hidden, members = config.hidden_size, config.members
        # the hidden states of all layers side by side: what a layer reads lies beside its own
        lead = () if batch is None else (batch,)
        h = _empty(members, lead, config.num_layers * hidden, engine.dtype)
        h[...] = 0
        self.batch = batch
        self.layers = [
            LayerState(h[..., max(k - 1, 0) * hidden : (k + 1) * hidden], hidden, config.gates)
            for k in range(config.num_layers)
        ]
        self.first_input = engine.bind_first_input(batch)
        self.advances = [
            layer.bind(mine) for layer, mine in zip(engine.layers, self.layers, strict=True)
        ]
        self.step = self._bind_step(engine)

    def _bind_step(self, engine: Engine) -> Callable[[Any], Array]:
        first, first_input, h = self.advances[0], self.first_input, self.layers[-1].h
        inner = [engine.layers[k].bind_inner(self.layers[k]) for k in range(1, len(self.layers))]
        logits, output = engine.bind_output(h)

        @QUIETLY
        def step(ids: Any) -> Array:
            first(first_input(ids))
            for advance in inner:
                advance()
            output()
            return logits

        return step

    def assign(self, other: State, rows: Any = slice(None)) -> None:
        """Copy another state of the same network into this one.

        Args:
            other: a batch, of which the given rows are copied, or one stream, for all rows.
            rows: an array of numbers.
        """
        if other.batch is None and self.batch is not None:
            self.assign_rows(slice(None), other)
            return
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.h[...] = theirs.h[:, rows]
            mine.c[...] = theirs.c[:, rows]

    def assign_rows(self, rows: Any, one: State) -> None:
        """Copy the state of one stream into the given rows of this batch."""
        for mine, theirs in zip(self.layers, one.layers, strict=True):
            mine.h[:, rows] = theirs.h[:, None]
            mine.c[:, rows] = theirs.c[:, None]


class Engine:
    """Computes the function of a network, one step or one window at a time.

    Args:
        config: the shape of the network.
        weights: its arrays, as in `ModelConfig.weight_shapes`.
        dtype: float32, or float64 where exactness is worth more than speed.
        precision: of the recurrent products, in place of that dtype (`charrnn.engine.quantized`).
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, NDArray[Any]],
        dtype: Any = np.float32,
        precision: EnginePrecision = "float32",
    ) -> None:
        """Arrange the weights for the steps."""
        self.config = config
        self.dtype = np.dtype(dtype)
        self.precision = precision
        arrays = {name: np.asarray(weights[name], dtype) for name in config.weight_shapes()}
        if config.members == 1:
            arrays = {name: array[None] for name, array in arrays.items()}
        self.layers = [
            build_layer(
                config, [arrays[name] for name in arrays if name.startswith(f"layers.{k}.")]
            )
            for k in range(config.num_layers)
        ]
        # the mean of the members' logits is one product with all their weights side by side
        self._output = Matrix(_side_by_side(arrays["output.weight"] / config.members)[None])
        if precision == "int8":
            assert is_possible(config)
            assert self.dtype == np.float32
            for k, layer in enumerate(self.layers):
                quantize_layer(layer, is_first=k == 0)
            self._output = quantized_output(self._output)
        self._output_bias = arrays["output.bias"].mean(0)
        self._embedding = arrays.get("embedding.weight")
        size = config.members * config.vocab_size * config.gates * config.hidden_size
        self._has_table = not config.embedding_size or size * self.dtype.itemsize <= TABLE_BYTES

    @cached_property
    def _table(self) -> Array:
        """The first layer's projected input of every id `[M, V, G·H]`.

        A character's embedding and input product depend on nothing but the character, so they
        are computed once, unless the table would be too large to keep.
        """
        first = self.layers[0]
        if self._embedding is not None:
            return first.project(self._embedding)
        # W of a one-hot vector is a column of W
        columns = first.input.rows.swapaxes(1, 2)
        table: Array = np.add(columns, first.bias[:, None], order="C")
        return table

    @cached_property
    def _rows_by_id(self) -> Array:
        """The same as `[V, M, G·H]`, where what one stream reads of an id is one row."""
        return np.ascontiguousarray(self._table.swapaxes(0, 1))

    @QUIETLY
    def bind_first_input(self, batch: int | None) -> Callable[[Any], Array]:
        """Return the call from one id, or `[batch]` ids, to the first layer's projected input."""
        if not self._has_table:
            return self._project_embedding
        if batch is None:
            return self._rows_by_id.__getitem__
        take, (members, _, width) = self._table.take, self._table.shape
        z = np.empty((members, batch, width), self.dtype)
        # "clip", because with "raise" NumPy would fill a buffer of its own first
        return lambda ids: take(ids, 1, z, "clip")

    def _project_embedding(self, ids: Any) -> Array:
        assert self._embedding is not None
        return self.layers[0].project(self._embedding[:, ids])

    def bind_output(self, h: Array) -> tuple[Array, Callable[[], None]]:
        """Return a buffer of logits `[V]` or `[B, V]`, and the call that fills it.

        Args:
            h: hidden states of the last layer, `[M, H]` or `[M, B, H]`, read at each call.
        """
        x = _side_by_side(h)
        logits = np.empty((*x.shape[:-1], self.config.vocab_size), self.dtype)
        product, bias, add = self._output.bind(x[None], logits[None]), self._output_bias, np.add
        hidden = np.moveaxis(h, 0, -2)
        copied, is_copy = x.reshape(hidden.shape), not np.may_share_memory(x, h)

        def output() -> None:
            if is_copy:
                copied[...] = hidden
            product()
            add(logits, bias, logits)

        return logits, output

    def initial_state(self, batch: int | None = None) -> State:
        """Return a zero state for one stream (`batch=None`, no B axis) or for `batch` streams."""
        return State(self, batch)

    def copy_state(self, state: State, rows: Any = None) -> State:
        """Return an independent copy of a state, of the given rows only if `rows` is an array."""
        copy = self.initial_state(state.batch if rows is None else len(rows))
        copy.assign(state, slice(None) if rows is None else rows)
        return copy

    def step(self, ids: Any, state: State) -> Array:
        """Read one character per stream and return the logits of the next.

        Args:
            ids: an int for one stream, an array `[B]` for a batch.
            state: changed in place.

        Returns:
            Logits `[V]` or `[B, V]`, in a buffer that the next step overwrites.
        """
        return state.step(ids)

    @QUIETLY
    def run(self, ids: Any, state: State) -> Array:
        """Read a window of characters and return the logits after each of them.

        Layer by layer, so that all input products of a layer are one matrix product.

        Args:
            ids: `[T]` for one stream, `[B, T]` for a batch.
            state: changed in place to the state after the last character.

        Returns:
            Logits `[T, V]` or `[B, T, V]`.
        """
        ids_T = np.asarray(ids).T  # time first: [T] or [T, B]
        x = _empty(self.config.members, ids_T.shape, self.config.hidden_size, self.dtype)
        x_T = np.moveaxis(x, 1, 0)
        # the first layer's input products are fetched step by step: a row of the table is read
        # while it is in the cache, and an array [M, T, B, G·H] of them is never made
        z_T: Iterable[Array] = (
            map(state.first_input, ids_T)
            if self._has_table
            else np.moveaxis(state.first_input(ids_T), 1, 0)
        )
        for k, (layer, mine) in enumerate(zip(self.layers, state.layers, strict=True)):
            if k:
                z_T = np.moveaxis(layer.project(x), 1, 0)
            advance, h = state.advances[k], mine.h
            for z, out in zip(z_T, x_T, strict=True):
                advance(z)
                out[...] = h
        logits_T: Array = self._output.apply(_side_by_side(x)[None], self._output_bias[None])[0]
        return logits_T if logits_T.ndim == 2 else logits_T.swapaxes(0, 1)


def _empty(members: int, lead: tuple[int, ...], width: int, dtype: Any) -> Array:
    """Return an array `[M, .., H]` whose members lie side by side in memory, `[.., M·H]`."""
    return np.moveaxis(np.empty((*lead, members, width), dtype), -2, 0)


def _side_by_side(array: Array) -> Array:
    """Return an array `[M, .., H]` as `[.., M·H]`: a view where the memory allows it."""
    members, *lead, hidden = array.shape
    joined: Array = np.moveaxis(array, 0, -2).reshape(*lead, members * hidden)
    return joined
