"""Recurrent layers in NumPy, laid out for speed.

Shapes: M ensemble members, B streams, H hidden units, G·H stacked gate rows, I inputs. Every
function works on one stream (arrays without the B axis: matrix-vector products) and on many.

A layer above the first has one matrix [W U] `[G·H, I+H]` and one vector [x h] `[.., I+H]`, so
that a step is one product for each member. The steps are closures over the arrays they work on: a
network of 256 units takes 15 µs for its products, and looking things up would cost half of that
again. The logistic function is computed as σ(a) = ½ tanh(½ a) + ½; the ½ inside is folded into the
weights when a layer is built, so that one vectorised tanh serves all gates of the LSTM.

The equations are in the notation of lectures: c the memory cell, c̃ its candidate, Γ the gates, W
the weights of the input x, U those of the state, ∘ the product element by element. Each class says
what libraries, and the arrays of a model file, call the same things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig

Array = NDArray[Any]

CACHE_LINE = 64
"""Bytes."""


class Matrix:
    """One matrix for each member, `[M, out, in]`, applied as x W^T."""

    def __init__(self, rows: Array) -> None:
        """Keep `[M, out, in]` for one stream; the other layout is made when asked for."""
        # a matrix-vector product is up to a sixth slower where rows straddle cache lines
        memory = np.empty(rows.nbytes + CACHE_LINE, np.uint8)
        start = -memory.__array_interface__["data"][0] % CACHE_LINE
        self.rows: Array = memory[start : start + rows.nbytes].view(rows.dtype).reshape(rows.shape)
        self.rows[...] = rows

    @cached_property
    def columns(self) -> Array:
        """The transposes `[M, in, out]`, the layout that BLAS streams best for many vectors."""
        return np.ascontiguousarray(self.rows.swapaxes(1, 2))

    def bind(self, x: Array, out: Array) -> Callable[[], Any]:
        """Return a call that multiplies what is in `x` now and puts the product into `out`.

        Args:
            x: `[M, in]` or `[M, B, in]`.
            out: `[M, out]` or `[M, B, out]`, contiguous.
        """
        # one stream: W x; many: x W^T
        factors = (self.rows, x, out) if x.ndim == 2 else (x, self.columns, out)
        calls = [partial(a.dot, b, c) for a, b, c in zip(*factors, strict=True)]
        if len(calls) == 1:
            return calls[0]

        def multiply() -> None:
            for call in calls:
                call()

        return multiply

    def apply(self, x: Array, bias: Array) -> Array:
        """Return x W^T + b for a whole window: `[M, .., in]`, `[M, out]` → `[M, .., out]`."""
        n = math.prod(x.shape[1:-1])  # spelled out: -1 is ambiguous in an empty array
        y: Array = np.matmul(x.reshape(len(x), n, x.shape[-1]), self.rows.swapaxes(1, 2))
        y += bias[:, None]
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def beside(self, other: Matrix) -> Matrix:
        """Return [self other] `[M, out, in + in']`, which does the products of both in one."""
        return Matrix(np.concatenate([self.rows, other.rows], axis=2))


def expanded(bias: Array, array: Array) -> Array:
    """Return a bias `[M, N]` as a view that adds to an array `[M, .., N]`."""
    return bias.reshape(len(bias), *(1,) * (array.ndim - 2), bias.shape[1])


class LayerState:
    """The state of one layer, with the scratch space of its step.

    Attributes:
        xh: the input and the hidden state side by side, `[M, .., I+H]`; the first layer has no x
            here, because its input product comes from a table.
        x: view of the input, `[M, .., I]`: the hidden state of the layer below.
        h: view of the hidden state, `[M, H]` or `[M, B, H]`.
        c: memory cell of the LSTMs, same shape; empty in the other cells.
        work: the products and their sums, `[M, .., G·H]`, as BLAS wants them.
        stacked: view of `work`, gate by gate: `[G, M, .., H]`.
        gates: the activations of the gates, `[G, M, .., H]`; each is contiguous, so that operations
            on a few of them do not jump from row to row.
    """

    def __init__(self, xh: Array, hidden: int, gates: int) -> None:
        """Take the views of the hidden states; a zero cell state."""
        lead, inputs = xh.shape[:-1], xh.shape[-1] - hidden
        self.xh = xh
        self.x = xh[..., :inputs]
        self.h = xh[..., inputs:]
        self.c = np.zeros((*lead, hidden if gates == 4 else 0), xh.dtype)
        self.work = np.empty((*lead, gates * hidden), xh.dtype)
        self.stacked = np.moveaxis(self.work.reshape(*lead, gates, hidden), -2, 0)
        self.gates = np.empty((gates, *lead, hidden), xh.dtype)


class Layer:
    """What all cells share: their weights, and how a step gets its products.

    Args:
        w_ih: `[M, G·H, I]`, gates in the order the cell works in, halves folded in.
        w_hh: `[M, G·H, H]`.
        bias: `[M, G·H]`, added to the input product.
    """

    def __init__(self, w_ih: Array, w_hh: Array, bias: Array) -> None:
        """Keep the weights."""
        self.input = Matrix(w_ih)
        self.recurrent = Matrix(w_hh)
        self.bias = bias

    @cached_property
    def _both(self) -> Matrix:
        """[W U], for one product a step."""
        return self.input.beside(self.recurrent)

    def project(self, x: Array) -> Array:
        """Return W x + b, `[M, .., I]` → `[M, .., G·H]`."""
        return self.input.apply(x, self.bias)

    def bind(self, state: LayerState) -> Callable[[Array], None]:
        """Return the step `advance(z)` for a projected input z: the recurrent product, the cell."""
        return self._cell(state, self.recurrent.bind(state.h, state.work))

    def bind_inner(self, state: LayerState) -> Callable[[], None]:
        """Return the step of a layer above the first, which finds its input in `state.x`."""
        advance = self._cell(state, self._both.bind(state.xh, state.work))
        return partial(advance, expanded(self.bias, state.work))

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        """Return `advance(z)`: fill `work` by `product`, add z, apply the equations in place."""
        raise AssertionError("every cell has its own")


class LSTMLayer(Layer):
    """Long short-term memory, Hochreiter & Schmidhuber 1997 with the forget gate of Gers 2000.

        Γu = σ(W_u x + U_u h + b_u)      update: the libraries' input gate i
        Γf = σ(W_f x + U_f h + b_f)      forget: f
        Γo = σ(W_o x + U_o h + b_o)      output: o
        c̃  = tanh(W_c x + U_c h + b_c)   candidate: g
        c' = Γu ∘ c̃ + Γf ∘ c             h' = Γo ∘ tanh(c')

    h is called a in lectures. Stored in torch's order i, f, g, o; kept here as i, f, o, g, the
    sigmoids side by side.
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        """Reorder the gates and fold in the halves."""

        def arrange(a: Array) -> Array:
            i, f, g, o = np.split(a, 4, axis=1)
            return np.concatenate([0.5 * i, 0.5 * f, 0.5 * o, g], axis=1).astype(a.dtype)

        super().__init__(arrange(w_ih), arrange(w_hh), arrange(b_ih + b_hh))

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        work, stacked, gates, h, c = state.work, state.stacked, state.gates, state.h, state.c
        (i, f, o, g), sigmoids = gates, gates[:3]
        add, multiply, tanh, half = np.add, np.multiply, np.tanh, np.array(0.5, c.dtype)

        def advance(z: Array) -> None:
            product()
            add(work, z, work)
            tanh(stacked, gates)
            multiply(sigmoids, half, sigmoids)
            add(sigmoids, half, sigmoids)
            multiply(c, f, c)
            multiply(i, g, i)
            add(c, i, c)
            tanh(c, f)
            multiply(f, o, h)

        return advance


class PeepholeLSTMLayer(Layer):
    """The LSTM whose gates see the memory cell, too: peepholes, Gers & Schmidhuber 2000.

        Γu = σ(W_u x + U_u h + p_u ∘ c + b_u)      update: the libraries' input gate i
        Γf = σ(W_f x + U_f h + p_f ∘ c + b_f)      forget: f
        c̃  = tanh(W_c x + U_c h + b_c)             candidate: g
        c' = Γu ∘ c̃ + Γf ∘ c
        Γo = σ(W_o x + U_o h + p_o ∘ c' + b_o)     output: o
        h' = Γo ∘ tanh(c')

    Each gate sees its own unit of the memory cell: update and forget as the step before left it,
    output as it is now. Stored in torch's order i, f, g, o, the peepholes as i, f, o.
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, peephole: Array) -> None:
        """Fold in the halves; peepholes `[M, 3H]`."""

        def arrange(a: Array) -> Array:
            i, f, g, o = np.split(a, 4, axis=1)
            return np.concatenate([0.5 * i, 0.5 * f, g, 0.5 * o], axis=1).astype(a.dtype)

        super().__init__(arrange(w_ih), arrange(w_hh), arrange(b_ih + b_hh))
        halves = (0.5 * peephole).astype(peephole.dtype)
        self._peepholes = np.stack(np.split(halves, 3, axis=1))

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        work, stacked, gates, h, c = state.work, state.stacked, state.gates, state.h, state.c
        (i, f, g, o), sums_if, sums_o, sums_ifg = gates, stacked[:2], stacked[3], stacked[:3]
        ifg, sigmoids = gates[:3], gates[:2]
        see_i, see_f, see_o = (expanded(p, c) for p in self._peepholes)
        see_if = np.stack([see_i, see_f])
        add, multiply, tanh, half = np.add, np.multiply, np.tanh, np.array(0.5, c.dtype)

        def advance(z: Array) -> None:
            product()
            add(work, z, work)
            multiply(c, see_if, sigmoids)
            add(sums_if, sigmoids, sums_if)
            tanh(sums_ifg, ifg)
            multiply(sigmoids, half, sigmoids)
            add(sigmoids, half, sigmoids)
            multiply(c, f, c)
            multiply(i, g, o)
            add(c, o, c)
            multiply(c, see_o, o)
            add(o, sums_o, o)
            tanh(o, o)
            multiply(o, half, o)
            add(o, half, o)
            tanh(c, h)
            multiply(h, o, h)

        return advance


class GRULayer(Layer):
    """Gated recurrent unit, Cho et al. 2014, with the reset gate after the product (cuDNN, torch).

        Γr = σ(W_r x + U_r c + b_r)                      reset: the libraries' r
        Γu = σ(W_u x + U_u c + b_u)                      update: 1 - z
        c̃  = tanh(W_c x + b_c + Γr ∘ (U_c c + b'_c))     candidate: n, for new
        c' = Γu ∘ c̃ + (1 - Γu) ∘ c                       state: h

    In lectures the reset gate comes before the product, U_c (Γr ∘ c). The file has the gates r, z
    and n, and z is the share of the old state that is kept: the weights of Γu with the other sign.

    The candidate keeps input and recurrent product apart, so this layer never uses [W U].
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        """Fold in the halves, and all biases but b'_n into the projection."""
        split = 2 * w_hh.shape[2]

        def arrange(a: Array) -> Array:
            return np.concatenate([0.5 * a[:, :split], a[:, split:]], axis=1).astype(a.dtype)

        outer = b_ih.copy()
        outer[:, :split] += b_hh[:, :split]
        super().__init__(arrange(w_ih), arrange(w_hh), arrange(outer))
        self._bias_n = b_hh[:, split:].copy()
        self._split = split

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        h, split, bias_n = state.h, self._split, expanded(self._bias_n, state.work)
        outer, product_n = state.work[..., :split], state.work[..., split:]
        stacked, sigmoids, (r, kept, n) = state.stacked[:2], state.gates[:2], state.gates
        add, multiply, tanh, half = np.add, np.multiply, np.tanh, np.array(0.5, h.dtype)
        subtract = np.subtract

        def advance(z: Array) -> None:
            product()
            add(outer, z[..., :split], outer)
            tanh(stacked, sigmoids)
            multiply(sigmoids, half, sigmoids)
            add(sigmoids, half, sigmoids)
            add(product_n, bias_n, n)
            multiply(n, r, n)
            add(n, z[..., split:], n)
            tanh(n, n)
            subtract(h, n, r)
            multiply(r, kept, r)
            add(n, r, h)

        return advance

    def bind_inner(self, state: LayerState) -> Callable[[], None]:
        """Return the step of a layer above the first: two products, kept apart."""
        z, add = np.empty_like(state.work), np.add
        product, bias = self.input.bind(state.x, z), expanded(self.bias, z)
        advance = self.bind(state)

        def step() -> None:
            product()
            add(z, bias, z)
            advance(z)

        return step


class SimpleGRULayer(Layer):
    """The GRU without its reset gate, as lectures begin with it: one update gate.

        Γu = σ(W_u x + U_u c + b_u)        update: the libraries' 1 - z
        c̃  = tanh(W_c x + U_c c + b_c)     candidate: n, for new
        c' = Γu ∘ c̃ + (1 - Γu) ∘ c         state: h

    The file has the gates z and n of the GRU: z is the share of the old state that is kept, so
    its weights are those of Γu with the other sign.
    """

    def __init__(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        """Fold in the halves."""

        def arrange(a: Array) -> Array:
            z, n = np.split(a, 2, axis=1)
            return np.concatenate([0.5 * z, n], axis=1).astype(a.dtype)

        super().__init__(arrange(w_ih), arrange(w_hh), arrange(b_ih + b_hh))

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        work, stacked, gates, h = state.work, state.stacked, state.gates, state.h
        kept, n = gates
        add, multiply, tanh, half = np.add, np.multiply, np.tanh, np.array(0.5, h.dtype)
        subtract = np.subtract

        def advance(z: Array) -> None:
            product()
            add(work, z, work)
            tanh(stacked, gates)
            multiply(kept, half, kept)
            add(kept, half, kept)
            subtract(h, n, h)
            multiply(h, kept, h)
            add(h, n, h)

        return advance


class RNNLayer(Layer):
    """The simple recurrent network, Elman 1990: h' = φ(W x + U h + b), φ = tanh or relu.

    h is called a in lectures. With relu it is the IRNN of Le et al. 2015, whose training starts
    with the identity as U.
    """

    def __init__(
        self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, *, nonlinearity: str
    ) -> None:
        """Merge the biases."""
        super().__init__(w_ih, w_hh, b_ih + b_hh)
        self._relu = nonlinearity == "relu"

    def _cell(self, state: LayerState, product: Callable[[], Any]) -> Callable[[Array], None]:
        work, h, relu = state.work, state.h, self._relu

        def advance(z: Array) -> None:
            product()
            np.add(work, z, work)
            if relu:
                np.maximum(work, 0, out=h)
            else:
                np.tanh(work, h)

        return advance


def build_layer(config: ModelConfig, arrays: Sequence[Array]) -> Layer:
    """Return the layer of the config's cell.

    Args:
        config: the shape of the network.
        arrays: w_ih, w_hh, b_ih, b_hh, and the peepholes where the cell has them.
    """
    if config.cell == "rnn":
        return RNNLayer(*arrays, nonlinearity=config.nonlinearity)
    layers: dict[str, type[Layer]] = {
        "lstm": LSTMLayer,
        "peephole-lstm": PeepholeLSTMLayer,
        "gru": GRULayer,
        "gru-simple": SimpleGRULayer,
    }
    return layers[config.cell](*arrays)
