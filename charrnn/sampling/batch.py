"""Many samples at once: one matrix product serves all streams.

Shapes: B streams being drawn, V ids. A stream that ends gives its row to the next request; when
none is left, its row is taken out of the batch, so that no product is spent on finished text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine.network import Engine, require_finite, target_logprobs
from charrnn.rng import stream_keys, uniforms
from charrnn.sampling.picker import Picker
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, Sample, Writer, is_watchful, new_writer
from charrnn.vocab import EOS_ID, Vocabulary

BATCH_SIZE = 192
BLOCK = 32
"""Random numbers made at a time for each row, and ids kept before they are put aside."""


def sample_batch(
    engine: Engine,
    vocabulary: Vocabulary,
    requests: Iterable[Request],
    config: SamplingConfig,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Sample]:
    """Draw all requests and yield the samples in the order of the requests.

    Each is the text that `Stream` draws for the same request.

    Args:
        engine: the network.
        vocabulary: its characters.
        requests: what to draw; each is taken when there is a row for it.
        config: as for `Stream`.
        batch_size: most streams drawn side by side.
    """
    waiting = iter(requests)
    first = list(islice(waiting, max(batch_size, 2)))
    if len(first) < 2:
        for request in first:
            yield Stream(engine, vocabulary, request, config).sample()
        return
    yield from in_order(_Batch(engine, vocabulary, first, waiting, config).run())


def in_order(found: Iterable[tuple[int, Sample]]) -> Iterator[Sample]:
    """Yield samples that come with their numbers from 0, in the order of these."""
    done: dict[int, Sample] = {}
    emitted = 0
    for number, sample in found:
        done[number] = sample
        while emitted in done:
            yield done.pop(emitted)
            emitted += 1


class _Batch:
    """The rows being drawn. All draw at the same moments, which `_clock` counts.

    Attributes:
        _begun: the moment at which each row's sample began, `[B]`.
        _uniforms: the random numbers of a block of moments, `[BLOCK, B, 1]`.
        _ids: what was drawn in that block, `[BLOCK, B]`; put into `_pieces` when it is full.
        _pieces: what each row has drawn: text if the writers look at every id, else ids.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary,
        first: list[Request],
        waiting: Iterator[Request],
        config: SamplingConfig,
    ) -> None:
        """Give each of the first requests a row; the others wait until one is free."""
        self._engine = engine
        self._vocabulary = vocabulary
        self._waiting = waiting
        self._config = config
        self._picker = Picker(vocabulary, config)
        self._watchful = is_watchful(vocabulary, config)
        rows = len(first)
        self._clock = 0
        self._next = 0
        self._state = engine.initial_state(rows)
        self._logits = np.empty((rows, engine.config.vocab_size), engine.dtype)
        self._temperature = np.empty((rows, 1))
        self._begun = np.empty(rows, dtype=np.int64)
        self._keys = np.empty(rows, dtype=np.uint64)
        self._uniforms = np.empty((BLOCK, rows, 1))
        self._ids = np.empty((BLOCK, rows), dtype=np.int64)
        self._number: list[int] = []
        self._writers: list[Writer] = []
        self._pieces: list[list[Any]] = []
        self._begin(list(range(rows)), first)

    def _begin(self, rows: list[int], requests: list[Request]) -> None:
        """Put requests into rows."""
        same_start: defaultdict[int, list[int]] = defaultdict(list)
        for row, request in zip(rows, requests, strict=True):
            # slices, because the first requests make their rows
            self._number[row : row + 1] = [self._next]
            self._next += 1
            self._writers[row : row + 1] = [new_writer(self._vocabulary, request, self._config)]
            self._pieces[row : row + 1] = [[]]
            self._temperature[row] = request.temperature
            same_start[id(request.start)].append(row)
        for together in same_start.values():
            start = self._writers[together[0]].request.start
            self._state.assign_rows(together, start.state)
            self._logits[together] = start.logits
        self._begun[rows] = self._clock
        self._keys[rows] = stream_keys(self._config.seed, [one.index for one in requests])
        self._draw_ahead(rows)

    def _draw_ahead(self, rows: Any) -> None:
        """Make the random numbers of rows for the block of draws that the clock is in."""
        moments = self._clock - self._clock % BLOCK + np.arange(BLOCK)
        positions = np.maximum(moments - self._begun[rows, None], 0)  # 0: before the row began
        self._uniforms[:, rows, 0] = uniforms(self._keys[rows, None], positions).T

    def run(self) -> Iterator[tuple[int, Sample]]:
        """Yield (number of the request, sample) as the streams end."""
        picker, config = self._picker, self._config
        while self._writers:
            if self._clock % BLOCK == 0:
                self._draw_ahead(slice(None))
            logits, uniform = self._logits, self._uniforms[self._clock % BLOCK]
            raw = logits.copy() if config.logprobs else None
            written = self._written() if config.min_length else None
            picker.forbid_rows(logits, self._writers, written)
            chosen = picker.pick_rows(logits, self._temperature, uniform)
            if raw is not None:
                self._record(raw, logits, chosen)
            self._logits = self._state.step(chosen)
            ended = self._add(chosen)
            self._clock += 1
            if ended:
                for row in ended:
                    yield self._number[row], self._finish(row)
                self._replace(ended)

    def _written(self) -> NDArray[np.int64]:
        """Return the number of characters that each row has written, `[B]`."""
        if self._watchful:
            return np.array([writer.written for writer in self._writers])
        return self._clock - self._begun

    def _record(self, raw: NDArray[Any], logits: NDArray[Any], chosen: NDArray[np.int64]) -> None:
        require_finite(raw)
        logp = target_logprobs(raw, chosen)
        drawn_from = self._picker.log_probability(logits, self._temperature, chosen)
        for writer, a, b in zip(self._writers, logp.tolist(), drawn_from.tolist(), strict=True):
            writer.logprobs.append(a)
            writer.sampling_logprobs.append(b)

    def _add(self, chosen: NDArray[np.int64]) -> list[int]:
        """Give each row its id; return the rows that have ended."""
        if self._watchful:
            ids = chosen.tolist()
            for pieces, writer, one in zip(self._pieces, self._writers, ids, strict=True):
                pieces.append(writer.add(one))
            return [row for row, writer in enumerate(self._writers) if writer.stop_reason]
        # where only EOS and the length end a text, the writers get their ids when it has ended
        column = self._clock % BLOCK
        self._ids[column] = chosen
        full = self._begun == self._clock + 1 - self._config.length
        ended: list[int] = np.flatnonzero(full | (chosen == EOS_ID)).tolist()
        for row in range(len(chosen)) if column == BLOCK - 1 else ended:
            first = max(int(self._begun[row]) - (self._clock - column), 0)
            self._pieces[row] += self._ids[first : column + 1, row].tolist()
        return ended

    def _finish(self, row: int) -> Sample:
        writer, pieces = self._writers[row], self._pieces[row]
        return writer.finish("".join(pieces if self._watchful else map(writer.add, pieces)))

    def _replace(self, ended: list[int]) -> None:
        """Give ended rows to waiting requests, and take out those for which there is none."""
        requests = list(islice(self._waiting, len(ended)))
        left = ended[len(requests) :]
        if requests:
            self._begin(ended[: len(requests)], requests)
        if left:
            keep = np.delete(np.arange(len(self._writers)), left)
            self._state = self._engine.copy_state(self._state, keep)
            self._logits = self._logits[keep]
            self._temperature = self._temperature[keep]
            self._begun = self._begun[keep]
            self._keys = self._keys[keep]
            self._uniforms = self._uniforms[:, keep]
            self._ids = self._ids[:, keep]
            self._number = [self._number[row] for row in keep]
            self._writers = [self._writers[row] for row in keep]
            self._pieces = [self._pieces[row] for row in keep]
