"""Whether a device can do all that a run asks of it, found out by a step before the run.

A backend of torch may lack an operator, which shows only when that is called. With
PYTORCH_ENABLE_MPS_FALLBACK=1 torch lends MPS those of the CPU, and nothing is lacking.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from charrnn.batches.windows import IGNORE, Window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.errors import ConfigError
from charrnn.models.device import choose_device, lacking_operator
from charrnn.models.network import CharNetwork, Ensemble
from charrnn.training.loss import measure, window_loss
from charrnn.training.optimizers import build_optimizers

COMPLETE = {"cpu", "cuda"}
"""Devices that lack nothing."""


def usable_device(model: ModelConfig, training: TrainingConfig) -> tuple[str, str]:
    """Return where to train: the device asked for, or the CPU where `auto` finds one that cannot.

    Args:
        model: the cell, and whether there is an embedding; the size does not matter.
        training: the device and the optimiser.

    Returns:
        The device as a setting, and the operator that is lacking on the one that was passed over.

    Raises:
        ConfigError: the device asked for by name is not here, or lacks an operator, or the
            precision.
    """
    device = choose_device(training.device)
    if device.type == "cpu" and training.dtype == "float16":
        raise ConfigError(
            "float16 is for GPUs: use bfloat16 or float32 on the CPU, or leave it to auto",
            field="dtype",
        )
    if device.type in COMPLETE:
        return training.device, ""
    try:
        _take_step(model, training, device)
    except NotImplementedError as error:
        operator = lacking_operator(error)
        if training.device == "auto":
            return "cpu", operator
        raise ConfigError(
            f"{training.device} lacks {operator}, which training needs: use cpu or auto, or let "
            "torch compute it on the CPU with PYTORCH_ENABLE_MPS_FALLBACK=1",
            field="device",
        ) from None
    return training.device, ""


def _take_step(model: ModelConfig, training: TrainingConfig, device: torch.device) -> None:
    """Train a tiny network of this kind on a window, with every kind of dropout, and measure it."""
    shape = ModelConfig(
        vocab_size=4,
        cell=model.cell,
        nonlinearity=model.nonlinearity,
        hidden_size=4,
        num_layers=2,
        embedding_size=min(model.embedding_size, 4),
    )
    network = CharNetwork(shape, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5).to(device)
    optimizers = build_optimizers(network, training)
    ids = np.array([[1, 2, IGNORE], [2, 3, 3]])
    window = Window(abs(ids), ids, np.array([0, 1], np.float32), 5, np.array([1, 0]))
    parameters = list(network.parameters())
    loss, _ = window_loss(network, window, network.initial_state(2), device, "float32")
    torch.autograd.backward(loss / window.n_targets)
    nn.utils.clip_grad_value_(parameters, 1.0)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
    first = window._replace(keep_B=np.zeros(2, np.float32), rows_B=None)
    ensemble = Ensemble([network, network])
    measure(ensemble, [first, window], device, "float32", temperature=None)
