"""The GRU, and the simple one without reset gate, over a window: see `loops` for the idea.

Shapes: T characters, B batch rows, I inputs, H hidden units; gates in torch's order r, z, n, of
which `kept`, z, is the share of the old state that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from charrnn.models.loops import (
    precisions,
    product,
    projected,
    sigmoid_backward,
    tanh_backward,
    weight_gradients,
)


def gru(
    x_TBI: Tensor, h_BH: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the hidden states `[T, B, H]` and the last of them `[B, H]`.

    Gated recurrent unit, Cho et al. 2014, with the reset gate after the product (cuDNN, torch):

        Γr = σ(W_r x + b_r + U_r c + b'_r)               r
        Γu = σ(W_u x + b_u + U_u c + b'_u)               1 - z
        c̃  = tanh(W_c x + b_c + Γr ∘ q), q = U_c c + b'_c    n
        c' = Γu ∘ c̃ + (1 - Γu) ∘ c                       h

    Args:
        x_TBI: inputs.
        h_BH: state before the first character.
        w_ih: [W_r W_z W_n] `[3H, I]`; those of z are those of Γu with the other sign.
        w_hh: [U_r U_z U_n] `[3H, H]`.
        b_ih: b `[3H]`.
        b_hh: b' `[3H]`.
    """
    fast, exactly = precisions(x_TBI, w_hh)
    with exactly:
        hidden, last = _GRU.apply(x_TBI, h_BH, w_ih, w_hh, b_ih, b_hh, fast)  # type: ignore[no-untyped-call]
    return hidden, last


