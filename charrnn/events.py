"""What happens during training, as plain values that the display turns into pictures.

Losses are in nats per character.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from charrnn.config import ModelConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Started:
    """Training begins."""

    model: ModelConfig
    training: TrainingConfig
    n_parameters: int
    n_train: int
    n_val: int
    device: str
    dtype: str
    run: Path
    resumed_at: int
    """Steps already taken; 0 for a new run."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The number of steps, and with it the learning-rate schedule, is fixed."""

    total_steps: int
    epochs: float
    duration_s: float | None
    """How long the rest will take, if it has been measured."""


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """Some more steps are done."""

    step: int
    total_steps: int | None
    train_loss: float | None
    """Mean over the last steps."""
    learning_rate: float
    chars_per_s: float
    eta_s: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The model has been measured on the validation text."""

    step: int
    total_steps: int | None
    epoch: float
    elapsed_s: float
    train_loss: float | None
    """Mean since the last evaluation; None before the first step."""
    val_loss: float | None
    """With the logits scaled; None when the corpus is too small to have a validation text."""
    logit_scale: float
    """Factor of the logits that fits the validation text; 1 where none is fitted."""
    learning_rate: float
    chars_per_s: float
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A short text by the model as it is now."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something the user should know."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Training is over, and the best model is on disk."""

    reason: str
    """`complete`, `interrupted` or `patience`."""
    model_path: Path
    run: Path
    step: int
    elapsed_s: float
    best_step: int
    val_loss: float | None
    """Of the best model, its logits scaled."""
    logit_scale: float
    """Factor of its logits."""
    train_loss: float
    """On a piece of the training text, measured like the validation loss."""
    verdict: str
    padding_share: float
    """Share of the computation that was spent on padding."""


Event = Started | Planned | Progressed | Evaluated | Sampled | Notice | Finished


def bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / math.log(2)
