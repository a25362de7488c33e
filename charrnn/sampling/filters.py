"""Pure filters on logits: each takes `[..., V]` and returns the same shape, removed ids at -inf.

They are applied in one order, always: forbidden ids, temperature, top-k, top-p, min-p. What is left
is renormalised. Every filter leaves at least one id in every row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[Any]


def scale(logits: Logits, temperature: Any) -> NDArray[np.float64]:
    """Divide by the temperature, with the largest logit of each row moved to 0 first.

    Args:
        logits: `[..., V]`, at least one finite value in each row.
        temperature: positive; one number, or one per row as `[..., 1]`.
    """
    scaled = logits.astype(np.float64)
    scaled -= scaled.max(axis=-1, keepdims=True)
    scaled /= temperature
    return scaled


def top_k(logits: Logits, k: int) -> Logits:
    """Keep the `k` largest logits; of equal ones those with the lower ids."""
    if k >= logits.shape[-1]:
        return logits
    order = np.argsort(-logits, axis=-1, kind="stable")
    return _keep(logits, order[..., :k])


def top_p(logits: Logits, p: float) -> Logits:
    """Keep the fewest most probable ids whose probabilities sum to at least `p`.

    Nucleus sampling, Holtzman et al. 2020.
    """
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = np.take_along_axis(softmax(logits), order, axis=-1)
    before = np.cumsum(probabilities, axis=-1) - probabilities
    dropped = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(dropped, order, before >= p, axis=-1)
    np.put_along_axis(dropped, order[..., :1], False, axis=-1)
    return np.where(dropped, -np.inf, logits)


def min_p(logits: Logits, p: float) -> Logits:
    """Keep the ids at least `p` times as probable as the most probable one (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    return np.where(logits < logits.max(axis=-1, keepdims=True) + np.log(p), -np.inf, logits)


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the probabilities of each row."""
    p = np.exp(scale(logits, 1.0))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def _keep(logits: Logits, ids: NDArray[Any]) -> Logits:
    kept = np.full(logits.shape, -np.inf, dtype=logits.dtype)
    np.put_along_axis(kept, ids, np.take_along_axis(logits, ids, axis=-1), axis=-1)
    return kept
