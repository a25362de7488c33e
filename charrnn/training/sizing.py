"""Defaults chosen from the corpus, the limits and the machine: the rules, and what justifies them.

The unit is the character: the limits of a run let a network read a certain number of them. A
network pays for its size when it reads enough characters for each of its weights. Measured with
parts of tinyshakespeare, one LSTM layer, 16 rows of 64, the last tenth of the whole as validation
(docs/recipes.md has the figures):

    text    read    best width        best dropout, recurrent dropout, weight decay
    30 k    1.5 M   128               0.25 to 0.5, 0.2, 0.15
    60 k    3 M     128               0.25, 0.2, 0.1
    100 k   5 M     256               0.25, 0.2, 0.08
    200 k   6 M     256               0.25, 0.2, 0.05
    1 M     2 M     256               0, 0, 0.05
    1 M     7 M     384               0, 0, 0.05
    1 M     14 M    512               0.25, 0, 0.05
    1 M     36 M    512               0.25, 0.2, 0.05

That is for a single network. The mean of two is better than one that reads twice as much, once each
reads a text of a million characters some five times. On a CPU with several threads, two side by
side even read more than one. Where they read 1.4 times the characters of one, on two threads, the
best of those tried, one seed or the mean of several and their range:

    text     limit    single network           ensemble
    10 k     50 ×     2.036                    1.989 (four members)
    30 k     20 s     1.808                    1.776 (four members)
    1 M      45 s     1.474 (1.468 to 1.480)   1.463 (1.460 to 1.466)
    1 M      120 s    1.392 (1.385 to 1.400)   1.394 (1.387 to 1.404)
    1 M      570 s    1.363                    1.326, 1.335
    4.3 M    120 s    1.447                    1.430

The shorter the text, and the more often it is read, the more overfitting must be held back; beyond
some fifty epochs a network overfits whatever the settings.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from charrnn.batches.windows import Window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.models.device import choose_device, is_out_of_memory
from charrnn.models.network import CharNetwork
from charrnn.training.loss import window_loss
from charrnn.training.optimizers import RENEWED_EVERY, build_optimizers
from charrnn.training.system import Workers, choose_dtype

RELATIVE_SPEED = {
    128: 1.8, 192: 1.35, 256: 1.0, 384: 0.56, 512: 0.32, 768: 0.15, 1024: 0.07
}  # fmt: skip
"""Speed of training by width, one layer, relative to 256 units."""
CHARS_PER_WEIGHT, MEMBER_CHARS_PER_WEIGHT = 6, 10
"""Characters to read in training for each weight of a network that is worth its size: of a single
one, of an ensemble member."""
WIDEST = {80_000: 128, 300_000: 256, 3_000_000: 512, 10_000_000: 768}
"""The widest layer by the characters of the text: a wider one overfits."""
FEW_EPOCHS, MANY_EPOCHS, MOST_EPOCHS = 10, 25, 50
"""Below the first, a text needs no dropout; above the second, it needs recurrent dropout too; above
the third, reading it again does not help."""
ENOUGH_EPOCHS = {4: 9.0, 2: 5.0}
"""Epochs of each of this many members from which they are worth more than fewer that read more.
An ensemble costs its members together in sampling, so there is an end to it."""
SIDE_BY_SIDE = 1.15
"""If two networks together read this many times the characters of one, two are worth it after any
number of epochs, provided that they read enough for their weights."""
SINGLE_DROPOUT, MEMBER_DROPOUT = (0.25, 0.2), (0.1, 0.1)
"""Dropout and recurrent dropout, where they pay, of a single network and of ensemble members: these
may overfit more, for their mean does not."""
SHORT_TEXT = 500_000
"""Characters below which recurrent dropout pays after `FEW_EPOCHS` already."""
LEAST_TIME_S, MOST_TIME_S, TIME_PER_CHAR_S = 20.0, 570.0, 600e-6
"""Of the default time limit."""
MEASURED_HIDDEN, MEASURED_ROWS, MEASURED_WINDOW = 256, 16, 64
MEASURED_S = 0.4
GPU_TIME_PER_CHAR_S = 50e-6
"""Of the default time limit on a GPU: under a minute for a million characters. What is said of GPUs
here and below follows from reasoning, and is not measured."""
GPU_HIDDEN, GPU_WIDTHS = 512, (128, 256, 384, 512, 768, 1024, 1536, 2048)
"""Width at which the batch rows are chosen, and the widths that are measured to choose from."""
MOST_ROWS, BUSY, CHARS_PER_ROW = 512, 1.4, 4096
"""Batch rows on a GPU are doubled up to the first, while each doubling brings this many times the
characters a second, and while each row has this many characters to read."""


@dataclass(frozen=True)
class Speed:
    """Characters a second that layers of 256 units train on."""

    alone: float = 110_000.0
    """One network. The defaults are for two cores with bfloat16, where nothing was measured."""
    together: float = 140_000.0
    """The sum of two networks trained side by side."""
    rows: int = MEASURED_ROWS
    """Batch rows at which the machine is busy."""
    by_width: Mapping[int, float] | None = None
    """Characters a second by width, where other widths were measured than 256 units."""

    def of(self, width: int) -> float:
        """Return the characters a second that one layer of this width trains on."""
        if self.by_width is None:
            return self.alone * RELATIVE_SPEED[width]
        return self.by_width[width]

    def gain(self, width: int) -> float:
        """Return how many times the characters of one network an ensemble reads."""
        return min(2.0, max(1.0, 1 + (self.together / self.alone - 1) * 256 / width))


FILLING = {"bptt": 128, "unknown_rate": 0.05}
"""Of bidirectional networks. They see no text to the right of a window, so it is longer; and they
read gaps that are still open as UNK, so they meet UNK more often."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The settings that depend on corpus, limits and machine."""

    hidden_size: int
    embedding_size: int
    members: int
    dropout: float
    recurrent_dropout: float
    weight_decay: float
    learning_rate: float


