"""Windows that measure: every character of a text counts exactly once.

Shapes: B lanes, T characters of one window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charrnn.batches.windows import IGNORE, Window
from charrnn.vocab import EOS_ID, Ids


def evaluation_windows(
    ids: Ids, *, batch_size: int, bptt: int, warmup: int, limit: int | None = None
) -> Iterator[Window]:
    """Yield windows that count every character of a text exactly once, in several lanes.

    Each lane but the first reads `warmup` uncounted characters before its part, so that its state
    is nearly the one carried through the whole text. One lane (`batch_size=1`) is exact.

    Args:
        ids: the text `[N]`.
        batch_size: lanes.
        bptt: window, in characters.
        warmup: uncounted characters before each lane's part.
        limit: evaluate only the first `limit` characters.
    """
    n = len(ids) if limit is None else min(limit, len(ids))
    if n == 0:
        return
    batch_size = min(batch_size, n)
    edges = [k * n // batch_size for k in range(batch_size + 1)]
    first = [max(0, a - warmup) for a in edges[:-1]]
    longest = max(b - f for f, b in zip(first, edges[1:], strict=True))
    for offset in range(0, longest, bptt):
        width = min(bptt, longest - offset)
        inputs_BT = np.full((batch_size, width), EOS_ID, dtype=np.int64)
        targets_BT = np.full((batch_size, width), IGNORE, dtype=np.int64)
        for b in range(batch_size):
            position = first[b] + offset
            stop = min(position + width, edges[b + 1])
            if stop <= position:
                continue
            text = ids[position:stop]
            counted = max(edges[b] - position, 0)  # before it: warm-up
            targets_BT[b, counted : stop - position] = text[counted:]
            if position:
                inputs_BT[b, 0] = ids[position - 1]
            inputs_BT[b, 1 : stop - position] = text[:-1]
        keep_B = np.full(batch_size, float(offset > 0), dtype=np.float32)
        yield Window(inputs_BT, targets_BT, keep_B, int((targets_BT != IGNORE).sum()))
