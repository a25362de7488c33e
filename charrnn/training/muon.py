"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

The update of a matrix is replaced by the nearest matrix whose singular values are all about 1,
found by a few Newton-Schulz iterations, so that every direction of the matrix learns at the same
speed. For recurrent weights on small data this is worth far more than its cost: docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives singular values towards 1 (Jordan et al. 2024)."""
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum SGD with orthogonalised updates, for matrices made of square blocks.

    Args:
        parameters: matrices `[n·H, H]`; each block `[H, H]`, one gate's weights, is treated alone.
        lr: step, as the spectral norm of the update of a block.
        momentum: share of the old mean of the gradients kept at each step; Nesterov's form.
        weight_decay: decoupled, times the learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        """Keep the settings."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all matrices by their gradients."""
        assert closure is None
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            if not used:
                continue
            updates = [self._momentum(p, group["momentum"]) for p in used]
            size = used[0].shape[1]
            blocks = torch.cat(updates).view(-1, size, size)
            directions = torch.split(orthogonalise(blocks).view(-1, size), [len(p) for p in used])
            for parameter, direction in zip(used, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Return the gradient mixed with the running mean of the gradients."""
        state: dict[str, Any] = self.state[parameter]
        assert parameter.grad is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonalise(blocks: Tensor) -> Tensor:
    """Return about U V^T for each block U S V^T, `[n, H, H]`, in float32.

    One iteration is x ← a x + (b G + c G²) x with G = x x^T.

    The products run in bfloat16 where the processor has it: the iteration forgives rounding.
    """
    a, b, c = COEFFICIENTS
    fast = blocks.device.type == "cuda" or (
        blocks.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    x = blocks.to(torch.bfloat16 if fast else torch.float32)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.float()
    return result