def complete_settings(
    n_chars: int, vocab_size: int, given: Mapping[str, Any], *, speed: Speed | None = None
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the settings of a run: what was given, and good choices for the rest.

    Args:
        n_chars: characters of the training text.
        vocab_size: ids, UNK and EOS included.
        given: fields of ModelConfig and TrainingConfig, without those left open.
        speed: of the machine; None measures it where a time limit makes it matter.

    Raises:
        ConfigError: a value is out of range, or the device is not available.
    """
    given = dict(given)
    is_gpu = choose_device(_make(TrainingConfig, given).device).type == "cuda"
    if not {"time_s", "epochs", "steps"} & set(given):
        given["time_s"] = default_time_s(n_chars, is_gpu=is_gpu)
    asked_model = _make(ModelConfig, given, vocab_size=vocab_size)
    asked = _make(TrainingConfig, given)
    is_timed = asked.time_s is not None
    if speed is None:
        speed = Speed()
        if is_timed and is_gpu:
            rows = asked.batch_size if "batch_size" in given else None
            speed = measure_gpu(choose_device(asked.device), asked.dtype, n_chars, rows)
        elif is_timed:
            speed = measure_speed(asked.device, asked.dtype)
    widths = tuple(speed.by_width or RELATIVE_SPEED)
    if speed.by_width is not None:
        given.setdefault("batch_size", speed.rows)
    if "hidden_size" in given:  # the rest is chosen for the width asked for
        widths = (min(widths, key=lambda width: abs(width - asked_model.hidden_size)),)
    layers = asked_model.num_layers * (2 if asked_model.bidirectional else 1)
    is_open = is_timed and not {"hidden_size", "num_layers"} & set(given)
    size = choose_size(
        n_chars,
        vocab_size,
        readable(asked, n_chars, layers=layers, speed=speed),
        widths=widths,
        members=given.get("members", None if is_open else 1),
        gain=speed.gain(256),
    )
    settings = {**dataclasses.asdict(size), **given}
    if asked_model.bidirectional:
        settings = {**FILLING, **settings}
    if is_timed:  # time alone is no wish to overfit
        settings.setdefault("epochs", MOST_EPOCHS)
    return (
        _make(ModelConfig, settings, vocab_size=vocab_size),
        _make(TrainingConfig, settings),
    )


def _make(kind: type[Any], settings: Mapping[str, Any], **more: Any) -> Any:
    """Return a config of those settings that are its fields."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in names}, **more)


def default_time_s(n_chars: int, *, is_gpu: bool = False) -> float:
    """Return the time limit when no limit is given: ten minutes per million characters."""
    per_char_s = GPU_TIME_PER_CHAR_S if is_gpu else TIME_PER_CHAR_S
    return min(MOST_TIME_S, max(LEAST_TIME_S, n_chars * per_char_s))


def readable(
    training: TrainingConfig, n_chars: int, *, layers: int, speed: Speed
) -> Callable[[int, int], float]:
    """Return a function of width and members: the characters that the limits let each member read.

    Args:
        training: its limits, rows and window count.
        n_chars: characters of the training text.
        layers: number of layers, each about as slow as the first.
        speed: of the machine.
    """
    counted = min(
        math.inf if training.epochs is None else training.epochs * n_chars,
        math.inf
        if training.steps is None
        else training.steps * training.batch_size * training.bptt,
    )

    def read(width: int, members: int) -> float:
        if training.time_s is None:
            return counted
        gain = speed.gain(width) if members > 1 else 1.0
        alone = training.time_s * speed.of(width) / layers
        return min(counted, alone * gain / members)

    return read


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
        read: the characters that each member can read, by width and members.
        widths: to choose from, rising.
        members: ensemble members; None for the number that the limits have time for.
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
        epochs = read(width, members) / n_chars
        if epochs < MOST_EPOCHS and not pays(width, members):
            return False
        is_faster = members == 2 and gain >= SIDE_BY_SIDE
        return is_faster or epochs >= ENOUGH_EPOCHS[members]

    if members is None:
        members = next((number for number in ENOUGH_EPOCHS if is_worth_it(number)), 1)
    hidden = widest_for(members)
    epochs = min(MOST_EPOCHS, read(hidden, members) / n_chars)
    is_often_read, is_short = epochs >= FEW_EPOCHS, n_chars < SHORT_TEXT
    is_dropped = is_often_read and (is_short or epochs >= MANY_EPOCHS)
    weight_decay = min(0.3, max(0.01, 0.05 * math.sqrt(1e6 / n_chars)))
    if is_dropped and is_short:  # what recurrent dropout does, weight decay need not
        weight_decay /= 2
    dropout, recurrent_dropout = SINGLE_DROPOUT if members == 1 else MEMBER_DROPOUT
    return Size(
        hidden_size=hidden,
        embedding_size=embedding,
        members=members,
        dropout=dropout if is_often_read else 0.0,
        recurrent_dropout=recurrent_dropout if is_dropped else 0.0,
        weight_decay=round(weight_decay, 3),
        # twice the rate gains 0.02 nats in the first epochs, and nothing in later ones
        learning_rate=2.4e-2 if hidden <= 256 and epochs < FEW_EPOCHS else 1.2e-2,
    )


def measure_speed(device: str, dtype: str) -> Speed:
    """Return how fast an LSTM layer of 256 units trains here, alone and two side by side.

    Args:
        device: as in `TrainingConfig`.
        dtype: as in `TrainingConfig`.

    Raises:
        ConfigError: the device is not available.
    """
    place = choose_device(device)
    if dtype == "auto":
        dtype = choose_dtype(place, MEASURED_HIDDEN)
    steps = [_step(place, dtype) for _ in range(2)]
    workers = Workers(len(steps), place)

    def together() -> None:
        workers.map(lambda step: step(), steps)

    n_chars = MEASURED_ROWS * MEASURED_WINDOW
    return Speed(n_chars * _rate(steps[0], place), 2 * n_chars * _rate(together, place))


def measure_gpu(place: torch.device, dtype: str, n_chars: int, rows: int | None = None) -> Speed:
    """Return how fast LSTM layers train on a GPU with as many batch rows as keep it busy.

    Members train one after the other there.

    Args:
        place: the GPU.
        dtype: as in `TrainingConfig`.
        n_chars: characters of the training text, whose rows must not be too short.
        rows: batch rows asked for; None finds them.
    """
    if dtype == "auto":
        dtype = choose_dtype(place, GPU_HIDDEN)

    def speed(rows: int, width: int) -> float:
        try:
            return rows * MEASURED_WINDOW * _rate(_step(place, dtype, rows, width), place)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return 0.0
            raise

    if rows is None:
        rows, here = MEASURED_ROWS, speed(MEASURED_ROWS, GPU_HIDDEN)
        while 2 * rows <= min(MOST_ROWS, n_chars // CHARS_PER_ROW):
            before, here = here, speed(2 * rows, GPU_HIDDEN)
            if here < BUSY * before:
                break
            rows *= 2
    by_width = {width: speed(rows, width) for width in GPU_WIDTHS}
    return Speed(by_width[256], by_width[256], rows, by_width)


def _step(
    place: torch.device, dtype: str, rows: int = MEASURED_ROWS, width: int = MEASURED_HIDDEN
) -> Callable[[], None]:
    """Return a function that takes a step with a network of its own."""
    shape = ModelConfig(vocab_size=67, hidden_size=width, embedding_size=32)
    network = CharNetwork(shape).to(place)
    optimizers = build_optimizers(network, TrainingConfig())
    ids = np.zeros((rows, MEASURED_WINDOW), np.int64)
    window = Window(ids, ids, np.zeros(rows, np.float32), ids.size)
    state = network.initial_state(rows)

    def step() -> None:
        loss, _ = window_loss(network, window, state, place, dtype)
        torch.autograd.backward(loss / window.n_targets)
        for optimizer in optimizers:
            optimizer.step()

    return step


def _rate(step: Callable[[], None], place: torch.device) -> float:
    """Return the steps per second; every fourth one recomputes Muon's updates."""

    def take() -> None:
        for _ in range(RENEWED_EVERY):
            step()

    def wait() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    take()  # allocates and compiles
    wait()
    steps, started = 0, time.perf_counter()
    while steps == 0 or time.perf_counter() - started < MEASURED_S:
        take()
        steps += RENEWED_EVERY
    wait()
    return steps / (time.perf_counter() - started)
