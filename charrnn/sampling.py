"""Drawing text from a model.

The order of things, for each character: UNK is removed from the distribution, the logits are
divided by the temperature, the rest is renormalised, and one uniform number picks the character.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine import Engine, State
from charrnn.errors import UnknownCharacterError
from charrnn.vocab import EOS_ID, UNK_ID, Vocabulary

PROMPT_CHUNK = 1024
UNIFORMS = 256


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


def read_prompt(engine: Engine, ids: NDArray[Any], state: State) -> NDArray[Any]:
    """Feed ids `[T]`, T ≥ 1, to one stream and return the logits `[V]` after the last."""
    for start in range(0, len(ids), PROMPT_CHUNK):
        logits_TV = engine.run(ids[start : start + PROMPT_CHUNK], state)
    return logits_TV[-1]  # type: ignore[no-any-return]


def stream(
    engine: Engine, vocabulary: Vocabulary, prompt: str, config: SamplingConfig, index: int = 0
) -> Iterator[str]:
    """Yield the characters of one sample as they are drawn, the prompt not repeated.

    Ends at EOS or after `config.length` characters. Sample `index` of a seed is always the same.

    Raises:
        UnknownCharacterError: the prompt has characters the model has never seen.
    """
    ids = encode_prompt(vocabulary, prompt)
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(index,)))
    state = engine.initial_state()
    logits = read_prompt(engine, ids, state)
    strings = vocabulary.strings
    uniforms: list[float] = []
    for _ in range(config.length):
        if not uniforms:
            uniforms = rng.random(UNIFORMS).tolist()
        chosen = draw(logits, config.temperature, uniforms.pop())
        if chosen == EOS_ID:
            return
        yield strings[chosen]
        logits = engine.step(chosen, state)


def draw(logits: NDArray[Any], temperature: float, uniform: float) -> int:
    """Return the id that a uniform number in [0, 1) picks; `logits` `[V]` is overwritten.

    Inverse transform sampling: the first id whose cumulative probability exceeds `uniform`.
    Temperature 0 takes the most probable id.
    """
    logits[UNK_ID] = -np.inf
    best = int(logits.argmax())
    if temperature == 0:
        return best
    p = logits.astype(np.float64)
    p -= p[best]
    p /= temperature
    np.exp(p, p)
    np.cumsum(p, out=p)
    return int(p.searchsorted(uniform * p[-1], side="right"))
