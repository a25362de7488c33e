"""Random numbers without a generator: number n of stream k of seed s, computed directly.

SplitMix64 (Steele, Lea & Flood 2014) is a counter passed through a mixing function, so the numbers
of any sample can be had at any place, alone or for many samples in one vector operation, and always
the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
_WORD = 0xFFFFFFFFFFFFFFFF


def stream_keys(seed: int, indices: Any) -> NDArray[np.uint64]:
    """Return the start of the counter of each sample `[N]`.

    The seed is mixed before and after the index is added, so that neighbouring seeds and
    neighbouring samples have unrelated numbers.
    """
    words = []
    while True:  # a seed may be longer than 64 bits
        words.append(seed & _WORD)
        seed >>= 64
        if seed in (0, -1):
            break
    key = np.zeros(1, dtype=np.uint64)
    for word in words:
        key = _mix(key ^ np.uint64(word)) + GAMMA
    numbers = np.asarray(indices)
    if numbers.dtype == object:  # longer than 64 bits
        numbers = numbers & _WORD
    return _mix(key + numbers.astype(np.uint64) * GAMMA)


def uniforms(keys: NDArray[np.uint64], positions: Any) -> NDArray[np.float64]:
    """Return numbers in [0, 1): for each key the one at the position beside it (broadcast)."""
    counter = np.atleast_1d(np.asarray(positions, dtype=np.uint64)) + np.uint64(1)
    numbers: NDArray[np.float64] = (_mix(keys + counter * GAMMA) >> np.uint64(11)) * 2.0**-53
    return numbers


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
