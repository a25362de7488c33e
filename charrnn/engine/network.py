"""A whole network in NumPy: ids in, logits out.

Shapes: B streams, T characters, H hidden units, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.engine.cells import LayerState, build_layer
from charrnn.engine.matrix import Array, Matrix

TABLE_BYTES = 1 << 27


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
        hidden = config.hidden_size
        lead = () if batch is None else (batch,)
        # the hidden states of all layers side by side: what a layer reads lies beside its own
        h = np.zeros((*lead, config.num_layers * hidden), engine.dtype)
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
        logits = np.empty((*h.shape[:-1], engine.config.vocab_size), engine.dtype)
        output, bias, add = engine.output.bind(h, logits), engine.output_bias, np.add

        def step(ids: Any) -> Array:
            first(first_input(ids))
            for advance in inner:
                advance()
            output()
            add(logits, bias, logits)
            return logits

        return step

    def assign(self, other: State, rows: Any = slice(None)) -> None:
        """Copy the given rows of another state of the same network into this one."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.h[...] = theirs.h[rows]
            mine.c[...] = theirs.c[rows]

    def assign_rows(self, rows: Any, one: State) -> None:
        """Copy the state of one stream into the given rows of this batch."""
        for mine, theirs in zip(self.layers, one.layers, strict=True):
            mine.h[rows] = theirs.h
            mine.c[rows] = theirs.c


class Engine:
    """Computes the function of a network, one step or one window at a time.

    Args:
        config: the shape of the network.
        weights: its arrays, as in `ModelConfig.weight_shapes`.
        dtype: float32, or float64 where exactness is worth more than speed.
    """

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, NDArray[Any]], dtype: Any = np.float32
    ) -> None:
        """Arrange the weights for the steps."""
        self.config = config
        self.dtype = np.dtype(dtype)
        arrays = {name: np.asarray(weights[name], dtype) for name in config.weight_shapes()}
        self.layers = [
            build_layer(
                config,
                (
                    arrays[f"layers.{k}.weight_ih"],
                    arrays[f"layers.{k}.weight_hh"],
                    arrays[f"layers.{k}.bias_ih"],
                    arrays[f"layers.{k}.bias_hh"],
                ),
            )
            for k in range(config.num_layers)
        ]
        self.output = Matrix(arrays["output.weight"])
        self.output_bias = arrays["output.bias"]
        self._embedding = arrays.get("embedding.weight")
        self._table = self._build_table()

    def _build_table(self) -> Array | None:
        """Return the first layer's projected input of every id `[V, G·H]`.

        A character's embedding and input product depend on nothing but the character, so they
        are computed once. None when the table would be too large to keep.
        """
        config = self.config
        if self._embedding is None:
            first = self.layers[0]  # W of a one-hot vector is a column of W
            table: Array = np.add(first.input.rows.T, first.bias, order="C")
            return table
        size = config.vocab_size * config.gates * config.hidden_size * self.dtype.itemsize
        return self.layers[0].project(self._embedding) if size <= TABLE_BYTES else None

    def bind_first_input(self, batch: int | None) -> Callable[[Any], Array]:
        """Return the call from one id, or `[batch]` ids, to the first layer's projected input."""
        if self._table is None:
            return self._project_embedding
        if batch is None:
            return self._table.__getitem__
        take, z = self._table.take, np.empty((batch, self._table.shape[1]), self.dtype)
        # "clip", because with "raise" NumPy would fill a buffer of its own first
        return lambda ids: take(ids, 0, z, "clip")

    def _project_embedding(self, ids: Any) -> Array:
        assert self._embedding is not None
        return _rows(self.layers[0].project, self._embedding[ids])

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
        x_T = np.empty((*ids_T.shape, self.config.hidden_size), self.dtype)
        # the first layer's input products are fetched step by step: a row of the table is read
        # while it is in the cache, and an array [T, B, G·H] of them is never made
        z_T: Iterable[Array] = (
            map(state.first_input, ids_T) if self._table is not None else state.first_input(ids_T)
        )
        for k, (layer, mine) in enumerate(zip(self.layers, state.layers, strict=True)):
            if k:
                z_T = _rows(layer.project, x_T)
            advance, h = state.advances[k], mine.h
            for z, x in zip(z_T, x_T, strict=True):
                advance(z)
                x[...] = h
        logits_T = _rows(lambda x: x @ self.output.rows.T + self.output_bias, x_T)
        return logits_T if logits_T.ndim == 2 else logits_T.swapaxes(0, 1)


def _rows(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply a function of `[N, in]` to an array `[..., in]`."""
    if x.ndim <= 2:
        return function(x)
    flat = function(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], flat.shape[-1])
