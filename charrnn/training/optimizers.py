"""Which optimiser updates which weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from charrnn.config import TrainingConfig
from charrnn.models.network import CharNetwork
from charrnn.training.muon import Muon

MATRIX_RATE = 3.0
"""Muon's learning rate as a multiple of AdamW's."""
ADAM_BETAS = (0.9, 0.99)


def build_optimizers(network: CharNetwork, training: TrainingConfig) -> list[Optimizer]:
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
        elif training.optimizer == "muon" and name.startswith("layers.") and _is_inner(name):
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
    return "weight_hh" in name or ("weight_ih" in name and not name.startswith("layers.0."))
