"""Windows that measure: every character of a text counts exactly once.

Shapes: B batch rows, T characters of one window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from charrnn.batches.windows import IGNORE, Place, Window, window_of
from charrnn.vocab import Ids


def evaluation_windows(
    ids: Ids, *, batch_size: int, bptt: int, warmup: int, limit: int | None = None
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
    """
    n = len(ids) if limit is None else min(limit, len(ids))
    if n == 0:
        return
    batch_size = min(batch_size, n)
    edges = [k * n // batch_size for k in range(batch_size + 1)]
    parts = [(max(0, a - warmup), a, b) for a, b in itertools.pairwise(edges)]
    longest = max(end - first for first, _, end in parts)
    for offset in range(0, longest, bptt):
        width = min(bptt, longest - offset)
        places = [
            Place(0, min(first + offset, end), min(first + offset + width, end))
            for first, _, end in parts
        ]
        window = window_of(ids, places, width)
        for row, place, (_, begin, _) in zip(window.targets_BT, places, parts, strict=True):
            row[: max(begin - place.position, 0)] = IGNORE  # the warm-up
        keep_B = np.full(batch_size, offset > 0, dtype=np.float32)
        n_targets = int((window.targets_BT != IGNORE).sum())
        yield window._replace(keep_B=keep_B, n_targets=n_targets)
