"""Documents in windows: short ones whole, long ones window after window with carried state.

Shapes: B batch rows, T characters of one window; A batch rows of all processes together.

A document that fits into the truncation window is read in one step with others of about the same
length, so that little is padded; together they make a full step's worth of characters. Longer ones
are shared out to rows that carry their state; a row without a further document leaves the batch. No
document ever sees another one's characters or state.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.batches.windows import (
    MOST,
    Place,
    Share,
    Window,
    hide_some,
    restore_generator,
    saved_numbers,
    shared_window,
)
from charrnn.vocab import Ids

Spans = NDArray[np.int64]


class DocumentBatches:
    """Endless training windows over documents, resumable at any point.

    Args:
        ids: all ids; each document ends with EOS. None where they are on the device.
        blocks: number of blocks of documents.
        spans: returns begin and end `[m, 2]` of the documents of a block.
        n_ids: ids of all these documents together.
        batch_size: rows of long documents; times `bptt`, the characters of a step.
        bptt: longest window T.
        unknown_rate: share of inputs shown as UNK.
        seed: of the order and of the UNKs.
        share: the rows of this process. The position, and what is saved of it, is that of all rows.
    """

    def __init__(
        self,
        ids: Ids | None,
        *,
        blocks: int,
        spans: Callable[[int], Spans],
        n_ids: int,
        batch_size: int,
        bptt: int,
        unknown_rate: float = 0.0,
        seed: int = 0,
        share: Share = Share(),
    ) -> None:
        """Start before the first window of the first epoch."""
        self.batch_size = batch_size
        self.bptt = bptt
        self.share = share
        self.readers_A = share.readers(batch_size)
        """Process that reads each row whose state is carried."""
        self.served = 0
        """Targets handed out so far, to all processes."""
        self._ids = ids
        self._blocks = blocks
        self._spans = spans
        self._n_ids = n_ids
        self._unknown_rate = unknown_rate
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._order: list[int] = []
        self._begin_block()

    @property
    def epoch(self) -> float:
        """Epochs so far."""
        return self.served / self._n_ids

    def next_window(self) -> Window:
        """Return the next window."""
        while (window := self._next_of_block()) is None:
            self._order.pop()
            self._begin_block()
        self.served += window.n_targets
        return window

    def _next_of_block(self) -> Window | None:
        window = next(self._windows, None)
        if window is not None:
            self._taken += 1
            window = hide_some(window, self._unknown_rate, self._rng, self.share.rank)
            if not window.stateless:
                alone_A = self.share.readers(len(window.inputs_BT))
                self.readers_A = alone_A if window.readers_A is None else window.readers_A
        return window

    def _begin_block(self) -> None:
        """Lay out the windows of the next block; a new epoch has the blocks in a new order."""
        if not self._order:
            self._order = self._rng.permutation(self._blocks).tolist()
        self._block_rng = self._rng.bit_generator.state
        self._taken = 0
        spans = self._spans(self._order[-1])
        self._windows = document_windows(
            self._ids,
            spans,
            batch_size=self.batch_size,
            bptt=self.bptt,
            rng=self._rng,
            share=self.share,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position as JSON values."""
        return {
            "served": self.served,
            "order": list(self._order),
            "block_rng": self._block_rng,
            "taken": self._taken,
        }

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go to a position saved by `state_dict`: the block is begun again and skipped through.

        Raises:
            LookupError: a part of it is missing.
            ValueError: it is no position in these documents.
        """
        self.served, taken = saved_numbers([record["served"], record["taken"]], MOST)
        self._order = saved_numbers(record["order"], self._blocks - 1)
        if not self._order or len(self._order) > self._blocks:
            raise ValueError("the position is in other documents")
        restore_generator(self._rng, record["block_rng"])
        self._begin_block()
        for _ in range(taken):
            if self._next_of_block() is None:
                raise ValueError("the position is beyond the documents")


def document_windows(
    ids: Ids | None,
    spans: Spans,
    *,
    batch_size: int,
    bptt: int,
    rng: np.random.Generator | None = None,
    share: Share = Share(),
) -> Iterator[Window]:
    """Yield windows in which every id of the documents is a target exactly once.

    Args:
        ids: all ids; each document ends with EOS. None where they are on the device.
        spans: begin and end `[m, 2]` of the documents.
        batch_size: rows of long documents.
        bptt: longest window T.
        rng: shuffles documents and windows; without it the order is fixed.
        share: the rows of this process, of short and of long documents.
    """
    if rng is not None:
        spans = spans[rng.permutation(len(spans))]
    kinds, batches, rows = _layout(spans, batch_size, bptt)
    if rng is not None:
        batches = [batches[k] for k in rng.permutation(len(batches))]
        kinds = kinds[rng.permutation(len(kinds))]
    long_windows = _long_windows(ids, rows, bptt, share)
    short_windows = (_short_window(ids, batch, share) for batch in batches)
    for is_long in kinds:
        yield next(long_windows if is_long else short_windows)


def _layout(
    spans: Spans, batch_size: int, bptt: int
) -> tuple[NDArray[np.bool_], list[Spans], list[list[Place]]]:
    """Return for each window whether its documents are long, the short batches, the long rows."""
    lengths = spans[:, 1] - spans[:, 0]
    is_long = lengths > bptt
    batches = _short_batches(spans[~is_long], lengths[~is_long], batch_size * bptt)
    rows = _share_out(spans[is_long], lengths[is_long], batch_size)
    windows = [sum(-(-(end - begin) // bptt) for begin, _, end in row) for row in rows]
    n_long = max(windows, default=0)
    return np.repeat([True, False], [n_long, len(batches)]), batches, rows


def _short_batches(spans: Spans, lengths: NDArray[np.int64], room: int) -> list[Spans]:
    """Put documents of about the same length together, up to `room` positions a batch."""
    order = np.argsort(lengths, kind="stable")
    batches = []
    end = len(order)
    while end > 0:  # from the longest, so that the first of a batch decides its width
        rows = max(1, room // int(lengths[order[end - 1]]))
        begin = max(0, end - rows)
        # documents of one length fill whole batches; do not mix in much shorter ones
        while begin < end - 1 and 2 * lengths[order[begin]] < lengths[order[end - 1]]:
            begin += 1
        batches.append(spans[order[begin:end]])
        end = begin
    return batches


def _short_window(ids: Ids | None, spans: Spans, share: Share) -> Window:
    """Return one window that holds whole documents."""
    width = int((spans[:, 1] - spans[:, 0]).max())
    return shared_window(ids, spans[:, [0, 0, 1]], width, share)._replace(stateless=True)


def _share_out(spans: Spans, lengths: NDArray[np.int64], batch_size: int) -> list[list[Place]]:
    """Share long documents out to rows of about the same total length, longest first."""
    rows: list[list[Place]] = [[] for _ in range(min(batch_size, len(spans)))]
    heap = [(0, number) for number in range(len(rows))]
    for k in np.argsort(-lengths, kind="stable"):
        total, number = heapq.heappop(heap)
        begin, end = spans[k].tolist()
        rows[number].append(Place(begin, begin, end))
        heapq.heappush(heap, (total + int(lengths[k]), number))
    return rows


def _long_windows(
    ids: Ids | None, rows: list[list[Place]], bptt: int, share: Share
) -> Iterator[Window]:
    """Yield the windows of rows that each read their documents one after the other.

    A row stays with its process, where its state is.
    """
    waiting = [list(reversed(row)) for row in rows]
    current = [row.pop() for row in waiting]
    readers_A = share.readers(len(current))
    rows_B: NDArray[np.int64] | None = None
    while current:
        width = min(bptt, max(end - position for _, position, end in current))
        places = [one._replace(end=min(one.position + width, one.end)) for one in current]
        yield shared_window(ids, places, width, share, readers_A)._replace(rows_B=rows_B)
        following: list[Place | None] = []
        for one, place, others in zip(current, places, waiting, strict=True):
            ended = place.end == one.end
            if not ended:
                following.append(one._replace(position=place.end))
            else:
                following.append(others.pop() if others else None)
        is_alive_A = np.array([one is not None for one in following], dtype=np.bool_)
        own_alive = is_alive_A[readers_A == share.rank]
        rows_B = None if own_alive.all() else np.flatnonzero(own_alive)
        readers_A = readers_A[is_alive_A]
        waiting = [row for row, alive in zip(waiting, is_alive_A, strict=True) if alive]
        current = [one for one in following if one is not None]
