"""Many samples at once: one matrix product serves all streams.

Shapes: B streams at work, V ids. A stream that ends gives its row to the next request; when none is
left, its row is taken out of the batch, so that no product is spent on finished text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine import Engine
from charrnn.sampling.picker import Picker
from charrnn.sampling.prompt import Request
from charrnn.sampling.sample import Sample
from charrnn.sampling.stream import Stream
from charrnn.uniforms import stream_keys, uniforms
from charrnn.vocab import EOS_ID, UNK_ID, Vocabulary

BATCH_SIZE = 64
COLUMNS = 256
"""Ids kept per row before they are put aside."""


def sample_batch(
    engine: Engine,
    vocabulary: Vocabulary,
    requests: Sequence[Request],
    config: SamplingConfig,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Sample]:
    """Draw all requests and yield the samples in the order of the requests.

    Each is the text that `Stream` draws for the same request.

    Args:
        engine: the network.
        vocabulary: its characters.
        requests: what to draw.
        config: as for `Stream`.
        batch_size: most streams at work at a time.
    """
    one_by_one = config.stop or config.no_repeat or config.logprobs or vocabulary.unit == "byte"
    if len(requests) == 1 or one_by_one:
        # what needs a look at every single character is drawn stream by stream
        for request in requests:
            yield Stream(engine, vocabulary, request, config).sample()
        return
    done: dict[int, Sample] = {}
    emitted = 0
    for number, sample in _Batch(engine, vocabulary, requests, config, batch_size).run():
        done[number] = sample
        while emitted in done:
            yield done.pop(emitted)
            emitted += 1


class _Batch:
    """The rows at work."""

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary,
        requests: Sequence[Request],
        config: SamplingConfig,
        batch_size: int,
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._requests = requests
        self._config = config
        self._picker = Picker(config)
        rows = min(batch_size, len(requests))
        self._waiting = len(requests) - rows
        self._state = engine.initial_state(rows)
        self._logits = np.empty((rows, engine.config.vocab_size), engine.dtype)
        self._request_of = np.arange(rows)
        self._count = np.zeros(rows, dtype=np.int64)
        self._temperature = np.empty((rows, 1))
        self._all_keys = stream_keys(config.seed, [request.index for request in requests])
        self._keys = self._all_keys[:rows].copy()
        self._written: list[list[NDArray[Any]]] = [[] for _ in range(rows)]
        self._ids = np.empty((rows, COLUMNS), dtype=np.int64)
        for row in range(rows):
            self._begin(row, row)

    def _begin(self, row: int, number: int) -> None:
        """Put a request into a row."""
        request = self._requests[number]
        self._request_of[row] = number
        self._count[row] = 0
        self._temperature[row] = request.temperature
        self._keys[row] = self._all_keys[number]
        self._written[row] = []
        self._logits[row] = request.start.logits
        self._state.assign_row(row, request.start.state)

    def run(self) -> Iterator[tuple[int, Sample]]:
        """Yield (number of the request, sample) as the streams end."""
        config, picker = self._config, self._picker
        rows = np.arange(len(self._count))
        while len(rows):
            logits = self._logits
            logits[:, UNK_ID] = -np.inf
            if config.min_length:
                logits[self._count < config.min_length, EOS_ID] = -np.inf
            column = self._count % COLUMNS
            uniform = uniforms(self._keys, self._count)[:, None]
            chosen = picker.pick_rows(logits, self._temperature, uniform)
            self._ids[rows, column] = chosen
            self._count += 1
            self._logits = self._engine.step(chosen, self._state)
            for row in np.flatnonzero(column == COLUMNS - 1).tolist():
                self._written[row].append(self._ids[row].copy())
            ended = np.flatnonzero((chosen == EOS_ID) | (self._count == config.length))
            if len(ended):
                for row in ended.tolist():
                    yield self._finish(row)
                rows = self._replace(ended)

    def _finish(self, row: int) -> tuple[int, Sample]:
        number = int(self._request_of[row])
        request = self._requests[number]
        left = int(self._count[row]) % COLUMNS
        ids = np.concatenate([*self._written[row], self._ids[row, :left]])
        by_eos = bool(ids[-1] == EOS_ID)
        return number, Sample(
            text=self._vocabulary.decode(ids[:-1] if by_eos else ids),
            prompt=request.prompt,
            seed=self._config.seed,
            index=request.index,
            temperature=request.temperature,
            stop_reason="eos" if by_eos else "length",
        )

    def _replace(self, ended: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give ended rows to waiting requests, take the rest out; return the rows at work."""
        for row in ended[: self._waiting]:
            self._begin(row, len(self._requests) - self._waiting)
            self._waiting -= 1
            ended = ended[1:]
        if len(ended):
            keep = np.setdiff1d(np.arange(len(self._count)), ended)
            self._state = self._engine.copy_state(self._state, keep)
            self._logits = self._logits[keep]
            self._request_of = self._request_of[keep]
            self._count = self._count[keep]
            self._temperature = self._temperature[keep]
            self._keys = self._keys[keep]
            self._ids = self._ids[keep]
            self._written = [self._written[row] for row in keep]
        return np.arange(len(self._count))
