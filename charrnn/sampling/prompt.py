"""Prompts: checked, encoded, and read into a state to start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from charrnn.engine.network import Engine, State
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.vocab import EOS_ID, UNK_ID, Vocabulary

PROMPT_CHUNK = 1024
ON_UNKNOWN = ("error", "skip", "replace")


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


def encode_prompt(vocabulary: Vocabulary, prompt: str, on_unknown: str = "error") -> NDArray[Any]:
    """Return the ids of a prompt.

    Args:
        vocabulary: the model's.
        prompt: text, normalised as the training text was.
        on_unknown: what to do with unknown characters: `error`, `skip`, or `replace` by UNK.

    Raises:
        ConfigError: `on_unknown` is none of these.
        UnknownCharacterError: with `error`, the prompt has characters the model has never seen.
    """
    if on_unknown not in ON_UNKNOWN:
        raise ConfigError(f"on unknown must be one of {', '.join(ON_UNKNOWN)}, got {on_unknown!r}")
    unknown = vocabulary.unknown(prompt)
    if unknown and on_unknown == "error":
        listed = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise UnknownCharacterError(
            f"the prompt has characters the model has never seen: {listed}; leave them out, or "
            "use --on-unknown skip or replace"
        )
    ids = vocabulary.encode(prompt)
    return ids[ids != UNK_ID] if on_unknown == "skip" else ids


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
