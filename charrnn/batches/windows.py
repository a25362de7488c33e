"""One step's worth of text.

Shapes: B lanes, T characters of one window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.vocab import EOS_ID, UNK_ID

IGNORE = -1
"""Target of a position that does not count: no loss, no gradient, not in the totals."""


class Window(NamedTuple):
    """What the network reads and predicts in one step, and where its states come from."""

    inputs_BT: NDArray[np.int64]
    """Ids read."""
    targets_BT: NDArray[np.int64]
    """Ids to predict, `IGNORE` where nothing counts."""
    keep_B: NDArray[np.float32]
    """1 where the lane goes on from its carried state, 0 where it starts from zero."""
    n_targets: int
    """Targets that count."""
    rows_B: NDArray[np.int64] | None = None
    """Which rows of the carried state these lanes are, when some lanes have ended."""
    stateless: bool = False
    """All lanes start from zero, and the carried state waits for a later window."""


def hide_some(inputs_BT: NDArray[np.int64], rate: float, rng: np.random.Generator) -> None:
    """Show a share of the inputs as UNK, in place, so that reading UNK is learned."""
    if rate:
        hidden_BT = rng.random(inputs_BT.shape, dtype=np.float32) < rate
        inputs_BT[hidden_BT & (inputs_BT != EOS_ID)] = UNK_ID
