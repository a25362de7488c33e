"""Several networks as one: their logits are averaged, and they are saved as one merged model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn.config import ModelConfig
from charrnn.models.network import CharNetwork, NetworkState
from charrnn.storage.merge import merge_configs, merge_weights, split_weights


class Ensemble(nn.Module):
    """Networks with as many layers of one cell, on one device; what `merge_models` makes of them.

    Shapes: B lanes, T characters, V ids.
    """

    def __init__(self, members: Sequence[CharNetwork]) -> None:
        """Take the networks as they are."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self._networks = tuple(members)
        self._configs = [member.config for member in members]

    @property
    def config(self) -> ModelConfig:
        """The shape of the merged model."""
        return merge_configs(self._configs)

    def initial_state(self, batch: int) -> NetworkState:
        """Return a zero state for `batch` lanes: the layers of the first member, and so on."""
        return [layer for member in self._networks for layer in member.initial_state(batch)]

    def forward(self, ids_BT: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """Return the mean logits after each character `[B, T, V]`, and the state after the last."""
        logits, after = [], []
        states = split_state(state, len(self._networks))
        for member, before in zip(self._networks, states, strict=True):
            logits_BTV, end = member(ids_BT, before)
            logits.append(logits_BTV.float())
            after += end
        return torch.stack(logits).mean(0), after

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays of the merged model."""
        return merge_weights(self.config, [member.export_weights() for member in self._networks])

    def import_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of a merged model."""
        parts = split_weights(self._configs, weights)
        for member, part in zip(self._networks, parts, strict=True):
            member.import_weights(part)


Network = CharNetwork | Ensemble


def split_state(state: NetworkState, n: int) -> list[NetworkState]:
    """Return the state of each of `n` members."""
    layers = len(state) // n
    return [state[k : k + layers] for k in range(0, len(state), layers)]


def together(members: Sequence[CharNetwork]) -> Network:
    """Return what networks are together; a single one is itself."""
    return members[0] if len(members) == 1 else Ensemble(members)
