"""How fast this machine trains, measured in a moment before the settings are chosen."""

from __future__ import annotations

import time

import numpy as np
import torch

from charrnn.batches import Window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.network import CharNetwork
from charrnn.training.evaluate import window_loss
from charrnn.training.machine import choose_device, choose_dtype
from charrnn.training.memory import keep_freed_memory
from charrnn.training.optimizers import build_optimizers

LANES, WINDOW = 16, 64
MEASURED_S = 0.5
WARMUP_STEPS = 2


def measure_speed(device: str, dtype: str) -> float:
    """Return the characters a second that an LSTM layer of 256 units trains on, all included.

    Args:
        device: as in `TrainingConfig`.
        dtype: as in `TrainingConfig`.

    Raises:
        ConfigError: there is no such device here.
    """
    keep_freed_memory()
    place = choose_device(device)
    network = CharNetwork(ModelConfig(vocab_size=67, hidden_size=256, embedding_size=32)).to(place)
    optimizers = build_optimizers(network, TrainingConfig())
    if dtype == "auto":
        dtype = choose_dtype(place, network.config.hidden_size)
    ids = np.zeros((LANES, WINDOW), np.int64)
    window = Window(ids, ids, np.zeros(LANES, np.float32), ids.size)
    state = network.initial_state(LANES)
    steps, started = -WARMUP_STEPS, time.perf_counter()
    while steps < 1 or time.perf_counter() - started < MEASURED_S:
        if steps == 0:
            _finish(place)
            started = time.perf_counter()
        loss, _ = window_loss(network, window, state, place, dtype)
        torch.autograd.backward(loss / window.n_targets)
        for optimizer in optimizers:
            optimizer.step()
        steps += 1
    _finish(place)
    return steps * ids.size / (time.perf_counter() - started)


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
