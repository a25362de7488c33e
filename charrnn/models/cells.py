"""The GRU over a window of characters on the CPU, forward and backward.

torch has a fused kernel for the LSTM on the CPU, but not for the GRU, whose every step is put
together from a dozen differentiable pieces. Here the backward pass is written out instead: all
gradients of a step are the gradient of its output times something known from the forward pass,
which is computed for the whole window at once, so that a step backwards is two element-wise
operations and one product. `benchmarks/training.py` compares the two.

Shapes: T characters, B batch rows, I inputs, H hidden units; gates in torch's order r, u, n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_sigmoid_backward = torch.ops.aten.sigmoid_backward.default  # grad · y (1 - y)
_tanh_backward = torch.ops.aten.tanh_backward.default  # grad · (1 - y²)


def gru(
    x_TBI: Tensor, h_BH: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the hidden states `[T, B, H]` and the last of them `[B, H]`.

    Gated recurrent unit, Cho et al. 2014, with the reset gate after the product (cuDNN, torch):

        r = σ(W_r x + b_r + U_r h + b'_r)      u = σ(W_u x + b_u + U_u h + b'_u)
        q = U_n h + b'_n                       n = tanh(W_n x + b_n + r ∘ q)
        h' = (1 - u) ∘ n + u ∘ h

    Products are computed in autocast's precision where it is enabled, everything else and the
    state in the precision of the weights.

    Args:
        x_TBI: inputs.
        h_BH: state before the first character.
        w_ih: [W_r W_u W_n] `[3H, I]`.
        w_hh: [U_r U_u U_n] `[3H, H]`.
        b_ih: `[3H]`.
        b_hh: b' `[3H]`.
    """
    fast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else w_hh.dtype
    with torch.autocast("cpu", enabled=False):
        hidden, last = _GRU.apply(x_TBI, h_BH, w_ih, w_hh, b_ih, b_hh, fast)  # type: ignore[no-untyped-call]
    return hidden, last


class _GRU(torch.autograd.Function):
    """The window, differentiable with respect to everything but the gradient itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TBI: Tensor,
        h_BH: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        fast: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        (t, b, _), h = x_TBI.shape, w_hh.shape[1]
        exact = w_hh.dtype
        x_NI = x_TBI.reshape(t * b, -1).to(fast)
        w_ih, w_hh = w_ih.to(fast), w_hh.to(fast)
        z_TBG = torch.addmm(b_ih.to(fast), x_NI, w_ih.t()).view(t, b, 3 * h)
        zn_TBH = z_TBG[..., 2 * h :].to(exact, copy=True)
        z_TBG[..., 2 * h :] = 0
        z_TBG += b_hh.to(fast)
        gates_TBG = x_TBI.new_empty(t, b, 3 * h, dtype=exact)  # r, u and q
        n_TBH = torch.empty_like(zn_TBH)
        h_TBH = x_TBI.new_empty(t + 1, b, h, dtype=exact)
        h_TBH[0] = h_BH
        fast_TBH = h_TBH if fast == exact else torch.empty_like(h_TBH, dtype=fast)
        fast_TBH[0] = h_BH
        recurrent = _product(w_hh, b)
        states, fast_states = h_TBH.unbind(), fast_TBH.unbind()
        views = [z_TBG, zn_TBH, gates_TBG, gates_TBG[..., : 2 * h], *gates_TBG.chunk(3, 2), n_TBH]
        steps = zip(
            *(view.unbind() for view in views),
            *(states, fast_states, states[1:], fast_states[1:]),
            strict=False,
        )
        for z, zn, gates, ru, r, u, q, n, before, fast_before, after, fast_after in steps:
            gates.copy_(recurrent(fast_before, z))
            ru.sigmoid_()
            torch.addcmul(zn, r, q, out=n).tanh_()
            torch.lerp(n, before, u, out=after)
            if fast != exact:
                fast_after.copy_(after)
        ctx.save_for_backward(x_NI, w_ih, w_hh, gates_TBG, n_TBH, h_TBH, fast_TBH)
        return fast_TBH[1:].clone(), h_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, w_ih, w_hh, gates_TBG, n_TBH, h_TBH, fast_TBH = ctx.saved_tensors
        t, b, h = n_TBH.shape
        exact, fast = n_TBH.dtype, w_hh.dtype
        dz_TBG = torch.empty_like(gates_TBG, dtype=fast)  # of r, u and q before the σ
        factors_TBG, for_n_TBH = _factors(gates_TBG, n_TBH, h_TBH[:-1], fast)
        u_TBH = gates_TBG[..., h : 2 * h].to(fast)
        from_output = [torch.zeros_like(u_TBH[0]), *gradients[0].to(fast).unbind()]
        product = _product(w_hh.t().contiguous(), b)
        dh = from_output.pop() + gradients[1].to(fast)
        dhs = [dh]
        views = [factors_TBG.view(t, b, 3, h), dz_TBG.view(t, b, 3, h), dz_TBG, u_TBH]
        steps = zip(*(view.unbind() for view in views), from_output, strict=True)
        for factors, dz_gates, dz, u, before in reversed(list(steps)):
            torch.mul(factors, dh.unsqueeze(1), out=dz_gates)
            dh = product(dz, torch.addcmul(before, dh, u))
            dhs.append(dh)
        dn_TBH = for_n_TBH.mul_(torch.stack(dhs[-2::-1]))  # of n before the tanh
        dz_NG, dn_NH = dz_TBG.view(t * b, -1), dn_TBH.view(t * b, -1)
        ones = dz_NG.new_ones(1, t * b)
        db_hh = ones @ dz_NG
        dw_hh = dz_NG.t() @ fast_TBH[:-1].reshape(t * b, h)
        dz_NG[:, 2 * h :] = dn_NH  # the input reaches n directly, the state through q
        db_ih = ones @ dz_NG
        dw_ih = dz_NG.t() @ x_NI
        dx = (dz_NG @ w_ih).view(t, b, -1) if ctx.needs_input_grad[0] else None
        weights = [g.to(exact) for g in (dw_ih, dw_hh, db_ih[0], db_hh[0])]
        return (dx, dh.to(exact), *weights, None)


def _factors(
    gates_TBG: Tensor, n_TBH: Tensor, before_TBH: Tensor, fast: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return what the gradient of h' is multiplied by to give those of (r, u, q), and of n.

    All of them before the activation: `[T, B, 3H]` and `[T, B, H]`, in precision `fast`.
    """
    r, u, q = gates_TBG.chunk(3, 2)
    factors_TBG = torch.empty_like(gates_TBG, dtype=fast)
    for_r, for_u, for_q = factors_TBG.chunk(3, 2)
    for_n = _tanh_backward(1 - u, n_TBH)
    for_u.copy_(_sigmoid_backward(before_TBH - n_TBH, u))
    for_r.copy_(_sigmoid_backward(for_n * q, r))
    for_q.copy_(for_n * r)
    return factors_TBG, for_n.to(fast)


def _product(weight: Tensor, rows: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function `(x, y) → y + x W^T` for x of `rows` rows.

    In bfloat16 the weights are packed once into the layout that oneDNN multiplies fastest, which
    halves the time of a product of few rows.
    """
    packing = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    if weight.dtype == torch.bfloat16 and packing is not None:
        packed = packing(weight, rows)
        multiply = torch.ops.mkldnn._linear_pointwise.binary
        return lambda x, y: multiply(x, y, packed, None, "add")
    transposed = weight.t()
    return lambda x, y: torch.addmm(y, x, transposed)
