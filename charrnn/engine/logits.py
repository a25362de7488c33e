"""From logits to log-probabilities: float64 from float32, in nats.

Shapes: V ids; any axes before them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Return log-probabilities in float64 over the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def target_logprobs(logits: NDArray[Any], targets: NDArray[Any]) -> Floats:
    """Return the log-probabilities of the targets alone, `[..]` from logits `[.., V]`.

    The same numbers as `log_softmax` gives, without an array of all of them.
    """
    top = logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None].astype(np.intp), axis=-1)
    exp = np.subtract(logits, top, dtype=np.float64)
    np.exp(exp, out=exp)
    result: Floats = np.subtract(chosen, top, dtype=np.float64)[..., 0]
    result -= np.log(exp.sum(axis=-1))
    return result
