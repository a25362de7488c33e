"""What the time loops of our own share: precision, products, and the gradients of the weights.

torch has a fused kernel for the LSTM on the CPU, but not for the GRU, whose every step is put
together from a dozen differentiable pieces, and none for the peephole LSTM and the simple GRU. Here
the backward pass is written out instead: all gradients of a step are the gradients of its output
and of its memory cell times something known from the forward pass, which is computed for the whole
window at once, so that a step backwards is a few element-wise operations and one product.
`benchmarks/training.py` measures them beside torch's.

Products are computed in autocast's precision where it is enabled, everything else and the state in
the precision of the weights. The equations are in the notation of lectures, as in
`charrnn/engine/cells.py`; names in the code are torch's.

Shapes: T characters, B batch rows, N = T·B, I inputs, H hidden units, G·H stacked gate rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

sigmoid_backward = torch.ops.aten.sigmoid_backward.default  # grad · y (1 - y)
tanh_backward = torch.ops.aten.tanh_backward.default  # grad · (1 - y²)


def precisions(x: Tensor, weight: Tensor) -> tuple[torch.dtype, AbstractContextManager[object]]:
    """Return the type of the products, and the context in which nothing is cast by itself."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return weight.dtype, nullcontext()
    is_enabled = torch.is_autocast_enabled(device)
    fast = torch.get_autocast_dtype(device) if is_enabled else weight.dtype
    return fast, torch.autocast(device, enabled=False)


def projected(x_TBI: Tensor, w_ih: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs `[N, I]` in the precision of `w_ih`, and W x + b `[T, B, G·H]`."""
    t, b, _ = x_TBI.shape
    x_NI = x_TBI.flatten(0, 1).to(w_ih.dtype)
    return x_NI, torch.addmm(bias.to(w_ih.dtype), x_NI, w_ih.t()).view(t, b, w_ih.shape[0])


def weight_gradients(
    ctx: Any, dz_TBG: Tensor, x_NI: Tensor, w_ih: Tensor, h_TBH: Tensor, exact: torch.dtype
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, w_ih, w_hh, b_ih and b_hh from that of W x + U h + b + b'.

    `h_TBH` are the hidden states before and after each character, `[T + 1, B, H]`.
    """
    t, b, _ = dz_TBG.shape
    dz_NG = dz_TBG.flatten(0, 1)
    dx = (dz_NG @ w_ih).view(t, b, w_ih.shape[1]) if ctx.needs_input_grad[0] else None
    bias = (dz_NG.new_ones(1, t * b) @ dz_NG)[0].to(exact)
    recurrent = dz_NG.t() @ h_TBH[:-1].flatten(0, 1)
    return dx, (dz_NG.t() @ x_NI).to(exact), recurrent.to(exact), bias, bias


def product(weight: Tensor, rows: int) -> Callable[[Tensor, Tensor], Tensor]:
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
