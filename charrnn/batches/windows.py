"""Windows: what a network reads in one step, and what it has to predict.

Shapes: B batch rows, T characters of one window; A batch rows of all processes together.

For truncated backpropagation through time a long text is cut into segments that begin at line
starts. Each row reads one segment from its start, window after window with carried state, then the
next free segment. A segment begins with EOS and a zero state. Every epoch cuts at other places and
shuffles. Segments are a few thousand characters long: with longer ones a network sees so few fresh
starts that it never learns to begin a text, and drifts into states that only a long run reaches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.vocab import EOS_ID, UNK_ID, Ids

IGNORE = -1
"""Target of a position that does not count: no loss, no gradient, not in the totals."""


class Window(NamedTuple):
    """What the network reads and predicts in one step, and where its states come from."""

    inputs_BT: NDArray[np.int64]
    """Ids read."""
    targets_BT: NDArray[np.int64]
    """Ids to predict, `IGNORE` where nothing counts."""
    keep_B: NDArray[np.float32]
    """1 where the row continues from its carried state, 0 where it starts from zero."""
    n_targets: int
    """Targets that count, in the rows of all processes."""
    rows_B: NDArray[np.int64] | None = None
    """Which rows of the carried state these rows are, when some have ended."""
    stateless: bool = False
    """All rows start from zero, and the carried state waits for a later window."""
    readers_A: NDArray[np.int64] | None = None
    """Process that reads each row, of the rows of all processes; None where one reads them all."""
    n_ends: int = 0
    """Targets that are EOS, of those of all processes."""
    reversed_BT: NDArray[np.int64] | None = None
    """What a bidirectional network reads from the right, see `from_both_sides`."""
    order_BT: NDArray[np.int64] | None = None
    """Position that each of these ids stands beside."""
    places_B3: NDArray[np.int64] | None = None
    """Where the text is on the device, and inputs and targets are only shapes: the `Place` of each
    row, from which the device takes them."""
    hidden_N: NDArray[np.int64] | None = None
    """With them: the inputs shown as UNK unless they are EOS, as places in `inputs_BT.ravel()`."""


class Share(NamedTuple):
    """Which batch rows a process reads: every `size`-th, from number `rank` on."""

    rank: int = 0
    size: int = 1

    def readers(self, n_rows: int) -> NDArray[np.int64]:
        """Return the number of the process that reads each of so many rows."""
        return np.arange(n_rows) % self.size


class Place(NamedTuple):
    """Where a batch row is in a text that is preceded by EOS."""

    begin: int
    """Of the text, in the ids."""
    position: int
    """Of the next target."""
    end: int
    """One past the last target."""


def shifted(targets: NDArray[Any], first: Any) -> NDArray[np.int64]:
    """Return the inputs that predict targets: each one's predecessor along the last axis.

    Args:
        targets: ids `[T]` or `[B, T]`.
        first: the id before the first target: one, or `[B]`.
    """
    inputs = np.empty(targets.shape, np.int64)
    inputs[..., :1] = np.asarray(first)[..., None]
    inputs[..., 1:] = targets[..., :-1]
    return inputs


Places = Sequence[Place] | NDArray[np.int64]
"""Of the rows of a window; as an array `[B, 3]`."""


def window_of(ids: Ids | None, places: Places, width: int) -> Window:
    """Return the window in which each row reads from its position to its end.

    Args:
        ids: the text; None where it is on the device.
        places: of the rows; none has more than `width` targets.
        width: of the window, T.
    """
    places_B3 = np.asarray(places, np.int64).reshape(-1, 3)
    begin_B, position_B, end_B = places_B3.T
    continues_B = position_B > begin_B
    keep_B, n_targets = continues_B.astype(np.float32), int((end_B - position_B).sum())
    if ids is None:
        shape_BT = np.broadcast_to(np.int64(EOS_ID), (len(places_B3), width))
        return Window(shape_BT, shape_BT, keep_B, n_targets, places_B3=places_B3)
    ids = np.asarray(ids)  # a memory-mapped array makes slower ones of its kind
    at_BT = position_B[:, None] + np.arange(width)
    targets_BT = ids.take(at_BT, mode="clip").astype(np.int64)
    inputs_BT = shifted(targets_BT, np.where(continues_B, ids.take(position_B - 1), EOS_ID))
    is_beyond_BT = at_BT >= end_B[:, None]
    targets_BT[is_beyond_BT], inputs_BT[is_beyond_BT] = IGNORE, EOS_ID
    n_ends = int((targets_BT == EOS_ID).sum())
    return Window(inputs_BT, targets_BT, keep_B, n_targets, n_ends=n_ends)


def shared_window(
    ids: Ids | None,
    places: Places,
    width: int,
    share: Share,
    readers_A: NDArray[np.int64] | None = None,
) -> Window:
    """Return the part of a window that a process reads; of the other rows nothing is read.

    Args:
        ids: the text; None where it is on the device.
        places: of the rows of all processes.
        width: of the window, T.
        share: of this process.
        readers_A: process that reads each row; by default they take turns.
    """
    if share.size == 1:
        return window_of(ids, places, width)
    if readers_A is None:
        readers_A = share.readers(len(places))
    places_A3 = np.asarray(places, np.int64).reshape(-1, 3)
    _, position_A, end_A = places_A3.T
    n_targets, n_ends = int((end_A - position_A).sum()), 0
    if ids is not None:
        n_ends = int(((position_A < end_A) & (ids.take(end_A - 1) == EOS_ID)).sum())
    window = window_of(ids, places_A3[readers_A == share.rank], width)
    return window._replace(n_targets=n_targets, n_ends=n_ends, readers_A=readers_A)


def from_both_sides(window: Window) -> Window:
    """Return a window for a bidirectional network, in which no row predicts its end.

    In each row the text in sight is also read from right to left: EOS, and then the characters
    from the last to the second, so that what is read at a position is the character that follows
    the target there. Rows of different length all begin with their own last character. The targets
    of a window are the only text to the right that it sees.
    """
    B, T = window.targets_BT.shape
    targets_BT = np.where(window.targets_BT == EOS_ID, IGNORE, window.targets_BT)
    is_text_BT = targets_BT != IGNORE
    lengths_B1 = (T - is_text_BT[:, ::-1].argmax(axis=1))[:, None] if T else np.zeros((B, 1), int)
    positions_BT = np.broadcast_to(np.arange(T), (B, T))
    # the inputs, one further on, are the targets as the network may see them, some of them as UNK
    following_BT = np.full((B, T), EOS_ID, np.int64)
    following_BT[:, :-2] = window.inputs_BT[:, 2:]
    is_last_but_one_BT = positions_BT == lengths_B1 - 2
    following_BT[is_last_but_one_BT] = window.targets_BT[:, 1:][is_last_but_one_BT[:, :-1]]
    is_inside_BT = positions_BT < lengths_B1
    # a row in which nothing counts may have no last character
    following_BT[(positions_BT >= lengths_B1 - 1) | (following_BT == IGNORE)] = EOS_ID
    order_BT = np.where(is_inside_BT, lengths_B1 - 1 - positions_BT, positions_BT)
    return window._replace(
        targets_BT=targets_BT,
        n_targets=max(1, window.n_targets - window.n_ends),  # it divides
        reversed_BT=np.take_along_axis(following_BT, order_BT, axis=1),
        order_BT=order_BT,
    )


def hide_some(window: Window, rate: float, rng: np.random.Generator, rank: int = 0) -> Window:
    """Show a share of the inputs as UNK, so that reading UNK is learned.

    Which ones does not depend on the number of processes: each draws for the rows of all.
    """
    if not rate:
        return window
    inputs_BT, readers_A = window.inputs_BT, window.readers_A
    n_rows = len(inputs_BT) if readers_A is None else len(readers_A)
    hidden_BT = rng.random((n_rows, inputs_BT.shape[1]), dtype=np.float32) < rate
    if readers_A is not None:
        hidden_BT = hidden_BT[readers_A == rank]
    if window.places_B3 is not None:
        return window._replace(hidden_N=np.flatnonzero(hidden_BT))
    inputs_BT[hidden_BT & (inputs_BT != EOS_ID)] = UNK_ID
    return window


def saved_numbers(values: Any, high: int) -> list[int]:
    """Return whole numbers from 0 to `high` of a saved position, which may come from a stranger.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= high for v in values):
        raise ValueError("the position in the text is damaged")
    return list(values)


