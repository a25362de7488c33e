"""Prompts: checked, encoded, and read into a state to start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.engine import Engine, State
from charrnn.errors import UnknownCharacterError
from charrnn.vocab import EOS_ID, Vocabulary

PROMPT_CHUNK = 1024


@dataclass(frozen=True)
class Start:
    """Where samples begin: the state after a prompt, and the logits of what comes next."""

    state: State
    logits: NDArray[Any]


@dataclass(frozen=True)
class Request:
    """One sample to draw."""

    start: Start
    prompt: str
    temperature: float
    index: int
    """Which sample of the seed this is."""


def encode_prompt(vocabulary: Vocabulary, prompt: str) -> NDArray[Any]:
    """Return EOS and the ids of the prompt.

    Raises:
        UnknownCharacterError: the prompt has characters the model has never seen.
    """
    unknown = vocabulary.unknown(prompt)
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise UnknownCharacterError(
            f"the prompt has characters the model has never seen: {listed}; leave them out"
        )
    return np.concatenate([[EOS_ID], vocabulary.encode(prompt)])


def read_prompt(
    engine: Engine, ids: NDArray[Any], progress: Callable[[int], None] | None = None
) -> Start:
    """Feed ids `[T]`, T ≥ 1, to a fresh stream.

    Args:
        engine: the network.
        ids: what `encode_prompt` returns.
        progress: called with the number of ids read so far.
    """
    state = engine.initial_state()
    for begin in range(0, len(ids), PROMPT_CHUNK):
        logits_TV = engine.run(ids[begin : begin + PROMPT_CHUNK], state)
        if progress is not None:
            progress(min(begin + PROMPT_CHUNK, len(ids)))
    return Start(state, logits_TV[-1].copy())
