"""Muon, and which optimiser updates which weights.

Muon is momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024): the
update of a matrix is replaced by the nearest matrix whose singular values are all about 1, found by
a few Newton-Schulz iterations, so that every direction of the matrix learns at the same speed. For
recurrent weights on small data this is worth far more than its cost: docs/recipes.md.

That cost would still be more than that of the gradients where matrices are as large as windows are
long. But the momentum is a mean of some twenty steps, so an orthogonalised update is used again for
the next few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from charrnn.config import TrainingConfig
from charrnn.models.network import Member
from charrnn.training.system import multiplies_bfloat16

MATRIX_RATE = 3.0
"""Muon's learning rate as a multiple of AdamW's."""
ADAM_BETAS = (0.9, 0.99)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives singular values towards 1 (Jordan et al. 2024)."""
ITERATIONS = 4
RENEWED_EVERY = 4
"""Steps after which the orthogonalised update is recomputed."""


def build_optimizers(network: Member, training: TrainingConfig) -> list[Optimizer]:
    """Return the optimisers of a network.

    With `muon`, the square blocks of the recurrent layers (recurrent weights, and the input weights
    of the layers above the first) are Muon's, and embedding, first input weights, output and
    biases AdamW's (Loshchilov & Hutter 2019); with `adamw` all are AdamW's. Weight decay acts on
    matrices only. Each group keeps its peak learning rate as `peak_lr`.
    """
    hidden = network.config.hidden_size
    blocks: list[Tensor] = []
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif training.optimizer == "muon" and "layers." in name and _is_inner(name):
            assert parameter.shape[1] == hidden
            blocks.append(parameter)
        else:
            matrices.append(parameter)
    rate, decay = training.learning_rate, training.weight_decay
    adam = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=rate,
        betas=ADAM_BETAS,
        fused=True,
    )
    optimizers: list[Optimizer] = [adam]
    if blocks:
        optimizers.append(Muon(blocks, lr=MATRIX_RATE * rate, weight_decay=decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _is_inner(name: str) -> bool:
    """Say whether a layer's matrix multiplies hidden units, not the characters' embedding."""
    return "weight_hh" in name or ("weight_ih" in name and "layers.0." not in name)


class Muon(Optimizer):
    """Momentum SGD with orthogonalised updates, for matrices made of square blocks.

    Args:
        parameters: matrices `[n·H, H]`; each block `[H, H]`, one gate's weights, is treated alone.
        lr: step, as the spectral norm of the update of a block.
        momentum: share of the old mean of the gradients kept at each step; Nesterov's form.
        weight_decay: decoupled, times the learning rate.
        renewed_every: steps after which the orthogonalised update is recomputed.
    """

    found_inf: Tensor | None = None
    """More than 0 where a gradient is not finite. A `GradScaler` sets it for one step on optimisers
    that say that they support it, instead of waiting for the device."""
    _step_supports_amp_scaling = True

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
            parameters, momentum = group["params"], group["momentum"]
            states: list[dict[str, Any]] = [self.state[p] for p in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                    state["update"] = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in parameters]
            means = [state["momentum"] for state in states]
            if self.found_inf is not None:  # a step that changes nothing
                lost = self.found_inf > 0
                gradients = [
                    torch.where(lost, mean, gradient)
                    for mean, gradient in zip(means, gradients, strict=True)
                ]
            torch._foreach_lerp_(means, gradients, 1 - momentum)
            if is_due:
                mixed = torch._foreach_lerp(gradients, means, momentum)
                for state, update in zip(states, self._orthogonalised(mixed), strict=True):
                    state["update"] = update
            updates: list[Tensor] = [state["update"] for state in states]
            shrinking = group["lr"] * group["weight_decay"]
            if self.found_inf is not None:
                kept = (~lost).to(updates[0].dtype)
                updates = list(torch._foreach_mul(updates, kept))
                torch._foreach_mul_(parameters, 1 - kept * shrinking)
            else:
                torch._foreach_mul_(parameters, 1 - shrinking)
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    @staticmethod
    def _orthogonalised(matrices: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the matrices with all their blocks orthogonalised, in one batch."""
        size = matrices[0].shape[1]
        blocks = orthogonalise(torch.cat(list(matrices)).view(-1, size, size))
        return torch.split(blocks.view(-1, size), [len(matrix) for matrix in matrices])


def orthogonalise(blocks: Tensor) -> Tensor:
    """Return about U V^T for each block U S V^T, `[n, H, H]`, in float32.

    One iteration is x ← a x + (b G + c G²) x with G = x x^T, which wants singular values of at most
    1, and not much less. The largest one is at most the root of the Frobenius norm of G, a bound
    far closer than the Frobenius norm of x.

    The products run in bfloat16 where the processor has it: the iteration forgives rounding.
    """
    a, b, c = COEFFICIENTS
    fast = multiplies_bfloat16(blocks.device)
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