def restore_generator(rng: np.random.Generator, state: Any) -> None:
    """Put a generator into a saved state.

    Raises:
        ValueError: it is none.
    """
    try:
        rng.bit_generator.state = state
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise ValueError("the state of a random generator is damaged") from None


def fit_window(n_chars: int, batch_size: int, bptt: int) -> tuple[int, int]:
    """Shrink batch size and window to a text of `n_chars`, so that every row has text to read."""
    bptt = min(bptt, max(1, n_chars))
    return min(batch_size, max(1, n_chars // bptt)), bptt


SEGMENT = 4096
"""Characters of one segment, about; shorter where the rows would otherwise not all have one."""
MOST = 1 << 62
"""Targets that a saved position may have behind it."""
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
        share: the rows of this process. The position, and what is saved of it, is that of all rows.
        on_device: windows are places only, for a device that has the text.
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
        share: Share = Share(),
        on_device: bool = False,
    ) -> None:
        """Start before the first window of the first epoch."""
        assert len(ids) > 0
        self._read = None if on_device else ids
        self.ids = ids
        self.newline_id = newline_id
        self.batch_size = batch_size
        self.bptt = bptt
        self.unknown_rate = unknown_rate
        self.share = share
        self.readers_A = share.readers(batch_size)
        """Process that reads each row whose state is carried."""
        self.served = 0
        """Targets handed out so far, to all processes."""
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._queue: list[int] = []
        self._parts = self._shift = 0
        self._rows_B3 = np.array([self._next_segment() for _ in range(batch_size)], np.int64)

    @property
    def epoch(self) -> float:
        """Epochs so far."""
        return self.served / len(self.ids)

    def next_window(self) -> Window:
        """Return the next window of every row that this process reads."""
        _, position_B, end_B = self._rows_B3.T
        places_B3 = self._rows_B3.copy()
        places_B3[:, 2] = np.minimum(position_B + self.bptt, end_B)
        window = shared_window(self._read, places_B3, self.bptt, self.share)
        has_ended_B = places_B3[:, 2] == end_B
        self._rows_B3[:, 1] = places_B3[:, 2]
        for b in np.flatnonzero(has_ended_B).tolist():
            self._rows_B3[b] = self._next_segment()
        self.served += window.n_targets
        return hide_some(window, self.unknown_rate, self._rng, self.share.rank)

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
            "parts": self._parts,
            "shift": self._shift,
            "queue": list(self._queue),
            "rows": self._rows_B3.tolist(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go to a position saved by `state_dict`.

        Raises:
            LookupError: a part of it is missing.
            ValueError: it is no position in this text.
        """
        (self.served,) = saved_numbers([record["served"]], MOST)
        n = len(self.ids)
        (self._shift,) = saved_numbers([record["shift"]], max(0, n // self._parts - 1))
        self._queue = saved_numbers(record["queue"], self._parts)
        rows = [Place(*saved_numbers(row, n)) for row in record["rows"]]
        places = [row.begin <= row.position < row.end for row in rows]
        if record["parts"] != self._parts or len(rows) != self.batch_size or not all(places):
            raise ValueError("the position is in another text")
        self._rows_B3 = np.array(rows, np.int64)
        restore_generator(self._rng, record["rng"])


def evaluation_windows(
    ids: Ids,
    *,
    batch_size: int,
    bptt: int,
    warmup: int,
    limit: int | None = None,
    share: Share = Share(),
) -> Iterator[Window]:
    """Yield windows that count every character of a text exactly once, in several rows.

    Each row but the first reads `warmup` uncounted characters before its part, so that its state
    is nearly the one carried through the whole text. One row (`batch_size=1`) is exact.

    Args:
        ids: the text `[N]`.
        batch_size: batch rows.
        bptt: window, in characters.
        warmup: uncounted characters before each row's part.
        limit: evaluate only the first `limit` characters.
        share: the rows of this process.
    """
    n = len(ids) if limit is None else min(limit, len(ids))
    if n == 0:
        return
    batch_size = min(batch_size, n)
    edges = [k * n // batch_size for k in range(batch_size + 1)]
    parts = [(max(0, a - warmup), a, b) for a, b in itertools.pairwise(edges)]
    longest = max(end - first for first, _, end in parts)
    own = parts[share.rank :: share.size]
    for offset in range(0, longest, bptt):
        width = min(bptt, longest - offset)
        places = [
            Place(0, min(first + offset, end), min(first + offset + width, end))
            for first, _, end in parts
        ]
        window = shared_window(ids, places, width, share)
        for row, (first, begin, _) in zip(window.targets_BT, own, strict=True):
            row[: max(begin - first - offset, 0)] = IGNORE  # the warm-up
        keep_B = np.full(len(own), offset > 0, dtype=np.float32)
        n_targets = sum(
            max(0, place.end - max(place.position, begin))
            for place, (_, begin, _) in zip(places, parts, strict=True)
        )
        yield window._replace(keep_B=keep_B, n_targets=n_targets)
