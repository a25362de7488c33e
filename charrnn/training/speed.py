"""How fast this machine trains, measured in a moment before the settings are chosen."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from charrnn.batches.windows import Window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.models.network import CharNetwork
from charrnn.training.loss import window_loss
from charrnn.training.memory import keep_freed_memory
from charrnn.training.muon import RENEWED_EVERY
from charrnn.training.optimizers import build_optimizers
from charrnn.training.sizing import Speed
from charrnn.training.system import choose_device, choose_dtype
from charrnn.training.workers import Workers

HIDDEN, LANES, WINDOW = 256, 16, 64
MEASURED_S = 0.4
WARMUP_STEPS = RENEWED_EVERY


def measure_speed(device: str, dtype: str) -> Speed:
    """Return how fast an LSTM layer of 256 units trains, all included, and two side by side.

    Args:
        device: as in `TrainingConfig`.
        dtype: as in `TrainingConfig`.

    Raises:
        ConfigError: there is no such device here.
    """
    keep_freed_memory()
    place = choose_device(device)
    if dtype == "auto":
        dtype = choose_dtype(place, HIDDEN)
    steps = [_step(place, dtype) for _ in range(2)]
    workers = Workers(len(steps), place)

    def together() -> None:
        workers.map(lambda step: step(), steps)

    n = LANES * WINDOW
    return Speed(n * _rate(steps[0], place), 2 * n * _rate(together, place))


def _step(place: torch.device, dtype: str) -> Callable[[], None]:
    """Return a function that takes a step with a network of its own."""
    shape = ModelConfig(vocab_size=67, hidden_size=HIDDEN, embedding_size=32)
    network = CharNetwork(shape).to(place)
    optimizers = build_optimizers(network, TrainingConfig())
    ids = np.zeros((LANES, WINDOW), np.int64)
    window = Window(ids, ids, np.zeros(LANES, np.float32), ids.size)
    state = network.initial_state(LANES)

    def step() -> None:
        loss, _ = window_loss(network, window, state, place, dtype)
        torch.autograd.backward(loss / window.n_targets)
        for optimizer in optimizers:
            optimizer.step()

    return step


def _rate(step: Callable[[], None], place: torch.device) -> float:
    """Return how often a second a step is taken, each fourth of which renews Muon's directions."""
    for _ in range(WARMUP_STEPS):
        step()
    _finish(place)
    steps, started = 0, time.perf_counter()
    while steps == 0 or time.perf_counter() - started < MEASURED_S:
        for _ in range(RENEWED_EVERY):
            step()
        steps += RENEWED_EVERY
    _finish(place)
    return steps / (time.perf_counter() - started)


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