def simple_gru(
    x_TBI: Tensor, h_BH: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the hidden states `[T, B, H]` and the last of them `[B, H]`.

    The GRU without reset gate, as lectures begin with it:

        Γu = σ(W_u x + U_u c + b_u)        1 - z
        c̃  = tanh(W_c x + U_c c + b_c)     n
        c' = Γu ∘ c̃ + (1 - Γu) ∘ c         h

    Args:
        x_TBI: inputs.
        h_BH: state before the first character.
        w_ih: [W_z W_n] `[2H, I]`; those of z are those of Γu with the other sign.
        w_hh: [U_z U_n] `[2H, H]`.
        b_ih: `[2H]`, half of the bias: the sum of both is b.
        b_hh: `[2H]`.
    """
    fast, exactly = precisions(x_TBI, w_hh)
    with exactly:
        hidden, last = _SimpleGRU.apply(x_TBI, h_BH, w_ih, w_hh, b_ih, b_hh, fast)  # type: ignore[no-untyped-call]
    return hidden, last


def _states(h_BH: Tensor, t: int, exact: torch.dtype, fast: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return room for the states before and after `t` characters `[t + 1, B, H]`, exact and as the
    products want them, which may be the same; the first is `h_BH`."""
    h_TBH = h_BH.new_empty(t + 1, *h_BH.shape, dtype=exact)
    h_TBH[0] = h_BH
    if fast == exact:
        return h_TBH, h_TBH
    fast_TBH = torch.empty_like(h_TBH, dtype=fast)
    fast_TBH[0] = h_BH
    return h_TBH, fast_TBH


def _through_time(
    factors_TBG: Tensor,
    kept_TBH: Tensor,
    gradients: Sequence[Tensor],
    w_hh: Tensor,
    dz_TBG: Tensor,
) -> list[Tensor]:
    """Fill `dz_TBG`, and return the gradients of the states `[B, H]`, from the last to the first.

    Args:
        factors_TBG: what the gradient of a state is multiplied by to give those of the gates.
        kept_TBH: z, the share of the state before that is kept.
        gradients: of the hidden states `[T, B, H]` and of the last of them.
        w_hh: `[G·H, H]`.
        dz_TBG: of what goes into the gates.
    """
    (t, b, h), fast = kept_TBH.shape, w_hh.dtype
    from_output = [torch.zeros_like(kept_TBH[0]), *gradients[0].to(fast).unbind()]
    backwards = product(w_hh.t().contiguous(), b)
    dhs = [from_output.pop() + gradients[1].to(fast)]
    by_gate = (t, b, factors_TBG.shape[2] // h, h)
    views = [factors_TBG.view(by_gate), dz_TBG.view(by_gate), dz_TBG, kept_TBH]
    steps = zip(*(view.unbind() for view in views), from_output, strict=True)
    for factors, dz_gates, dz, kept, before in reversed(list(steps)):
        torch.mul(factors, dhs[-1].unsqueeze(1), out=dz_gates)
        dhs.append(backwards(dz, torch.addcmul(before, dhs[-1], kept)))
    return dhs


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
        w_ih, w_hh = w_ih.to(fast), w_hh.to(fast)
        x_NI, z_TBG = projected(x_TBI, w_ih, b_ih)
        zn_TBH = z_TBG[..., 2 * h :].to(exact, copy=True)
        z_TBG[..., 2 * h :] = 0
        z_TBG += b_hh.to(fast)
        gates_TBG = x_TBI.new_empty(t, b, 3 * h, dtype=exact)  # r, z and q
        n_TBH = torch.empty_like(zn_TBH)
        h_TBH, fast_TBH = _states(h_BH, t, exact, fast)
        recurrent = product(w_hh, b)
        states, fast_states = h_TBH.unbind(), fast_TBH.unbind()
        views = [z_TBG, zn_TBH, gates_TBG, gates_TBG[..., : 2 * h], *gates_TBG.chunk(3, 2), n_TBH]
        steps = zip(
            *(view.unbind() for view in views),
            *(states, fast_states, states[1:], fast_states[1:]),
            strict=False,
        )
        for z, zn, gates, rz, r, kept, q, n, before, fast_before, after, fast_after in steps:
            gates.copy_(recurrent(fast_before, z))
            rz.sigmoid_()
            torch.addcmul(zn, r, q, out=n).tanh_()
            torch.lerp(n, before, kept, out=after)
            if fast != exact:
                fast_after.copy_(after)
        ctx.save_for_backward(x_NI, w_ih, w_hh, gates_TBG, n_TBH, h_TBH, fast_TBH)
        return fast_TBH[1:].clone(), h_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, w_ih, w_hh, gates_TBG, n_TBH, h_TBH, fast_TBH = ctx.saved_tensors
        t, b, h = n_TBH.shape
        exact, fast = n_TBH.dtype, w_hh.dtype
        dz_TBG = torch.empty_like(gates_TBG, dtype=fast)  # of r, z and q before the σ
        factors_TBG, for_n_TBH = _factors(gates_TBG, n_TBH, h_TBH[:-1], fast)
        kept_TBH = gates_TBG[..., h : 2 * h].to(fast)
        dhs = _through_time(factors_TBG, kept_TBH, gradients, w_hh, dz_TBG)
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
        return (dx, dhs[-1].to(exact), *weights, None)


def _factors(
    gates_TBG: Tensor, n_TBH: Tensor, before_TBH: Tensor, fast: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return what the gradient of h' is multiplied by to give those of (r, z, q), and of n.

    All of them before the activation: `[T, B, 3H]` and `[T, B, H]`, in precision `fast`.
    """
    r, kept, q = gates_TBG.chunk(3, 2)
    factors_TBG = torch.empty_like(gates_TBG, dtype=fast)
    for_r, for_kept, for_q = factors_TBG.chunk(3, 2)
    for_n = tanh_backward(1 - kept, n_TBH)
    for_kept.copy_(sigmoid_backward(before_TBH - n_TBH, kept))
    for_r.copy_(sigmoid_backward(for_n * q, r))
    for_q.copy_(for_n * r)
    return factors_TBG, for_n.to(fast)


class _SimpleGRU(torch.autograd.Function):
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
        w_ih, w_hh = w_ih.to(fast), w_hh.to(fast)
        x_NI, z_TBG = projected(x_TBI, w_ih, b_ih + b_hh)
        gates_TBG = x_TBI.new_empty(t, b, 2 * h, dtype=exact)  # z and n
        h_TBH, fast_TBH = _states(h_BH, t, exact, fast)
        recurrent = product(w_hh, b)
        states, fast_states = h_TBH.unbind(), fast_TBH.unbind()
        views = [z_TBG, gates_TBG, *gates_TBG.chunk(2, 2)]
        steps = zip(
            *(view.unbind() for view in views),
            *(states, fast_states, states[1:], fast_states[1:]),
            strict=False,
        )
        for z, gates, kept, n, before, fast_before, after, fast_after in steps:
            gates.copy_(recurrent(fast_before, z))
            kept.sigmoid_()
            n.tanh_()
            torch.lerp(n, before, kept, out=after)
            if fast != exact:
                fast_after.copy_(after)
        ctx.save_for_backward(x_NI, w_ih, w_hh, gates_TBG, h_TBH, fast_TBH)
        return fast_TBH[1:].clone(), h_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, w_ih, w_hh, gates_TBG, h_TBH, fast_TBH = ctx.saved_tensors
        h, exact, fast = w_hh.shape[1], gates_TBG.dtype, w_hh.dtype
        kept_TBH, n_TBH = gates_TBG.chunk(2, 2)
        # what the gradient of h' is multiplied by to give those of z and n before the activation
        factors_TBG = torch.empty_like(gates_TBG, dtype=fast)
        factors_TBG[..., :h] = sigmoid_backward(h_TBH[:-1] - n_TBH, kept_TBH)
        factors_TBG[..., h:] = tanh_backward(1 - kept_TBH, n_TBH)
        dz_TBG = torch.empty_like(factors_TBG)
        kept_TBH = kept_TBH.to(fast)
        dh = _through_time(factors_TBG, kept_TBH, gradients, w_hh, dz_TBG)[-1]
        dx, *weights = weight_gradients(ctx, dz_TBG, x_NI, w_ih, fast_TBH, exact)
        return (dx, dh.to(exact), *weights, None)
