"""Deterministic texts to train and to score on: our own sentences, and a Markov chain."""

from __future__ import annotations

import functools
import math
import random

import numpy as np

SUBJECTS = ["the miller", "an old sailor", "my sister", "the grey cat", "every child", "the wind"]
VERBS = ["carried", "found", "hid", "forgot", "painted", "sold"]
OBJECTS = ["a lantern", "the last apple", "two letters", "a wooden boat", "the key", "some bread"]
PLACES = ["by the river", "at the market", "under the stairs", "in the snow", "before dawn"]
ENDINGS = [".", ".", ".", "!", "; nobody saw it.", ", and laughed."]


@functools.cache
def english(n_chars=20_000, seed=0):
    """English-like prose, one sentence a line, exactly `n_chars` long."""
    rng = random.Random(seed)
    lines, length = [], 0
    while length < n_chars:
        parts = (rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS), rng.choice(PLACES))
        line = (" ".join(parts) + rng.choice(ENDINGS) + "\n").capitalize()
        lines.append(line)
        length += len(line)
    return "".join(lines)[:n_chars]


SYMBOLS = "abcde"
TRANSITIONS = np.array(
    [
        [0.70, 0.10, 0.10, 0.05, 0.05],
        [0.05, 0.05, 0.60, 0.20, 0.10],
        [0.25, 0.25, 0.05, 0.25, 0.20],
        [0.02, 0.90, 0.02, 0.03, 0.03],
        [0.40, 0.05, 0.05, 0.10, 0.40],
    ]
)
"""Row: probabilities of the next symbol."""


def markov(n_chars, seed=0):
    """A text of the chain, begun in its first symbol."""
    rng = random.Random(seed)
    state, text = 0, []
    for _ in range(n_chars):
        text.append(SYMBOLS[state])
        state = rng.choices(range(len(SYMBOLS)), TRANSITIONS[state])[0]
    return "".join(text)


def markov_entropy():
    """Exact entropy rate of the chain in nats per symbol: Σ_i π_i Σ_j -P_ij ln P_ij."""
    values, vectors = np.linalg.eig(TRANSITIONS.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    rows = [-math.fsum(p * math.log(p) for p in row) for row in TRANSITIONS]
    return float(stationary @ rows)
