"""Defaults chosen from the corpus, the budget and the machine: the rules, and what justifies them.

The unit of a budget is the character: so many can be read in the time there is, or in the steps or
passes asked for. A network pays for its size when it reads enough characters for each of its
weights. Measured with parts of tinyshakespeare, one LSTM layer, 16 lanes of 64, the last tenth of
the whole as validation (docs/recipes.md has the figures):

    text    read    best width        best dropout, recurrent dropout, weight decay
    30 k    1.5 M   128               0.25 to 0.5, 0.2, 0.15
    60 k    3 M     128               0.25, 0.2, 0.1
    100 k   5 M     256               0.25, 0.2, 0.08
    200 k   6 M     256               0.25, 0.2, 0.05
    1 M     2 M     256               0, 0, 0.05
    1 M     7 M     384               0, 0, 0.05
    1 M     14 M    512               0.25, 0, 0.05
    1 M     36 M    512               0.25, 0.2, 0.05

These are of a network that is alone. Where one would read the text so often that more passes gain
little, the time goes into several networks, whose mean is the model; they need less dropout.

The shorter the text, and the more often it is read, the more it must be kept from being learned by
heart; read more than some fifty times, it is, whatever the settings.
"""

from __future__ import annotations

import dataclasses
import math
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
WIDEST = {80_000: 128, 300_000: 256, 3_000_000: 512, 10_000_000: 768}
"""The widest layer by the characters of the text: a wider one learns it by heart."""
FEW_PASSES, MANY_PASSES, MOST_PASSES = 10, 25, 50
"""A text read less often than the first needs no dropout, more often than the second recurrent
dropout, too; more often than the third is of no use."""
ENSEMBLES = (4, 2)
"""Numbers of networks to train side by side, where there is time: such as fill two or four cores.
Their model is as wide as they are together, so there is an end to it."""
ENOUGH_PASSES = 9.0
"""Passes over a million characters after which a second network is worth more than as many passes
again; over a shorter text more, as the root of its length is smaller."""
ALONE, TOGETHER = (0.25, 0.2), (0.1, 0.1)
"""Dropout and recurrent dropout, where they pay, of a single network and of members: these may
learn more by heart, for their mean does not."""
SHORT_TEXT = 500_000
"""Characters below which recurrent dropout pays however often they are read beyond a few times."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The settings that depend on corpus, budget and machine."""

    hidden_size: int
    embedding_size: int
    members: int
    dropout: float
    recurrent_dropout: float
    weight_decay: float
    learning_rate: float


def default_time_s(n_chars: int) -> float:
    """Return the time to train when no budget is given: ten minutes per million characters.

    Between 20 seconds and nine and a half minutes: a run may miss its end by a twentieth, and is
    not to take more than ten.
    """
    return min(570.0, max(20.0, n_chars * 600e-6))


def enough_passes(n_chars: int) -> float:
    """Return the passes over a text after which a second network is worth more than more passes."""
    return min(MOST_PASSES, ENOUGH_PASSES * max(1.0, math.sqrt(1e6 / n_chars)))


def choose_size(
    n_chars: int, vocab_size: int, characters: Mapping[int, float], *, members: int | None = None
) -> Size:
    """Return the settings that do best.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        characters: how many the budget lets each member read, or a single one if it is open how
            many there are, for each width of `RELATIVE_SPEED`.
        members: networks to train; None for as many as the budget has time for.
    """
    embedding = 32 if vocab_size <= 256 else 64
    widest = next((width for size, width in WIDEST.items() if n_chars < size), max(characters))
    hidden = min(characters)
    for width, read in sorted(characters.items()):
        shape = ModelConfig(vocab_size=vocab_size, hidden_size=width, embedding_size=embedding)
        if width <= widest and read >= CHARS_PER_WEIGHT * shape.num_parameters():
            hidden = width
    passes = characters[hidden] / n_chars
    if members is None:
        most = passes / enough_passes(n_chars)
        members = next((number for number in ENSEMBLES if number <= most), 1)
        passes = min(MOST_PASSES, passes / members)
    is_often_read, is_short = passes >= FEW_PASSES, n_chars < SHORT_TEXT
    is_dropped = is_often_read and (is_short or passes >= MANY_PASSES)
    weight_decay = min(0.3, max(0.01, 0.05 * math.sqrt(1e6 / n_chars)))
    if is_dropped and is_short:  # what recurrent dropout does, weight decay need not
        weight_decay /= 2
    dropout, recurrent_dropout = ALONE if members == 1 else TOGETHER
    return Size(
        hidden_size=hidden,
        embedding_size=embedding,
        members=members,
        dropout=dropout if is_often_read else 0.0,
        recurrent_dropout=recurrent_dropout if is_dropped else 0.0,
        weight_decay=round(weight_decay, 3),
        # twice the rate gains 0.02 nats on the first passes, and nothing on later ones
        learning_rate=2.4e-2 if hidden <= 256 and passes < FEW_PASSES else 1.2e-2,
    )


def characters_by_width(
    training: TrainingConfig, n_chars: int, *, layers: int, speed: float
) -> dict[int, float]:
    """Return how many characters the budget lets each member read, for each width.

    Args:
        training: its budget, lanes, window and members count.
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
    rate = training.time_s * speed / layers / training.members
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
        given["time_s"] = default_time_s(n_chars)
    if "time_s" in given:  # time is a limit; steps and passes are orders
        given = {"finish_early": True, "max_epochs": MOST_PASSES, **given}
    model_fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training_fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    for name in given:
        if name not in model_fields | training_fields:
            raise ConfigError(f"there is no setting called {name!r}")

    def part(fields: set[str]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in fields}

    settings: dict[str, Any] = {**given, "vocab_size": vocab_size}
    asked_model, asked_training = ModelConfig(**part(model_fields)), part(training_fields)
    characters = characters_by_width(
        TrainingConfig(**asked_training), n_chars, layers=asked_model.num_layers, speed=speed
    )
    if "hidden_size" in given:  # the rest is chosen for the width asked for
        near = min(characters, key=lambda width: abs(width - asked_model.hidden_size))
        characters = {near: characters[near]}
    is_ours = "time_s" in given and not {"hidden_size", "num_layers"} & set(given)
    members = asked_training.get("members", None if is_ours else 1)
    settings = {
        **dataclasses.asdict(choose_size(n_chars, vocab_size, characters, members=members)),
        **given,
        "vocab_size": vocab_size,
    }
    return ModelConfig(**part(model_fields)), TrainingConfig(**part(training_fields))
