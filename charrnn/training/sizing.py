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

These are of a network that is alone. The mean of two is better than one that reads twice as much,
if each reads a text of a million characters some five times. On a processor of several threads the
two together even read more than one. Where they read 1.4 times the characters of one, on two
threads, the best of each that was tried, one seed or the mean of several and their range:

    text     budget   one                      several
    10 k     50 ×     2.036                    1.989 (four)
    30 k     20 s     1.808                    1.776 (four)
    1 M      45 s     1.474 (1.468 to 1.480)   1.463 (1.460 to 1.466)
    1 M      120 s    1.392 (1.385 to 1.400)   1.394 (1.387 to 1.404)
    1 M      570 s    1.363                    1.326, 1.335
    4.3 M    120 s    1.447                    1.430

The shorter the text, and the more often it is read, the more it must be kept from being learned by
heart; read more than some fifty times, it is, whatever the settings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn.config import ModelConfig, TrainingConfig
from charrnn.errors import ConfigError

RELATIVE_SPEED = {
    128: 1.8, 192: 1.35, 256: 1.0, 384: 0.56, 512: 0.32, 768: 0.15, 1024: 0.07
}  # fmt: skip
"""Speed of training by width, one layer, beside that of 256 units."""
CHARS_PER_WEIGHT, MEMBER_CHARS_PER_WEIGHT = 6, 10
"""Characters to read in training for each weight of a network that is worth its size, alone or as
one of several."""
WIDEST = {80_000: 128, 300_000: 256, 3_000_000: 512, 10_000_000: 768}
"""The widest layer by the characters of the text: a wider one learns it by heart."""
FEW_PASSES, MANY_PASSES, MOST_PASSES = 10, 25, 50
"""A text read less often than the first needs no dropout, more often than the second recurrent
dropout, too; more often than the third is of no use."""
ENOUGH_PASSES = {4: 9.0, 2: 5.0}
"""Passes over the text of each of so many networks after which so many are worth more than fewer
that read more. The model is as wide as they are together, so there is an end to it."""
SIDE_BY_SIDE = 1.15
"""Where two networks together read so many times the characters of one, two are worth it however
seldom they read the text, if they read enough for their weights."""
ALONE, TOGETHER = (0.25, 0.2), (0.1, 0.1)
"""Dropout and recurrent dropout, where they pay, of a single network and of members: these may
learn more by heart, for their mean does not."""
SHORT_TEXT = 500_000
"""Characters below which recurrent dropout pays however often they are read beyond a few times."""


@dataclass(frozen=True)
class Speed:
    """Characters a second that layers of 256 units train on."""

    alone: float = 110_000.0
    """One network. The defaults are for two cores with bfloat16, where nothing was measured."""
    together: float = 140_000.0
    """Both of two networks trained side by side."""

    def gain(self, width: int) -> float:
        """Return how many times the characters of one network several read, less where wider."""
        return min(2.0, max(1.0, 1 + (self.together / self.alone - 1) * 256 / width))


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


TYPICAL = Speed()


def default_time_s(n_chars: int) -> float:
    """Return the time to train when no budget is given: ten minutes per million characters.

    Between 20 seconds and nine and a half minutes: a run may miss its end a little, and is not to
    take more than ten.
    """
    return min(570.0, max(20.0, n_chars * 600e-6))


def choose_size(
    n_chars: int,
    vocab_size: int,
    read: Callable[[int, int], float],
    *,
    widths: Sequence[int] = tuple(RELATIVE_SPEED),
    members: int | None = None,
    gain: float = 1.0,
) -> Size:
    """Return the settings that do best.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        read: how many characters the budget lets each member read, by width and members.
        widths: to choose from, rising.
        members: networks to train; None for as many as the budget has time for.
        gain: how many times the characters of one network two of 256 units read.
    """
    embedding = 32 if vocab_size <= 256 else 64
    widest = next((width for size, width in WIDEST.items() if n_chars < size), max(widths))

    def pays(width: int, members: int) -> bool:
        shape = ModelConfig(vocab_size=vocab_size, hidden_size=width, embedding_size=embedding)
        least = CHARS_PER_WEIGHT if members == 1 else MEMBER_CHARS_PER_WEIGHT
        return read(width, members) >= least * shape.num_parameters()

    def widest_for(members: int) -> int:
        narrowest, *rest = widths
        return max([narrowest, *(w for w in rest if w <= widest and pays(w, members))])

    def is_worth_it(members: int) -> bool:
        width = widest_for(members)
        passes = read(width, members) / n_chars
        if passes < MOST_PASSES and not pays(width, members):
            return False
        is_faster = members == 2 and gain >= SIDE_BY_SIDE
        return is_faster or passes >= ENOUGH_PASSES[members]

    if members is None:
        members = next((number for number in ENOUGH_PASSES if is_worth_it(number)), 1)
    hidden = widest_for(members)
    passes = min(MOST_PASSES, read(hidden, members) / n_chars)
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


def readable(
    training: TrainingConfig, n_chars: int, *, layers: int, speed: Speed
) -> Callable[[int, int], float]:
    """Return a function that says how many characters the budget lets each member read.

    Its arguments are width and members.

    Args:
        training: its budget, lanes and window count.
        n_chars: characters of the training text.
        layers: number of layers, each about as slow as the first.
        speed: of the machine.
    """
    if training.epochs is not None:
        total = training.epochs * n_chars
        return lambda width, members: total
    if training.steps is not None:
        total = float(training.steps * training.batch_size * training.bptt)
        return lambda width, members: total
    assert training.time_s is not None
    alone = training.time_s * speed.alone / layers

    def read(width: int, members: int) -> float:
        gain = speed.gain(width) if members > 1 else 1.0
        return alone * RELATIVE_SPEED[width] * gain / members

    return read


def complete_settings(
    n_chars: int, vocab_size: int, given: Mapping[str, Any], *, speed: Speed = TYPICAL
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the settings of a run: what was given, and good choices for the rest.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        given: fields of ModelConfig and TrainingConfig; None means not given.
        speed: of the machine.

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
    read = readable(
        TrainingConfig(**asked_training), n_chars, layers=asked_model.num_layers, speed=speed
    )
    widths = tuple(RELATIVE_SPEED)
    if "hidden_size" in given:  # the rest is chosen for the width asked for
        widths = (min(widths, key=lambda width: abs(width - asked_model.hidden_size)),)
    is_ours = "time_s" in given and not {"hidden_size", "num_layers"} & set(given)
    size = choose_size(
        n_chars,
        vocab_size,
        read,
        widths=widths,
        members=asked_training.get("members", None if is_ours else 1),
        gain=speed.gain(256),
    )
    settings = {**dataclasses.asdict(size), **given, "vocab_size": vocab_size}
    return ModelConfig(**part(model_fields)), TrainingConfig(**part(training_fields))
