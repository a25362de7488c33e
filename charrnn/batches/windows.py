"""One step's worth of text: what a network reads, and what it has to predict.

Shapes: B batch rows, T characters of one window.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Targets that count."""
    rows_B: NDArray[np.int64] | None = None
    """Which rows of the carried state these rows are, when some have ended."""
    stateless: bool = False
    """All rows start from zero, and the carried state waits for a later window."""


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


def window_of(ids: Ids, places: Sequence[Place], width: int) -> Window:
    """Return the window in which each row reads from its position to its end.

    Args:
        ids: the text.
        places: of the rows; none has more than `width` targets.
        width: of the window, T.
    """
    targets_BT = np.full((len(places), width), IGNORE, dtype=np.int64)
    for row, (_, position, end) in zip(targets_BT, places, strict=True):
        row[: end - position] = ids[position:end]
    begin_B, position_B, end_B = np.array(places).T
    continues_B = position_B > begin_B
    first_B = np.where(continues_B, ids[position_B - 1], EOS_ID)
    inputs_BT = shifted(targets_BT, first_B)
    inputs_BT[targets_BT == IGNORE] = EOS_ID
    n_targets = int((end_B - position_B).sum())
    return Window(inputs_BT, targets_BT, continues_B.astype(np.float32), n_targets)


def hide_some(inputs_BT: NDArray[np.int64], rate: float, rng: np.random.Generator) -> None:
    """Show a share of the inputs as UNK, in place, so that reading UNK is learned."""
    if rate:
        hidden_BT = rng.random(inputs_BT.shape, dtype=np.float32) < rate
        inputs_BT[hidden_BT & (inputs_BT != EOS_ID)] = UNK_ID


def fit_window(n_chars: int, batch_size: int, bptt: int) -> tuple[int, int]:
    """Shrink batch size and window to a text of `n_chars`, so that every row has text to read."""
    bptt = min(bptt, max(1, n_chars))
    return min(batch_size, max(1, n_chars // bptt)), bptt
