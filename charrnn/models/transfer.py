"""Weights of a trained model for a network with another alphabet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.storage.model_file import SavedModel, Weights
from charrnn.vocab import FIRST_CHARACTER_ID, Vocabulary


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
    by_row = {"embedding.weight", "output.weight", "output.bias"}
    weights: dict[str, NDArray[Any]] = {}
    for name, old in saved.weights.items():
        new = np.array(old if name not in by_row else fresh[name])
        if name in by_row:
            new[ids] = old
        elif name == "layers.0.weight_ih" and not saved.config.embedding_size:
            new = np.array(fresh[name])
            new[:, ids] = old
        weights[name] = new
    return weights
