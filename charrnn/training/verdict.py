"""What the curve of a run says, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OVERFIT_RISE = 0.01
"""Nats the validation loss has risen from its best before we call it overfitting."""
WIDE_GAP = 0.25
"""Nats between training and validation loss that more dropout would narrow."""
NARROW_GAP = 0.03
"""Nats below which the model has learned no more of the training text than of the rest."""
FEW_PASSES = 2.0
"""Passes over the training text before which a model has not seen enough of it."""


def verdict(
    curve: Sequence[Mapping[str, Any]], train_loss: float, *, is_complete: bool = True
) -> str:
    """Judge a run.

    Args:
        curve: the rows of metrics.jsonl.
        train_loss: nats per character on the training text, measured like validation.
        is_complete: it was trained to its end, with the learning rate brought down.
    """
    if not is_complete:
        return "the run was stopped before its end, and can only be judged when it goes on to it"
    losses = [row["val_loss_nats"] for row in curve if row["val_loss_nats"] is not None]
    if not losses:
        return "without validation text, over- or underfitting cannot be told"
    best, last, passes = min(losses), losses[-1], curve[-1]["epoch"]
    gap = last - train_loss
    if last > best + OVERFIT_RISE:
        return (
            f"overfit at the end: validation rose by {last - best:.3f} nats from its best, which "
            "is the model kept; try more --dropout, --recurrent-dropout or --weight-decay, or a "
            "smaller --hidden"
        )
    if gap > WIDE_GAP:
        return (
            f"leaning to overfit: training text is {gap:.2f} nats better than validation; "
            "more --dropout, --recurrent-dropout or --weight-decay would help, or more text"
        )
    if passes < FEW_PASSES:
        return f"underfit: the text has been read only {passes:.2g} times; more training would help"
    if gap < NARROW_GAP:
        return "underfit: training and validation are still alike; more training would help"
    return (
        f"well fit: validation is {gap:.2f} nats above the training text; more text, or more time "
        "for a larger --hidden, would help further"
    )
