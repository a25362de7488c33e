"""Where samples begin: prompts, read into a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from charrnn.engine.network import Engine, State
from charrnn.vocab import EOS_ID

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


def read_prompt(
    engine: Engine,
    ids: NDArray[Any],
    *,
    after: Start | None = None,
    progress: Callable[[int], None] | None = None,
) -> Start:
    """Feed ids `[T]` to a stream.

    Args:
        engine: the network.
        ids: of the prompt (`charrnn.vocab.encode_known`); may be empty.
        after: where the stream stands; without it, it begins with EOS and a zero state.
        progress: called with the number of ids read.
    """
    if after is None:
        state = engine.initial_state()
        logits = engine.step(EOS_ID, state).copy()
    else:
        state, logits = engine.copy_state(after.state), after.logits
    for begin in range(0, len(ids), PROMPT_CHUNK):
        chunk = ids[begin : begin + PROMPT_CHUNK]
        logits = engine.run(chunk, state)[-1].copy()
        if progress is not None:
            progress(begin + len(chunk))
    return Start(state, logits)
