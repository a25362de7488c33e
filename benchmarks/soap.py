"""SOAP, Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024), for ablations.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

BETAS = 0.95, 0.95
"""Of the mean of the gradients, and of everything that is squared."""
EPSILON = 1e-8
TURN_EVERY = 10
"""Steps between two turns of the basis, by one iteration of the power method."""


class Soap(torch.optim.Optimizer):
    """For the square blocks of a recurrent layer, `[n·H, H]`, each treated alone.

    Args:
        parameters: the matrices.
        lr: the step of an entry in the eigenbasis, about.
        weight_decay: decoupled, times the learning rate.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        """Keep the settings."""
        super().__init__(parameters, {"lr": lr, "peak_lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all matrices by their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                size = parameter.shape[1]
                direction = self._direction(
                    self.state[parameter], parameter.grad.view(-1, size, size)
                )
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.reshape(parameter.shape), alpha=-group["lr"])

    def _direction(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        """Return the update of the blocks `[n, H, H]`; nothing in the first step."""
        mean_beta, square_beta = BETAS
        left, right = gradient @ gradient.mT, gradient.mT @ gradient
        if not state:
            state.update(step=0, left=left, right=right)
            state.update(mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
            state["turn_left"] = torch.linalg.eigh(left).eigenvectors
            state["turn_right"] = torch.linalg.eigh(right).eigenvectors
            return torch.zeros_like(gradient)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - mean_beta)
        turn_left, turn_right = state["turn_left"], state["turn_right"]
        turned = turn_left.mT @ gradient @ turn_right
        state["square"].mul_(square_beta).addcmul_(turned, turned, value=1 - square_beta)
        mean = turn_left.mT @ state["mean"] @ turn_right / (1 - mean_beta ** state["step"])
        square = state["square"] / (1 - square_beta ** state["step"])
        direction: Tensor = turn_left @ (mean / (square.sqrt() + EPSILON)) @ turn_right.mT
        state["left"].lerp_(left, 1 - square_beta)
        state["right"].lerp_(right, 1 - square_beta)
        if state["step"] % TURN_EVERY == 0:
            for side in ("left", "right"):
                turn = state[f"turn_{side}"]
                state[f"turn_{side}"] = torch.linalg.qr(state[side] @ turn).Q
        return direction
