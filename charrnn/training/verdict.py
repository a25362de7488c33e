"""What a run has shown, and what was measured to help where it shows that.

`benchmarks/verdicts.py` trains on texts of several kinds, does what the verdict advises, and prints
what that brought; docs/recipes.md has its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from charrnn.config import TrainingConfig
from charrnn.events import Advice, Verdict
from charrnn.training.loss import Measured
from charrnn.training.schedule import WARMUP_STEPS

LEAST_VALIDATION = 1_000
"""Characters of validation text below which a difference of losses is mostly chance."""
UNFAMILIAR = 0.1
"""Share of unknown characters in the validation text beyond which the known ones between them say
little about a model."""
OVERFIT_RISE = 0.01
"""Nats the validation loss has risen from its lowest before we call it overfitting."""
LEARNED = 0.05
"""Nats below the unigram entropy from which a network has learned more than frequencies."""
MORE_EPOCHS = 30.0
"""Epochs up to which reading the text as often once more helped in all we measured."""
DROPOUT_EPOCHS = 10.0
"""Epochs from which dropout helped a network that overfits without it."""
WORSE = 1.1
"""A loss this many times that of chance is worse than chance: a network of random weights, which
has learned nothing, is nearer to it."""
LARGE_GAP = 0.5
"""Nats above the training loss from which more text is what helps."""


def verdict(
    curve: Sequence[Mapping[str, Any]],
    train: Measured,
    training: TrainingConfig,
    *,
    n_val: int,
    vocab_size: int,
    is_complete: bool = True,
) -> Verdict:
    """Judge a run.

    Args:
        curve: the rows of metrics.jsonl.
        train: loss on the training text, measured as on the validation text.
        training: how it was trained.
        n_val: characters of the validation text.
        vocab_size: number of ids, among which chance would choose.
        is_complete: it was trained to its end, with the learning rate brought down.
    """
    if not is_complete:
        return Verdict(judgement="interrupted")
    losses = [row["val_loss_nats"] for row in curve if row["val_loss_nats"] is not None]
    chance, last = math.log(vocab_size), max([train.loss, *losses[-1:]])
    if last > WORSE * chance:
        return Verdict(judgement="worse than chance", advice="lower rate", loss=last, chance=chance)
    if train.loss > train.unigram - LEARNED:
        advice: Advice | None = None
        if curve[-1]["step"] < WARMUP_STEPS and last < chance:
            advice = "more training"
        return Verdict(judgement="not learned", advice=advice, epochs=curve[-1]["epoch"])
    if n_val == 0:
        return Verdict(judgement="no validation")
    unknown_share = curve[-1]["unknown_share"]
    if not losses or unknown_share > UNFAMILIAR:
        return Verdict(judgement="unknown validation", unknown_share=unknown_share)
    if n_val < LEAST_VALIDATION:
        return Verdict(judgement="little validation", n_val=n_val)
    rise, gap, epochs = losses[-1] - min(losses), losses[-1] - train.loss, curve[-1]["epoch"]
    if rise > OVERFIT_RISE:
        is_bare = training.dropout == training.recurrent_dropout == 0
        advice = "dropout" if is_bare and epochs >= DROPOUT_EPOCHS else None
    else:
        advice = "more training" if epochs <= MORE_EPOCHS and rise == 0 else None
    if advice is None and gap >= LARGE_GAP:
        advice = "more text"
    return Verdict(
        judgement="overfits" if rise > OVERFIT_RISE else "sound",
        advice=advice,
        epochs=epochs,
        gap=gap,
        rise=rise,
        train_loss=train.loss,
    )
