"""A network on a device that reads and writes there, without learning: many texts side by side.

For scoring, `Runner` has the interface of the NumPy engine; for sampling, states stay on the device
(`charrnn.sampling.device`). Products are in all bits of float32.

Shapes: M members, B batch rows, T characters, H hidden units, V ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.config import ModelConfig
from charrnn.engine.network import Floats, State, require_finite
from charrnn.models.device import full_float32, to_device, told_what_it_lacks
from charrnn.models.network import CharNetwork, Ensemble, NetworkState, map_state, select_rows

MAX_LOGITS, MAX_WINDOW = 1 << 26, 128
"""Logits (256 MiB) and characters of one window."""


def copy_of(config: ModelConfig, weights: Mapping[str, NDArray[Any]]) -> Ensemble:
    """Return a network with the weights of a model, on the CPU."""
    member = replace(config, members=1)
    network = Ensemble([CharNetwork(member) for _ in range(config.members)])
    network.import_weights(weights)
    return network.eval()


def state_rows(states: Sequence[State]) -> NetworkState:
    """Return states of the NumPy engine, of one stream each, as the batch rows of an ensemble."""
    parts = [
        [array for array in layer if array.size]  # h `[B, M, H]`, and c where the cell has one
        for layer in (
            (np.stack([one.h for one in layers]), np.stack([one.c for one in layers]))
            for layers in zip(*(state.layers for state in states), strict=True)
        )
    ]
    return [
        [
            tuple(torch.from_numpy(np.ascontiguousarray(a[:, m], np.float32)) for a in layer)
            for layer in parts
        ]
        for m in range(parts[0][0].shape[1])
    ]


def chosen_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probabilities of ids `[..]` under logits `[.., V]`, at least one finite."""
    top = logits.amax(-1, keepdim=True)
    shifted = logits - top  # the sum is of numbers up to 1, and no bits are lost to the top
    chosen = shifted.gather(-1, ids[..., None])
    return (chosen - shifted.exp().sum(-1, keepdim=True).log())[..., 0]


@dataclass
class RunnerState:
    """The recurrent state of one stream or of a batch, on a device."""

    parts: NetworkState
    """Of `batch` rows, or of one for a single stream."""
    batch: int | None

    def assign(self, other: RunnerState) -> None:
        """Take over another state: that of a batch of this size, or of one stream for all rows."""
        rows = len(self.parts[0][0][0])
        self.parts = map_state(lambda part: part.expand(rows, -1).contiguous(), other.parts)


class Runner:
    """Computes the function of a network on a device.

    Args:
        config: the shape of the network.
        weights: its arrays, as in `ModelConfig.weight_shapes`.
        device: where to compute.

    Raises:
        ConfigError: the device has too little memory, or lacks an operator; so do the methods.
    """

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, NDArray[Any]], device: torch.device
    ) -> None:
        """Copy the weights."""
        self.config = config
        self.device = device
        with torch.random.fork_rng(devices=[]), told_what_it_lacks(device):
            self._network = copy_of(config, weights).to(device)

    def window(self, rows: int) -> int:
        """Return how many characters of each of some rows are read at a time."""
        return max(1, min(MAX_WINDOW, MAX_LOGITS // (rows * self.config.vocab_size)))

    def placed(self, array: NDArray[Any]) -> Tensor:
        """Return an array on the device."""
        return to_device(np.ascontiguousarray(array), self.device)

    def initial_state(self, batch: int | None = None) -> RunnerState:
        """Return a zero state for one stream (`batch=None`) or for `batch` streams."""
        rows = 1 if batch is None else batch
        return RunnerState(self._network.initial_state(rows), batch)

    def copy_state(self, state: RunnerState, rows: NDArray[np.int64] | None = None) -> RunnerState:
        """Return a copy of a state, of the given rows only if there are any."""
        if rows is None:
            return RunnerState(state.parts, state.batch)  # a step makes new tensors
        return RunnerState(select_rows(state.parts, self.placed(rows)), len(rows))

    def after_prompts(self, states: Sequence[State]) -> NetworkState:
        """Return states of the NumPy engine, of one stream each, as batch rows on the device."""
        return map_state(lambda part: self.placed(part.numpy()), state_rows(states))

    def step(self, ids_B: Tensor, parts: NetworkState) -> tuple[Tensor, NetworkState]:
        """Read one character per row; return the logits `[B, V]` of the next, and the state."""
        logits_B1V, after = self._run(ids_B[:, None], parts)
        return logits_B1V[:, 0], after

    @torch.no_grad()
    def _run(self, ids_BT: Tensor, parts: NetworkState) -> tuple[Tensor, NetworkState]:
        with full_float32():
            logits_BTV, after = self._network(ids_BT, parts)
        return logits_BTV, after

    def run(self, ids: NDArray[Any], state: RunnerState) -> NDArray[np.float32]:
        """Read a window of characters and return the logits after each of them.

        Args:
            ids: `[T]` for one stream, `[B, T]` for a batch.
            state: changed to the state after the last character.

        Returns:
            Logits `[T, V]` or `[B, T, V]`.
        """
        with told_what_it_lacks(self.device):
            logits_BTV, state.parts = self._run(self._ids(ids), state.parts)
            logits: NDArray[np.float32] = logits_BTV.cpu().numpy()
        return logits if state.batch is not None else logits[0]

    def logprobs(self, ids: NDArray[Any], targets: NDArray[Any], state: RunnerState) -> Floats:
        """Read a window as `run` does, and return the log-probabilities of the targets alone.

        They are computed in float32 on the device, and right to some 1e-6 nats each.

        Args:
            ids: `[T]` for one stream, `[B, T]` for a batch.
            targets: the ids to predict, of the same shape.
            state: changed to the state after the last character.

        Raises:
            ModelFileError: the logits are not finite.
        """
        with told_what_it_lacks(self.device):
            logits_BTV, state.parts = self._run(self._ids(ids), state.parts)
            logprobs_BT = chosen_logprobs(logits_BTV, self._ids(targets))
            is_sound_BT = logits_BTV.isfinite().all(-1)
            found = torch.where(is_sound_BT, logprobs_BT, torch.nan).cpu().numpy()
        require_finite(found)
        logprobs: Floats = found.astype(np.float64)
        return logprobs if state.batch is not None else logprobs[0]

    def _ids(self, ids: NDArray[Any]) -> Tensor:
        return self.placed(np.atleast_2d(ids).astype(np.int64))
