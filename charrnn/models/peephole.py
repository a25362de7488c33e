"""The LSTM with peepholes over a window: see `loops` for the idea.

Shapes: T characters, B batch rows, I inputs, H hidden units; gates in torch's order i, f, g, o.
"""

from __future__ import annotations

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


def peephole_lstm(
    x_TBI: Tensor,
    h_BH: Tensor,
    c_BH: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    peephole: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the hidden states `[T, B, H]`, the last of them, and the last memory cell `[B, H]`.

    The LSTM with peepholes, Gers & Schmidhuber 2000:

        Γu = σ(W_u x + U_u h + p_u ∘ c + b_u)      i
        Γf = σ(W_f x + U_f h + p_f ∘ c + b_f)      f
        c̃  = tanh(W_c x + U_c h + b_c)             g
        c' = Γu ∘ c̃ + Γf ∘ c
        Γo = σ(W_o x + U_o h + p_o ∘ c' + b_o)     o
        h' = Γo ∘ tanh(c')

    Args:
        x_TBI: inputs.
        h_BH: hidden state before the first character.
        c_BH: memory cell before the first character.
        w_ih: [W_i W_f W_g W_o] `[4H, I]`.
        w_hh: [U_i U_f U_g U_o] `[4H, H]`.
        b_ih: `[4H]`, half of the bias: the sum of both is b.
        b_hh: `[4H]`.
        peephole: [p_i p_f p_o] `[3H]`.
    """
    fast, exactly = precisions(x_TBI, w_hh)
    with exactly:
        return _PeepholeLSTM.apply(  # type: ignore[no-untyped-call, no-any-return]
            x_TBI, h_BH, c_BH, w_ih, w_hh, b_ih, b_hh, peephole, fast
        )


class _PeepholeLSTM(torch.autograd.Function):
    """The window, differentiable with respect to everything but the gradient itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TBI: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        peephole: Tensor,
        fast: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (t, b, _), h = x_TBI.shape, w_hh.shape[1]
        exact = w_hh.dtype
        w_ih, w_hh = w_ih.to(fast), w_hh.to(fast)
        x_NI, z_TBG = projected(x_TBI, w_ih, b_ih + b_hh)
        gates_TBG = x_TBI.new_empty(t, b, 4 * h, dtype=exact)  # i, f, g and o
        c_TBH = x_TBI.new_empty(t + 1, b, h, dtype=exact)
        c_TBH[0] = c_BH
        squashed_TBH = torch.empty_like(c_TBH[1:])  # tanh(c')
        fast_TBH = torch.empty_like(c_TBH, dtype=fast)
        fast_TBH[0] = h_BH
        recurrent = product(w_hh, b)
        see_if, see_o = peephole[: 2 * h].view(2, h), peephole[2 * h :]
        cells, fast_states = c_TBH.unbind(), fast_TBH.unbind()
        sums_if = gates_TBG[..., : 2 * h]
        views = [z_TBG, gates_TBG, sums_if, sums_if.view(t, b, 2, h)]
        views += [*gates_TBG.chunk(4, 2), squashed_TBH]
        steps = zip(
            *(view.unbind() for view in views),
            *(cells, cells[1:], fast_states, fast_states[1:]),
            strict=False,
        )
        for z, gates, both, apart, i, f, g, o, squashed, c, new_c, before, after in steps:
            gates.copy_(recurrent(before, z))
            apart.addcmul_(c.unsqueeze(1), see_if)
            both.sigmoid_()
            g.tanh_()
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            o.addcmul_(new_c, see_o).sigmoid_()
            torch.tanh(new_c, out=squashed)
            torch.mul(o, squashed, out=after)
        ctx.save_for_backward(x_NI, w_ih, w_hh, peephole, gates_TBG, c_TBH, squashed_TBH, fast_TBH)
        last = gates_TBG[-1, :, 3 * h :] * squashed_TBH[-1]
        return fast_TBH[1:].clone(), last, c_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, w_ih, w_hh, peephole, gates_TBG, c_TBH, squashed_TBH, fast_TBH = ctx.saved_tensors
        t, b, h = squashed_TBH.shape
        exact, fast = gates_TBG.dtype, w_hh.dtype
        i, f, g, o = gates_TBG.chunk(4, 2)
        see_i, see_f, see_o = peephole.chunk(3)
        # the gradient of o before the σ is that of h' times `for_o`; those of i, f and g, and of c,
        # are that of c' times the others; and that of h' reaches c' times `to_cell`
        factors_TBG = torch.empty_like(gates_TBG, dtype=fast)
        for_i, for_f = sigmoid_backward(g, i), sigmoid_backward(c_TBH[:-1], f)
        for_o = sigmoid_backward(squashed_TBH, o)
        parts = (for_i, for_f, tanh_backward(i, g), for_o)
        for place, part in zip(factors_TBG.chunk(4, 2), parts, strict=True):
            place.copy_(part)
        to_cell_TBH = tanh_backward(o, squashed_TBH).addcmul_(for_o, see_o).to(fast)
        to_before_TBH = torch.addcmul(f, for_i, see_i).addcmul_(for_f, see_f).to(fast)
        dz_TBG = torch.empty_like(factors_TBG)
        from_output = [torch.zeros_like(to_cell_TBH[0]), *gradients[0].to(fast).unbind()]
        backwards = product(w_hh.t().contiguous(), b)
        dh, dc = from_output.pop() + gradients[1].to(fast), gradients[2].to(fast)
        by_gate, dz_by_gate = factors_TBG.view(t, b, 4, h), dz_TBG.view(t, b, 4, h)
        views = [by_gate[:, :, :3], by_gate[:, :, 3], to_cell_TBH, to_before_TBH]
        views += [dz_by_gate[:, :, :3], dz_by_gate[:, :, 3], dz_TBG]
        steps = zip(*(view.unbind() for view in views), from_output, strict=True)
        for for_ifg, for_o, to_cell, to_before, dz_ifg, dz_o, dz, before in reversed(list(steps)):
            dc = torch.addcmul(dc, dh, to_cell)
            torch.mul(for_ifg, dc.unsqueeze(1), out=dz_ifg)
            torch.mul(for_o, dh, out=dz_o)
            dh = backwards(dz, before)
            dc = dc * to_before
        dz_i, dz_f, _, dz_o = dz_TBG.chunk(4, 2)
        seen = ((dz_i, c_TBH[:-1]), (dz_f, c_TBH[:-1]), (dz_o, c_TBH[1:]))
        dp = torch.cat([(dz * c).sum((0, 1)) for dz, c in seen])
        dx, *weights = weight_gradients(ctx, dz_TBG, x_NI, w_ih, fast_TBH, exact)
        return (dx, dh.to(exact), dc.to(exact), *weights, dp, None)
