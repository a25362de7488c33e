"""When a run has diverged, and how often it may go back and try more slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from charrnn.errors import DivergenceError
from charrnn.training.records import real, whole

CHECK_EVERY = 16
"""Steps whose mean loss is judged together."""
EXPLOSION, EXPLOSION_FROM = 1.5, 100
"""A loss this many times that of chance is an explosion, from this step on."""
MAX_ROLLBACKS = 3
ROLLBACK_SCALE = 0.3


def has_diverged(loss: float | None, step: int, vocab_size: int) -> bool:
    """Say whether the mean loss of the recent steps, in nats, is no number or far above chance.

    A healthy run may spike in its first steps, but does not stay there.

    Args:
        loss: since the previous check; None is sound.
        step: steps taken.
        vocab_size: number of ids, among which chance would choose.
    """
    if loss is None:
        return False
    if not math.isfinite(loss):
        return True
    return step >= EXPLOSION_FROM and loss > EXPLOSION * math.log(vocab_size)


@dataclass(frozen=True)
class Caution:
    """What earlier explosions have taught a run."""

    rollbacks: int = 0
    rate_scale: float = 1.0
    """All learning rates are multiplied by this."""

    def __post_init__(self) -> None:
        """Check what may come from a resume state."""
        whole(self.rollbacks, high=MAX_ROLLBACKS)
        real(self.rate_scale, high=1.0)

    def after_explosion(self, model: Path) -> Caution:
        """Return the caution with which to try again.

        Args:
            model: where the best model would be.

        Raises:
            DivergenceError: it has happened too often.
        """
        rollbacks = self.rollbacks + 1
        if rollbacks > MAX_ROLLBACKS:
            kept = f"the best model so far is {model}" if model.exists() else "no model was saved"
            raise DivergenceError(
                f"the loss exploded {rollbacks} times although the learning rate was lowered each "
                f"time; {kept}; try a lower learning rate, a smaller clip norm or another seed"
            )
        return Caution(rollbacks, self.rate_scale * ROLLBACK_SCALE)
