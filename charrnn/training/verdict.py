"""What the curve of a run says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from charrnn.events import Verdict

OVERFIT_RISE = 0.01
"""Nats the validation loss has risen from its lowest before we call it overfitting."""
WIDE_GAP = 0.25
"""Nats between training and validation loss that more dropout would narrow."""
NARROW_GAP = 0.03
"""Nats below which the model has learned no more of the training text than of the rest."""
FEW_EPOCHS = 2.0
"""Epochs before which a model has not seen enough of its text."""


def verdict(
    curve: Sequence[Mapping[str, Any]], train_loss: float, *, is_complete: bool = True
) -> Verdict:
    """Judge a run.

    Args:
        curve: the rows of metrics.jsonl.
        train_loss: nats per character on the training text, measured like validation.
        is_complete: it was trained to its end, with the learning rate brought down.
    """
    if not is_complete:
        return Verdict(judgement="interrupted")
    losses = [row["val_loss_nats"] for row in curve if row["val_loss_nats"] is not None]
    if not losses:
        return Verdict(judgement="no validation")
    rise, gap, epochs = losses[-1] - min(losses), losses[-1] - train_loss, curve[-1]["epoch"]
    if rise > OVERFIT_RISE:
        return Verdict(judgement="overfits", amount=rise)
    if gap > WIDE_GAP:
        return Verdict(judgement="wide gap", amount=gap)
    if epochs < FEW_EPOCHS:
        return Verdict(judgement="few epochs", amount=epochs)
    return Verdict(judgement="narrow gap" if gap < NARROW_GAP else "good", amount=gap)
