"""Prompts: checked, encoded, and read into a state to start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """Return the ids of a prompt.

    Raises:
        UnknownCharacterError: the prompt has characters the model has never seen.
    """
    unknown = vocabulary.unknown(prompt)
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise UnknownCharacterError(
            f"the prompt has characters the model has never seen: {listed}; leave them out"
        )
    return vocabulary.encode(prompt)


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
        ids: what `encode_prompt` returns; may be empty.
        after: where the stream stands; without it, it begins with EOS and a zero state.
        progress: called with the number of ids read so far.
    """
    if after is None:
        state = engine.initial_state()
        start = Start(state, engine.step(EOS_ID, state).copy())
    else:
        start = Start(engine.copy_state(after.state), after.logits)
    for begin in range(0, len(ids), PROMPT_CHUNK):
        logits_TV = engine.run(ids[begin : begin + PROMPT_CHUNK], start.state)
        start = Start(start.state, logits_TV[-1].copy())
        if progress is not None:
            progress(min(begin + PROMPT_CHUNK, len(ids)))
    return start
