"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

The update of a matrix is replaced by the nearest matrix whose singular values are all about 1,
found by a few Newton-Schulz iterations, so that every direction of the matrix learns at the same
speed. For recurrent weights on small data this is worth far more than its cost: docs/recipes.md.

That cost would still be more than that of the gradients where matrices are as large as windows are
long. But the momentum is a mean of some twenty steps, so a direction serves for several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives singular values towards 1 (Jordan et al. 2024)."""
ITERATIONS = 4
RENEWED_EVERY = 4
"""Steps for which a direction serves."""


class Muon(torch.optim.Optimizer):
    """Momentum SGD with orthogonalised updates, for matrices made of square blocks.

    Args:
        parameters: matrices `[n·H, H]`; each block `[H, H]`, one gate's weights, is treated alone.
        lr: step, as the spectral norm of the update of a block.
        momentum: share of the old mean of the gradients kept at each step; Nesterov's form.
        weight_decay: decoupled, times the learning rate.
        renewed_every: steps that follow a direction before the next is taken from the momentum.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        renewed_every: int = RENEWED_EVERY,
    ) -> None:
        """Keep the settings."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.renewed_every = renewed_every
        self.steps = 0
        """Steps taken; not part of `state`, whose arrays may be on a device."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all matrices, each of which must have a gradient."""
        assert closure is None
        is_due = self.steps % self.renewed_every == 0
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                self._average(parameter, group["momentum"])
            if is_due:
                self._renew(group["params"], group["momentum"])
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(self.state[parameter]["direction"], alpha=-group["lr"])

    def _average(self, parameter: Tensor, momentum: float) -> None:
        """Take the gradient into the running mean of the gradients."""
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)

    def _renew(self, parameters: list[Tensor], momentum: float) -> None:
        """Take new directions from the gradients mixed with their running means."""
        size = parameters[0].shape[1]
        mixed = [p.grad.lerp(self.state[p]["momentum"], momentum) for p in parameters]  # type: ignore[union-attr]
        directions = orthogonalise(torch.cat(mixed).view(-1, size, size)).view(-1, size)
        rows = [len(p) for p in parameters]
        for parameter, direction in zip(parameters, torch.split(directions, rows), strict=True):
            self.state[parameter]["direction"] = direction


def orthogonalise(blocks: Tensor) -> Tensor:
    """Return about U V^T for each block U S V^T, `[n, H, H]`, in float32.

    One iteration is x ← a x + (b G + c G²) x with G = x x^T, which wants singular values of at most
    1, and not much less. The largest one is at most the root of the Frobenius norm of G, a bound
    far closer than the Frobenius norm of x.

    The products run in bfloat16 where the processor has it: the iteration forgives rounding.
    """
    a, b, c = COEFFICIENTS
    fast = blocks.device.type == "cuda" or (
        blocks.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    x = blocks / (torch.linalg.matrix_norm(blocks, keepdim=True) + 1e-30)
    x = x.to(torch.bfloat16 if fast else torch.float32)
    gram = torch.bmm(x, x.mT)
    bound = torch.linalg.matrix_norm(gram, keepdim=True) + 1e-7
    x, gram = x / bound.sqrt(), gram / bound
    for k in range(ITERATIONS):
        if k:
            gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.float()
    return result
