"""Recurrent layers in NumPy, laid out for speed.

Shapes: B streams, H hidden units, G·H stacked gate rows, I inputs. Every function works on one
stream (arrays without the B axis: matrix-vector products) and on many (with it).

A layer splits the cell's equations in two, so that the input product of a whole text can be one
large matrix product while only the recurrent product remains step by step:

    project   z = W x + b            [.., I] → [.., G·H]
    advance   h, … = cell(z + U h)   one step, in place

The logistic function is computed as σ(a) = ½ tanh(½ a) + ½; the ½ inside is folded into the
weights when a layer is built, so that one vectorised tanh serves all gates of the LSTM.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig

Array = NDArray[Any]


class LayerState:
    """The state of one layer with the scratch space of its step.

    Attributes:
        h: hidden state `[H]` or `[B, H]`, the layer's output.
        c: cell state of the LSTM, same shape; the other cells leave it unused.
    """

    def __init__(self, hidden: int, gates: int, batch: int | None, dtype: Any) -> None:
        """Make a zero state."""
        lead = () if batch is None else (batch,)
        self.h = np.zeros((*lead, hidden), dtype)
        self.c = np.zeros((*lead, hidden if gates == 4 else 0), dtype)
        self.work = np.empty((*lead, gates * hidden), dtype)
        self.blocks = [self.work[..., k * hidden : (k + 1) * hidden] for k in range(gates)]
        self.sigmoids = self.work[..., : max(gates - 1, 0) * hidden]


class Layer(Protocol):
    """What the engine asks of a cell."""

    def project(self, x: Array) -> Array:
        """Return W x + b, `[N, I]` → `[N, G·H]` (or without N)."""

    def advance(self, z: Array, state: LayerState) -> None:
        """Replace `state` by the next one, given the projected input `z`."""


class _Product:
    """A weight matrix `[rows, columns]` applied from the left, to one vector or to many."""

    def __init__(self, matrix: Array) -> None:
        self.matrix = np.ascontiguousarray(matrix)
        self._transposed: Array | None = None

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Return `x W^T`: `[columns]` → `[rows]`, or `[N, columns]` → `[N, rows]`."""
        if x.ndim == 1:
            return np.dot(self.matrix, x, out=out)
        if self._transposed is None:  # BLAS reads this layout fastest when there are many rows
            self._transposed = np.ascontiguousarray(self.matrix.T)
        return np.dot(x, self._transposed, out=out)


class _Affine:
    """W x + b."""

    def __init__(self, matrix: Array, bias: Array) -> None:
        self.product = _Product(matrix)
        self.bias = bias

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        z = self.product(x, out)
        z += self.bias
        return z


class LSTMLayer:
    """Long short-term memory, Hochreiter & Schmidhuber 1997 with the forget gate of Gers 2000.

    i = σ(W_i x + U_i h + b_i)      f = σ(W_f x + U_f h + b_f)
    o = σ(W_o x + U_o h + b_o)      g = tanh(W_g x + U_g h + b_g)
    c' = f ∘ c + i ∘ g              h' = o ∘ tanh(c')

    Stored in torch's order i, f, g, o; kept here as i, f, o, g, the sigmoids side by side.
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        """Reorder the gates and fold in the halves."""

        def arrange(a: Array) -> Array:
            i, f, g, o = np.split(a, 4)
            return np.concatenate([0.5 * i, 0.5 * f, 0.5 * o, g]).astype(a.dtype)

        self.project = _Affine(arrange(w_ih), arrange(b_ih + b_hh))
        self._recurrent = _Product(arrange(w_hh))

    def advance(self, z: Array, state: LayerState) -> None:
        """Take one step in place."""
        work, sigmoids, (i, f, o, g) = state.work, state.sigmoids, state.blocks
        h, c = state.h, state.c
        self._recurrent(h, work)
        np.add(work, z, work)
        np.tanh(work, work)
        np.multiply(sigmoids, 0.5, sigmoids)
        np.add(sigmoids, 0.5, sigmoids)
        np.multiply(c, f, c)
        np.multiply(i, g, i)
        np.add(c, i, c)
        np.tanh(c, h)
        np.multiply(h, o, h)


class GRULayer:
    """Gated recurrent unit, Cho et al. 2014, with the reset gate after the product (cuDNN, torch).

    r = σ(W_r x + U_r h + b_r)      u = σ(W_u x + U_u h + b_u)
    n = tanh(W_n x + b_n + r ∘ (U_n h + b'_n))
    h' = (1 - u) ∘ n + u ∘ h
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        """Fold in the halves, and all biases but b'_n into the projection."""
        hidden = w_hh.shape[1]

        def arrange(a: Array) -> Array:
            return np.concatenate([0.5 * a[: 2 * hidden], a[2 * hidden :]]).astype(a.dtype)

        outer = b_ih.copy()
        outer[: 2 * hidden] += b_hh[: 2 * hidden]
        self.project = _Affine(arrange(w_ih), arrange(outer))
        self._recurrent = _Product(arrange(w_hh))
        self._bias_n = b_hh[2 * hidden :].copy()
        self._hidden = hidden

    def advance(self, z: Array, state: LayerState) -> None:
        """Take one step in place."""
        sigmoids, (r, u, n) = state.sigmoids, state.blocks
        h, split = state.h, 2 * self._hidden
        self._recurrent(h, state.work)
        np.add(sigmoids, z[..., :split], sigmoids)
        np.tanh(sigmoids, sigmoids)
        np.multiply(sigmoids, 0.5, sigmoids)
        np.add(sigmoids, 0.5, sigmoids)
        np.add(n, self._bias_n, n)
        np.multiply(n, r, n)
        np.add(n, z[..., split:], n)
        np.tanh(n, n)
        np.subtract(h, n, h)
        np.multiply(h, u, h)
        np.add(h, n, h)


class RNNLayer:
    """The simple recurrent network, Elman 1990: h' = φ(W x + U h + b), φ = tanh or relu."""

    def __init__(
        self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, *, nonlinearity: str
    ) -> None:
        """Merge the biases."""
        self.project = _Affine(w_ih, b_ih + b_hh)
        self._recurrent = _Product(w_hh)
        self._relu = nonlinearity == "relu"

    def advance(self, z: Array, state: LayerState) -> None:
        """Take one step in place."""
        self._recurrent(state.h, state.work)
        np.add(state.work, z, state.work)
        if self._relu:
            np.maximum(state.work, 0, state.h)
        else:
            np.tanh(state.work, state.h)


def build_layer(config: ModelConfig, arrays: tuple[Array, Array, Array, Array]) -> Layer:
    """Return the layer of the config's cell with weights (w_ih, w_hh, b_ih, b_hh)."""
    if config.cell == "lstm":
        return LSTMLayer(*arrays)
    if config.cell == "gru":
        return GRULayer(*arrays)
    return RNNLayer(*arrays, nonlinearity=config.nonlinearity)
