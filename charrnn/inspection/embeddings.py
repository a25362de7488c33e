"""Characters as the network meets them: two dimensions of their vectors, and their neighbours.

Shapes: V characters, D dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.scoring.details import id_labels
from charrnn.storage.merge import split_weights
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import FIRST_CHARACTER_ID

ROWS = 1024
"""Characters whose similarities to all others are held at a time."""


class Neighbour(NamedTuple):
    """A character near another one."""

    character: str
    similarity: float
    """Cosine of the angle between the two, seen from the mean of all characters."""


class Place(NamedTuple):
    """A character in two dimensions."""

    character: str
    """In a byte model `<E9>` for a byte outside ASCII."""
    x: float
    y: float
    neighbours: tuple[Neighbour, ...]
    """The nearest first, in all dimensions."""


class Embeddings(NamedTuple):
    """The alphabet in two dimensions."""

    places: tuple[Place, ...]
    shares: tuple[float, float]
    """Of the variance that each of the two dimensions has."""
    is_learned: bool
    """False for a one-hot model: the vectors are then the columns of the first input weights."""


def embeddings(saved: SavedModel, member: int, neighbours: int) -> Embeddings:
    """Return the characters of a model in the plane of most variance (PCA).

    Args:
        saved: the model.
        member: whose vectors; each member has its own.
        neighbours: named for each character.
    """
    weights = split_weights(saved.config, saved.weights)[member]
    is_learned = saved.config.embedding_size > 0
    vectors = weights["embedding.weight"] if is_learned else weights["layers.0.weight_ih"].T
    centred_VD = vectors[FIRST_CHARACTER_ID:].astype(np.float64)
    centred_VD -= centred_VD.mean(axis=0)
    xy_V2, shares = principal_plane(centred_VD)
    labels = id_labels(saved.vocabulary)[FIRST_CHARACTER_ID:]
    near = _nearest(centred_VD, neighbours)
    places = tuple(
        Place(label, x, y, tuple(Neighbour(labels[k], s) for k, s in mine))
        for label, (x, y), mine in zip(labels, xy_V2.tolist(), near, strict=True)
    )
    return Embeddings(places, shares, is_learned)


def principal_plane(
    centred_VD: NDArray[np.float64],
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return the coordinates `[V, 2]` of points of mean 0 in the two directions of most variance,
    and the share of the variance that each has."""
    u_VR, scale_R, _ = np.linalg.svd(centred_VD, full_matrices=False)
    xy_V2 = np.zeros((len(centred_VD), 2))
    n = min(2, len(scale_R))
    xy_V2[:, :n] = u_VR[:, :n] * scale_R[:n]
    # a direction has no sign: the point farthest out is on the positive side
    farthest = np.abs(xy_V2).argmax(axis=0)
    xy_V2 *= np.where(xy_V2[farthest, [0, 1]] < 0, -1, 1)
    shares = np.zeros(2)
    shares[:n] = np.square(scale_R[:n]) / max(np.square(scale_R).sum(), 1e-300)
    return xy_V2, (float(shares[0]), float(shares[1]))


def _nearest(centred_VD: NDArray[Any], count: int) -> list[list[tuple[int, float]]]:
    """Return for each point the numbers and similarities of its nearest others."""
    norms = np.sqrt(np.square(centred_VD).sum(axis=1, keepdims=True))
    unit_VD = centred_VD / np.where(norms > 0, norms, 1)
    found = []
    for begin in range(0, len(unit_VD), ROWS):
        similar = unit_VD[begin : begin + ROWS] @ unit_VD.T
        rows = np.arange(len(similar))
        similar[rows, rows + begin] = -np.inf
        order = np.argsort(-similar, axis=1, kind="stable")[:, : min(count, len(unit_VD) - 1)]
        scores = np.take_along_axis(similar, order, axis=1)
        found += [
            list(zip(ids, s, strict=True))
            for ids, s in zip(order.tolist(), scores.tolist(), strict=True)
        ]
    return found
