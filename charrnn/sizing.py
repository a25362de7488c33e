"""Defaults chosen from the corpus and the budget: the rules, and the measurements behind them.

Measured on tinyshakespeare (1.1 M characters, last tenth as validation), one LSTM layer, two CPU
cores. With Muon a few lanes, windows of 64 and a high learning rate do best; the width is the
largest whose steps are still many enough in the time there is; dropout pays only where the text is
read so often that it would be learned by heart. docs/recipes.md has the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.config import ModelConfig, TrainingConfig
from charrnn.errors import ConfigError

CHARS_PER_S = {128: 200_000, 256: 110_000, 384: 55_000}
"""Speed of training by width, about, on two cores with bfloat16."""
FEW_PASSES = 10
"""A text read less often than this needs no dropout."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The settings that depend on corpus and budget."""

    hidden_size: int
    embedding_size: int
    dropout: float
    batch_size: int
    bptt: int
    learning_rate: float


def default_time_s(n_chars: int) -> float:
    """Return the time to train when no budget is given: ten minutes per million characters.

    Between 20 seconds and 10 minutes.
    """
    return min(600.0, max(20.0, n_chars * 600e-6))


def choose_size(n_chars: int, vocab_size: int, time_s: float) -> Size:
    """Return the settings that do best with `time_s` seconds on two cores.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        time_s: budget in seconds.
    """
    if n_chars < 30_000:
        hidden = 128
    elif n_chars < 300_000 or time_s < 45:
        hidden = 256
    else:
        hidden = 384
    passes = time_s * CHARS_PER_S[hidden] / n_chars
    return Size(
        hidden_size=hidden,
        embedding_size=32 if vocab_size <= 256 else 64,
        dropout=0.0 if passes < FEW_PASSES else 0.25,
        batch_size=16,
        bptt=64,
        learning_rate=1.2e-2,
    )


def complete_settings(
    n_chars: int, vocab_size: int, given: Mapping[str, Any]
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the settings of a run: what was given, and good choices for the rest.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        given: fields of ModelConfig and TrainingConfig; None means not given.

    Raises:
        ConfigError: a value is out of range, or a name is no setting.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if not {"time_s", "epochs", "steps"} & set(given):
        given["time_s"] = default_time_s(n_chars)
    size = choose_size(n_chars, vocab_size, given.get("time_s") or default_time_s(n_chars))
    settings = {**dataclasses.asdict(size), **given, "vocab_size": vocab_size}
    model_fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training_fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    for name in settings:
        if name not in model_fields | training_fields:
            raise ConfigError(f"there is no setting called {name!r}")
    return (
        ModelConfig(**{k: v for k, v in settings.items() if k in model_fields}),
        TrainingConfig(**{k: v for k, v in settings.items() if k in training_fields}),
    )
