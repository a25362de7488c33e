"""A whole network in NumPy: ids in, logits out.

Shapes: B streams, T characters, H hidden units, V ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.engine.cells import Array, LayerState, _Affine, build_layer

TABLE_BYTES = 1 << 27


class State:
    """The recurrent state of one stream or of a batch, changed in place by each step."""

    def __init__(self, layers: list[LayerState], batch: int | None) -> None:
        """Wrap the states of the layers."""
        self.layers = layers
        self.batch = batch

    def assign(self, other: State, rows: Any = slice(None)) -> None:
        """Copy the given rows of another state of the same network into this one."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.h[...] = theirs.h[rows]
            mine.c[...] = theirs.c[rows]


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
        self._layers = [
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
        self._output = _Affine(arrays["output.weight"], arrays["output.bias"])
        self._embedding = arrays.get("embedding.weight")
        self._table = self._build_table()

    def _build_table(self) -> Array | None:
        """Return the first layer's projected input of every id `[V, G·H]`.

        A character's embedding and input product depend on nothing but the character, so they
        are computed once. None when the table would be too large to keep.
        """
        config = self.config
        if self._embedding is None:
            return self._layers[0].project(np.eye(config.vocab_size, dtype=self.dtype))
        size = config.vocab_size * config.gates * config.hidden_size * self.dtype.itemsize
        return self._layers[0].project(self._embedding) if size <= TABLE_BYTES else None

    def initial_state(self, batch: int | None = None) -> State:
        """Return a zero state for one stream (`batch=None`, no B axis) or for `batch` streams."""
        config = self.config
        layers = [
            LayerState(config.hidden_size, config.gates, batch, self.dtype)
            for _ in range(config.num_layers)
        ]
        return State(layers, batch)

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
            Logits `[V]` or `[B, V]`, a new array.
        """
        x = z = self._first_input(ids)
        for k, (layer, layer_state) in enumerate(zip(self._layers, state.layers, strict=True)):
            if k:
                z = layer.project(x)
            layer.advance(z, layer_state)
            x = layer_state.h
        return self._output(x)

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
        x_T = z_T = self._first_input(ids_T)
        for k, (layer, layer_state) in enumerate(zip(self._layers, state.layers, strict=True)):
            if k:
                z_T = self._rows(layer.project, x_T)
            x_T = np.empty((*ids_T.shape, self.config.hidden_size), self.dtype)
            for t in range(len(ids_T)):
                layer.advance(z_T[t], layer_state)
                x_T[t] = layer_state.h
        logits_T: Array = self._rows(self._output, x_T)
        return logits_T if logits_T.ndim == 2 else logits_T.swapaxes(0, 1)

    def _first_input(self, ids: Any) -> Array:
        """Return the projected input of the first layer, `[..., G·H]`."""
        if self._table is not None:
            rows: Array = self._table[ids]
            return rows
        assert self._embedding is not None
        return self._rows(self._layers[0].project, self._embedding[ids])

    @staticmethod
    def _rows(function: Any, x: Array) -> Array:
        """Apply a function of `[N, in]` to an array `[..., in]`."""
        if x.ndim <= 2:
            return function(x)  # type: ignore[no-any-return]
        flat = function(x.reshape(-1, x.shape[-1]))
        return flat.reshape(*x.shape[:-1], flat.shape[-1])  # type: ignore[no-any-return]
