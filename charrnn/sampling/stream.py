"""One sample, character by character."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine import Engine
from charrnn.sampling.limits import NoRepeat, StopTexts
from charrnn.sampling.picker import Picker
from charrnn.sampling.prompt import Request, Start
from charrnn.sampling.sample import Sample, StopReason
from charrnn.uniforms import stream_keys, uniforms
from charrnn.vocab import EOS_ID, Vocabulary

BLOCK = 256
"""Random numbers made at a time."""


class Stream:
    """Iterates over the characters of one sample; knows afterwards how it ended.

    Args:
        engine: the network.
        vocabulary: its characters.
        request: where to start, how warm, and which sample of the seed.
        config: filters, limits and seed; its temperature is not used, the request's is.
    """

    def __init__(
        self, engine: Engine, vocabulary: Vocabulary, request: Request, config: SamplingConfig
    ) -> None:
        """Copy the starting state; nothing is drawn yet."""
        self.stop_reason: StopReason = "length"
        self._engine = engine
        self._vocabulary = vocabulary
        self._request = request
        self._config = config
        self._picker = Picker(config)
        self._state = engine.copy_state(request.start.state)
        self._logits = request.start.logits.copy()
        self._logprobs: list[float] = []
        self._sampling_logprobs: list[float] = []
        self._characters = self._run()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the characters; a stream can be drawn once."""
        return self._characters

    def __next__(self) -> str:
        """Return the next character."""
        return next(self._characters)

    @property
    def end(self) -> Start:
        """State and logits after the last character drawn: a start for another request."""
        return Start(self._engine.copy_state(self._state), self._logits.copy())

    def _run(self) -> Iterator[str]:
        """Yield the characters as soon as it is certain that they belong to the text."""
        if not self._config.stop:
            yield from self._draw()
            return
        stops = StopTexts(self._config.stop)
        for character in self._draw():
            ready, found = stops.feed(character)
            yield from ready
            if found:
                self.stop_reason = "stop"
                return
        yield from stops.rest()

    def _draw(self) -> Iterator[str]:
        """Yield the characters drawn until EOS or the length."""
        config, picker, step = self._config, self._picker, self._state.step
        temperature, decoder = self._request.temperature, self._vocabulary.decoder()
        strings = self._vocabulary.strings
        whole = self._vocabulary.unit == "char"  # else an id may be a part of a character
        key = stream_keys(config.seed, [self._request.index])
        no_repeat = NoRepeat(config.no_repeat) if config.no_repeat else None
        block: list[float] = []
        banned: Sequence[int]
        logits, count, drawn = self._logits, 0, 0
        while count < config.length:
            if not block:
                block = uniforms(key, np.arange(drawn, drawn + BLOCK))[::-1].tolist()
            drawn += 1
            raw = logits.copy() if config.logprobs else None
            banned = () if whole else decoder.banned()
            if no_repeat is not None and not decoder.pending:
                banned = [*banned, *no_repeat.banned()]
            picker.forbid(logits, count, banned)
            chosen = picker.pick(logits, temperature, block.pop())
            if raw is not None:
                self._record(raw, logits, chosen)
            if chosen == EOS_ID:
                self.stop_reason = "eos"
                return
            if no_repeat is not None:
                no_repeat.add(chosen)
            self._logits = logits = step(chosen)
            text = strings[chosen] if whole else decoder.feed(chosen)
            if text:
                count += 1
                yield text

    def _record(self, raw: NDArray[Any], logits: NDArray[Any], chosen: int) -> None:
        logp = log_probability(raw, chosen)
        self._logprobs.append(logp)
        self._sampling_logprobs.append(
            self._picker.log_probability(logits, self._request.temperature, chosen)
        )

    def sample(self) -> Sample:
        """Draw to the end and return the whole."""
        text = "".join(self)
        kept = len(self._vocabulary.encode(text)) + (self.stop_reason == "eos")
        asked = self._config.logprobs
        return Sample(
            text=text,
            prompt=self._request.prompt,
            seed=self._config.seed,
            index=self._request.index,
            temperature=self._request.temperature,
            stop_reason=self.stop_reason,
            logprobs=tuple(self._logprobs[:kept]) if asked else None,
            sampling_logprobs=tuple(self._sampling_logprobs[:kept]) if asked else None,
        )


def log_probability(logits: NDArray[Any], chosen: int) -> float:
    """Return the log-probability of an id, in nats, under logits `[V]` as they are."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max()
    return float(shifted[chosen] - np.log(np.exp(shifted).sum()))
