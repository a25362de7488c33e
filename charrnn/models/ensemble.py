"""The model that torch trains: an ensemble of networks, often of one; its logits are their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn.models.network import CharNetwork, NetworkState
from charrnn.storage.merge import split_weights, stack_weights
from charrnn.storage.model_file import SavedModel, Weights
from charrnn.vocab import FIRST_CHARACTER_ID, Vocabulary


class Ensemble(nn.Module):
    """Networks of one shape on one device.

    Shapes: M members, B batch rows, T characters, V ids.
    """

    members: list[CharNetwork]

    def __init__(self, members: Sequence[CharNetwork]) -> None:
        """Take the networks as they are."""
        super().__init__()
        self.config = replace(members[0].config, members=len(members))
        self.members = nn.ModuleList(members)  # type: ignore[assignment]

    def initial_state(self, batch: int) -> NetworkState:
        """Return a zero state for `batch` rows."""
        return [member.initial_state(batch) for member in self.members]

    def forward(self, ids_BT: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """Return the mean logits after each character `[B, T, V]`, and the state after the last."""
        outcomes = [
            member(ids_BT, before) for member, before in zip(self.members, state, strict=True)
        ]
        after = [end for _, end in outcomes]
        if len(outcomes) == 1:
            return outcomes[0][0], after
        logits_MBTV = torch.stack([logits_BTV for logits_BTV, _ in outcomes])
        exact = torch.promote_types(logits_MBTV.dtype, torch.float32)  # also of bfloat16
        return logits_MBTV.mean(0, dtype=exact), after

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the arrays, as in `ModelConfig.weight_shapes`."""
        return stack_weights([member.export_weights() for member in self.members])

    def import_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of a model file."""
        for member, part in zip(self.members, split_weights(self.config, weights), strict=True):
            member.import_weights(part)


def transfer_weights(
    saved: SavedModel, vocabulary: Vocabulary, fresh: Weights
) -> dict[str, NDArray[Any]]:
    """Return a model's weights for `vocabulary`, which has at least the model's characters.

    Rows (of a one-hot input: columns) that belong to a character go where that character is now;
    new characters keep the rows of a freshly initialised network.

    Args:
        saved: the trained model.
        vocabulary: the new alphabet.
        fresh: weights of a new network of the same shape with the new alphabet.
    """
    places = {c: k for k, c in enumerate(vocabulary.characters, FIRST_CHARACTER_ID)}
    ids = [*range(FIRST_CHARACTER_ID), *(places[c] for c in saved.vocabulary.characters)]
    # from the end, because ensembles have an axis of members before the others
    alphabet_axes = {"embedding.weight": -2, "output.weight": -2, "output.bias": -1}
    if not saved.config.embedding_size:
        alphabet_axes["layers.0.weight_ih"] = -1
    weights = {name: np.array(old) for name, old in saved.weights.items()}
    for name, axis in alphabet_axes.items():
        if name in weights:
            old, weights[name] = weights[name], np.array(fresh[name])
            np.moveaxis(weights[name], axis, 0)[ids] = np.moveaxis(old, axis, 0)
    return weights
