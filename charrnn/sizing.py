"""Defaults chosen from the corpus, the budget and the machine: the rules, and what justifies them.

The unit of a budget is the character: so many can be read in the time there is, or in the steps or
passes asked for. A network pays for its size when it reads enough characters for each of its
weights. Measured on tinyshakespeare (1.1 M characters, last tenth as validation), one LSTM layer,
two cores, the best width by time (docs/recipes.md has the figures):

    25 s   2 M characters    256 units: 0.3 M weights, 6 characters a weight
    120 s  7 M               384 units: 0.7 M weights, 10 characters a weight
    200 s  6 M               512 units as good as 384: 1.1 M weights, 6 characters a weight

Few lanes, windows of 64 and a high learning rate do best at every size; dropout pays only where
the text is read so often that it would be learned by heart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.config import ModelConfig, TrainingConfig
from charrnn.errors import ConfigError

RELATIVE_SPEED = {128: 1.6, 256: 1.0, 384: 0.55, 512: 0.33, 768: 0.16, 1024: 0.09}
"""Speed of training by width, one layer, beside that of 256 units."""
TYPICAL_SPEED = 110_000.0
"""Characters a second of 256 units on two cores with bfloat16, where nothing was measured."""
CHARS_PER_WEIGHT = 6
"""Characters to read in training for each weight of a network that is worth its size."""
WIDEST = {30_000: 128, 300_000: 256, 3_000_000: 512, 10_000_000: 768}
"""The widest layer by the characters of the text: a wider one learns it by heart."""
FEW_PASSES = 10
"""A text read less often than this needs no dropout."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The settings that depend on corpus, budget and machine."""

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


def choose_size(n_chars: int, vocab_size: int, characters: Mapping[int, float]) -> Size:
    """Return the settings that do best.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        characters: how many the budget lets a network of each width of `RELATIVE_SPEED` read.
    """
    embedding = 32 if vocab_size <= 256 else 64
    widest = next((width for size, width in WIDEST.items() if n_chars < size), max(characters))
    hidden = min(characters)
    for width, read in sorted(characters.items()):
        shape = ModelConfig(vocab_size=vocab_size, hidden_size=width, embedding_size=embedding)
        if width <= widest and read >= CHARS_PER_WEIGHT * shape.num_parameters():
            hidden = width
    return Size(
        hidden_size=hidden,
        embedding_size=embedding,
        dropout=0.0 if characters[hidden] < FEW_PASSES * n_chars else 0.25,
        batch_size=16,
        bptt=64,
        learning_rate=1.2e-2,
    )


def characters_by_width(
    training: TrainingConfig, n_chars: int, *, layers: int, speed: float
) -> dict[int, float]:
    """Return how many characters the budget lets a network of each width read.

    Args:
        training: its budget, lanes and window count.
        n_chars: characters of the training text.
        layers: number of layers, each about as slow as the first.
        speed: characters a second of one layer of 256 units.
    """
    if training.epochs is not None:
        return dict.fromkeys(RELATIVE_SPEED, training.epochs * n_chars)
    if training.steps is not None:
        read = training.steps * training.batch_size * training.bptt
        return dict.fromkeys(RELATIVE_SPEED, float(read))
    assert training.time_s is not None
    rate = training.time_s * speed / layers
    return {width: rate * relative for width, relative in RELATIVE_SPEED.items()}


def complete_settings(
    n_chars: int, vocab_size: int, given: Mapping[str, Any], *, speed: float = TYPICAL_SPEED
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the settings of a run: what was given, and good choices for the rest.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        given: fields of ModelConfig and TrainingConfig; None means not given.
        speed: characters a second that a layer of 256 units trains on.

    Raises:
        ConfigError: a value is out of range, or a name is no setting.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if not {"time_s", "epochs", "steps"} & set(given):
        given = {"finish_early": True, **given, "time_s": default_time_s(n_chars)}
    model_fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training_fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    for name in given:
        if name not in model_fields | training_fields:
            raise ConfigError(f"there is no setting called {name!r}")

    def part(fields: set[str]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in fields}

    settings: dict[str, Any] = {"batch_size": 16, "bptt": 64, **given, "vocab_size": vocab_size}
    asked_model, asked_training = ModelConfig(**part(model_fields)), part(training_fields)
    characters = characters_by_width(
        TrainingConfig(**asked_training), n_chars, layers=asked_model.num_layers, speed=speed
    )
    if "hidden_size" in given:  # the rest is chosen for the width asked for
        near = min(characters, key=lambda width: abs(width - asked_model.hidden_size))
        characters = {near: characters[near]}
    settings = {
        **dataclasses.asdict(choose_size(n_chars, vocab_size, characters)),
        **given,
        "vocab_size": vocab_size,
    }
    return ModelConfig(**part(model_fields)), TrainingConfig(**part(training_fields))
