"""Windows of one long text for truncated backpropagation through time.

Shapes: B batch rows, T characters of one window.

The text is cut into segments that begin at line starts. Each row reads one segment from its start,
window after window with carried state, then the next free segment. A segment begins with EOS and a
zero state. Every epoch cuts at other places and shuffles.
Segments are a few thousand characters long: with longer ones a network sees so few fresh starts
that it never learns to begin a text, and drifts into states that only a long run reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from charrnn.batches.windows import Place, Window, hide_some, window_of
from charrnn.vocab import Ids

SEGMENT = 4096
"""Characters of one segment, about; shorter where the rows would otherwise not all have one."""
LINE_SEARCH = 4096
"""How far, in characters, a segment start may move to reach a line start."""


class TextBatches:
    """Endless training windows over one text, resumable at any point.

    Args:
        ids: the text `[N]`, in memory or memory-mapped.
        newline_id: id of the line end, None if the text has none.
        batch_size: number of rows B.
        bptt: window T in characters.
        unknown_rate: share of inputs shown as UNK, so that the network learns to read unknown
            characters; targets are never changed.
        seed: of the cuts and of the UNKs.
    """

    def __init__(
        self,
        ids: Ids,
        *,
        newline_id: int | None,
        batch_size: int,
        bptt: int,
        unknown_rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Start before the first window of the first epoch."""
        assert len(ids) > 0
        self.ids = ids
        self.newline_id = newline_id
        self.batch_size = batch_size
        self.bptt = bptt
        self.unknown_rate = unknown_rate
        self.served = 0
        """Targets handed out so far."""
        self.computed = 0
        """Positions computed for them, padding included."""
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._queue: list[int] = []
        self._parts = self._shift = 0
        self._rows = [self._next_segment() for _ in range(batch_size)]

    @property
    def epoch(self) -> float:
        """Epochs so far."""
        return self.served / len(self.ids)

    @property
    def steps_per_epoch(self) -> float:
        """Windows in which the text is read once, about: each segment ends within a window."""
        whole = len(self.ids) / self.bptt
        ends = (self._parts + 1) * (self.bptt - 1) / (2 * self.bptt)
        return (whole + ends) / self.batch_size

    def next_window(self) -> Window:
        """Return the next window of every row."""
        T = self.bptt
        places = [row._replace(end=min(row.position + T, row.end)) for row in self._rows]
        window = window_of(self.ids, places, T)
        for b, (row, place) in enumerate(zip(self._rows, places, strict=True)):
            ended = place.end == row.end
            self._rows[b] = self._next_segment() if ended else row._replace(position=place.end)
        self.served += window.n_targets
        self.computed += window.targets_BT.size
        hide_some(window.inputs_BT, self.unknown_rate, self._rng)
        return window

    def _next_segment(self) -> Place:
        """Return the place of a fresh segment; cut a new epoch when none is left.

        Line starts are searched segment by segment: to find all at once would read the whole text.
        """
        while True:
            if not self._queue:
                self._parts = max(self.batch_size, len(self.ids) // SEGMENT)
                self._shift = int(self._rng.integers(max(1, len(self.ids) // self._parts)))
                self._queue = self._rng.permutation(self._parts + 1).tolist()
            number = self._queue.pop()
            start, end = self._edge(number), self._edge(number + 1)
            if start < end:
                return Place(start, start, end)

    def _edge(self, number: int) -> int:
        """Return where segment `number` starts: the text's start, a line start after each cut."""
        if number == 0:
            return 0
        if number > self._parts:
            return len(self.ids)
        return self._line_start(self._shift + (number - 1) * len(self.ids) // self._parts)

    def _line_start(self, position: int) -> int:
        """Return the first line start at or after a position; the position if none is near."""
        if self.newline_id is None or position == 0:
            return position
        near = self.ids[position - 1 : position - 1 + LINE_SEARCH]
        ends = np.flatnonzero(near == self.newline_id)
        if len(ends):
            return position + int(ends[0])
        is_last_line = position - 1 + LINE_SEARCH >= len(self.ids)
        return len(self.ids) if is_last_line else position

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the text and the random generator, as JSON values."""
        return {
            "served": self.served,
            "computed": self.computed,
            "parts": self._parts,
            "shift": self._shift,
            "queue": list(self._queue),
            "rows": [list(row) for row in self._rows],
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go to a position saved by `state_dict`."""
        self.served = int(record["served"])
        self.computed = int(record["computed"])
        self._parts, self._shift = int(record["parts"]), int(record["shift"])
        self._queue = [int(number) for number in record["queue"]]
        self._rows = [Place(*map(int, row)) for row in record["rows"]]
        self._rng.bit_generator.state = record["rng"]
