"""What happens during training, as plain values that the display puts into words.

Losses are in nats per unit (character, or byte in a byte model), progress is from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charrnn.config import ModelConfig, TrainingConfig, Unit

Reason = Literal["time", "epochs", "steps", "rising loss", "interrupted"]
"""Why a run ended: the limit that was reached, a validation loss that kept rising, or the user."""
Judgement = Literal[
    "interrupted",
    "worse than chance",
    "no validation",
    "unknown validation",
    "little validation",
    "not learned",
    "overfits",
    "sound",
]
Advice = Literal["more training", "dropout", "more text", "lower rate"]
"""What was measured to help in the situation: `benchmarks/verdicts.py`."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run has shown."""

    judgement: Judgement
    advice: Advice | None = None
    epochs: float = 0.0
    """How often the text was read."""
    gap: float = 0.0
    """Validation loss at the end, above the training loss measured in the same way."""
    rise: float = 0.0
    """Validation loss at the end, above the lowest of the run."""
    n_val: int = 0
    """Characters of the validation text."""
    unknown_share: float = 0.0
    """Share of them that the model does not know."""
    train_loss: float | None = None
    """On the training text, measured like the validation loss: without dropout."""
    loss: float = 0.0
    """Loss at the end of a run that is worse than chance."""
    chance: float = 0.0
    """That of choosing each character at random."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """Training begins."""

    model: ModelConfig
    training: TrainingConfig
    n_train: int
    n_val: int
    unit: Unit
    """What the losses and counts of this run are of."""
    files_read: int
    files_left_out: int
    """Files of the directories that were passed over."""
    left_out: tuple[str, ...] = ()
    """The first of them."""
    n_copies: int
    """Files of the training text with the bytes of another one."""
    copies: tuple[str, ...] = ()
    """The first of them."""
    batch_size: int
    """Batch rows used: fewer than asked for if the text is short."""
    bptt: int
    """Window used."""
    device: str
    dtype: str
    run: Path
    name_taken: Path | None = None
    """The directory of the name asked for, which another run has."""
    resumed_at: int
    """Steps already taken; 0 for a new run."""
    resumed_s: float = 0.0
    """Seconds already used."""
    resumed_epochs: float = 0.0
    """Epochs already done."""
    late_s: float
    """Seconds by which a time limit will be exceeded because preparing took more than half of
    it."""
    encodings: tuple[str, ...]
    """Encodings of the text."""
    newlines: tuple[str, ...]
    """Line ends found in it."""
    n_duplicates: int
    """Validation documents that are also training documents."""
    looks_like_list: bool
    """One long text that seems to be one document a line."""
    lacking: str = ""
    """The operator of torch for lack of which a GPU was passed over for the CPU."""


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """Some more steps are done."""

    progress: float
    step: int
    train_loss: float | None
    """Mean over the last steps."""
    learning_rate: float
    chars_per_s: float
    eta_s: float | None
    """Seconds to the end at the present rate, if it is known."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The model has been measured on the validation text."""

    progress: float
    step: int
    epoch: float
    elapsed_s: float
    train_loss: float | None
    """Mean of the steps since the last evaluation, the latest first of all; None before the first
    step."""
    val_loss: float | None
    """Calibrated, of the known characters; None without any to validate on."""
    bits_per_char: float | None
    """The same in bits per character; of the training loss without a validation text."""
    unknown_share: float
    """Share of the validation text that is unknown to the model."""
    temperature: float
    """Of the calibration; 1 without one."""
    learning_rate: float
    chars_per_s: float
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A short text by the model as it is now."""

    text: str


@dataclass(frozen=True, kw_only=True)
class LossRises:
    """Validation loss keeps rising: the rest of the run is shortened."""

    step: int


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """The loss exploded: the run continues from its last saved state."""

    exploded_at: int
    step: int
    rate_scale_before: float = 1.0
    """Factor of all learning rates until now."""
    rate_scale: float
    """The same from now on."""


@dataclass(frozen=True, kw_only=True)
class RowsHalved:
    """The device's memory was too small for a step: the run continues from its last saved state."""

    step: int
    batch_size: int
    """Batch rows from now on."""


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The user stops the run: the model is measured and saved first."""

    processes: int = 1
    """Of torchrun, which gives them 30 seconds, whatever the user does meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Training is over, and the best model is on disk."""

    reason: Reason
    model_path: Path
    run: Path
    step: int
    epochs: float
    elapsed_s: float
    best_step: int
    val_loss: float | None
    """Of the best model, calibrated."""
    bits_per_char: float
    """The same in bits per character; of the training loss without a validation text."""
    temperature: float
    """Of its calibration."""
    train_loss: float
    """On a piece of the training text, measured like the validation loss."""
    verdict: Verdict


Event = (
    Started
    | Progressed
    | Evaluated
    | Sampled
    | LossRises
    | RolledBack
    | RowsHalved
    | Stopping
    | Finished
)
