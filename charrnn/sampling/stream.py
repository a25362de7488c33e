"""One sample, character by character."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine.network import Engine, require_finite, target_logprobs
from charrnn.rng import stream_keys, uniforms
from charrnn.sampling.picker import Picker
from charrnn.sampling.writer import Request, Sample, Start, StopReason, new_writer
from charrnn.vocab import EOS_ID, Vocabulary

BLOCK = 256
"""Random numbers made at a time."""


class Stream:
    """Iterates over the characters of one sample; knows afterwards how it ended.

    Args:
        engine: the network.
        vocabulary: its characters.
        request: the start, the temperature, and which sample of the seed.
        config: filters, limits and seed; its temperature is not used, the request's is.
    """

    def __init__(
        self, engine: Engine, vocabulary: Vocabulary, request: Request, config: SamplingConfig
    ) -> None:
        """Copy the starting state; nothing is drawn yet."""
        self._engine = engine
        self._request = request
        self._config = config
        self._picker = Picker(vocabulary, config)
        self._writer = new_writer(vocabulary, request, config)
        self._state = engine.copy_state(request.start.state)
        self._logits = request.start.logits.copy()
        self._characters = self._draw()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the characters; a stream can be drawn once."""
        return self._characters

    def __next__(self) -> str:
        """Return the next character."""
        return next(self._characters)

    @property
    def stop_reason(self) -> StopReason:
        """Why the text ended; `length` before its end."""
        return self._writer.stop_reason or "length"

    @property
    def end(self) -> Start:
        """State and logits after the last character drawn: a start for another request."""
        return Start(self._engine.copy_state(self._state), self._logits.copy())

    def _draw(self) -> Iterator[str]:
        """Yield the characters as soon as it is certain that they belong to the text."""
        config, writer, step = self._config, self._writer, self._state.step
        add, forbid = writer.add, self._picker.forbid
        pick = self._picker.bind(self._request.temperature)
        key = stream_keys(config.seed, [self._request.index])
        block: list[float] = []
        logits, drawn = self._logits, 0
        while writer.stop_reason is None:
            if not block:
                block = uniforms(key, np.arange(drawn, drawn + BLOCK))[::-1].tolist()
                drawn += BLOCK
            raw = logits.copy() if config.logprobs else None
            forbid(logits, writer)
            chosen = pick(logits, block.pop())
            if raw is not None:
                self._record(raw, logits, chosen)
            text = add(chosen)
            if chosen != EOS_ID:
                self._logits = logits = step(chosen)
            yield from text

    def _record(self, raw: NDArray[Any], logits: NDArray[Any], chosen: int) -> None:
        require_finite(raw)
        ids, temperature = np.array([chosen]), np.array([[self._request.temperature]])
        drawn_from = self._picker.log_probability(logits[None], temperature, ids)
        self._writer.logprobs += target_logprobs(raw[None], ids).tolist()
        self._writer.sampling_logprobs += drawn_from.tolist()

    def sample(self) -> Sample:
        """Draw to the end and return the whole."""
        return self._writer.finish("".join(self))
