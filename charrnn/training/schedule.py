"""Progress: one number from 0 to 1 that drives the learning rate, the evaluations and the end.

    progress = max(seconds / time limit, epochs / epoch limit, steps / step limit)

over the limits that are set. A limit of time counts from the start of the command, and what comes
after the last step (evaluation, saving, the training loss) is part of it, so that the share for
training is known only about; progress never goes back. Whatever depends on steps and epochs alone
is the same on every machine and at every attempt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from charrnn.config import TrainingConfig
from charrnn.events import Reason
from charrnn.training.records import listed, real, whole

WARMUP_STEPS, WARMUP_PROGRESS = 100, 0.1
"""The learning rate rises until one of the two is reached."""
FINAL_RATE = 0.002
"""Learning rate at the end, as a share of the peak."""
GRID = 20
"""Evaluations lie at multiples of 1 / GRID of progress, as far as they are affordable."""
QUARTERS = (5, 10, 15)
"""Grid points that may be dear; the last point, at the end, is never left out."""
CHEAP, DEAR = 0.03, 0.25
"""Share of the cost of training that evaluations may have; at the quarters under a time limit."""
READING_COST = 1 / 3
"""Cost of reading a character, as a share of the cost of training on it."""
MOST_PREPARATION = 0.5
"""Share of a time limit that may pass before the first step; training has the rest in any case."""
EXIT_S, EXIT_SHARE = 0.7, 0.015
"""Seconds for which a process with torch starts and ends, but at most this share of the limit."""
MOST_CLOSING = 0.5
"""Share of the time for training that may be kept for what comes after the last step."""
TRAIN_LOSS_CHARS = 100_000
"""Most characters of the training text read for the final comparison with validation."""
RISING_EVALUATIONS, RISE = 3, 1.01
"""Validation loss keeps rising when this many in a row are this many times the lowest."""
COOLDOWN = 0.15
"""Steps in which a run then ends, as a share of those taken."""
COST_READING = 8
"""Time in which two NumPy engines read a character, in those that torch reads in an evaluation."""
UNMEASURED_STEPS = 3
"""The first steps allocate and compile; their speed is not measured."""
SPEED_S, PROGRESS_S = 10.0, 60.0
"""Seconds that the speed and the rate of progress are a mean of, about."""


def learning_rate_factor(step: int, progress: float) -> float:
    """Return the share of the peak learning rate for `step` (from 0).

    A linear rise, then half a cosine (Loshchilov & Hutter 2017) down to nearly zero.
    """
    rise = min(1.0, max((step + 1) / WARMUP_STEPS, progress / WARMUP_PROGRESS))
    fall = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
    return min(rise, fall)


class Rate:
    """An amount per second, of the last seconds more than of earlier ones.

    Args:
        horizon_s: seconds in which what was counted comes to count an e-th.
    """

    def __init__(self, horizon_s: float) -> None:
        """Nothing is known yet."""
        self._horizon_s = horizon_s
        self._amount = self._seconds = 0.0

    def add(self, amount: float, seconds: float) -> None:
        """Take note of an amount and of the seconds that it took."""
        kept = math.exp(-seconds / self._horizon_s)
        self._amount = self._amount * kept + amount
        self._seconds = self._seconds * kept + seconds

    @property
    def per_s(self) -> float:
        """The rate; 0 before it is known."""
        return self._amount / self._seconds if self._seconds > 0 else 0.0


class Clock:
    """Measures the speed of this process: of steps, of progress, and of reading."""

    def __init__(self) -> None:
        """Start now."""
        self._now = self._shown = self._progressed = time.monotonic()
        self._steps = 0
        self._speed, self._pace = Rate(SPEED_S), Rate(PROGRESS_S)
        self._progress: float | None = None
        self._read_chars, self._read_s = 0, 0.0
        self._pause_s: float | None = None

    def step(self, n_chars: int) -> None:
        """Note that a step on so many characters is done."""
        before, self._now = self._now, time.monotonic()
        self._steps += 1
        if self._steps > UNMEASURED_STEPS:
            self._speed.add(n_chars, self._now - before)

    @property
    def chars_per_s(self) -> float:
        """Speed of the latest steps; 0 before it is known."""
        return self._speed.per_s

    def eta_s(self, progress: float) -> float | None:
        """Return the seconds to the end at the latest pace, pauses included, if it is known."""
        before, self._progressed = self._progressed, time.monotonic()
        if self._progress is not None:
            self._pace.add(progress - self._progress, self._progressed - before)
        self._progress = progress
        return (1 - progress) / self._pace.per_s if self._pace.per_s > 0 else None

    def is_time_to_show(self, every_s: float) -> bool:
        """Say whether so many seconds have passed since this was last true."""
        if self._now - self._shown < every_s:
            return False
        self._shown = self._now
        return True

    @contextmanager
    def reading(self, n_chars: int) -> Iterator[None]:
        """Measure how long it takes to read so many characters."""
        begin = time.monotonic()
        yield
        self._read_chars, self._read_s = n_chars, time.monotonic() - begin

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Measure how long an evaluation takes, saving included; no step's time includes it."""
        begin = time.monotonic()
        yield
        self._now = time.monotonic()
        self._pause_s = self._now - begin

    def closing_s(self, n_val: int, n_train: int) -> float:
        """Return how long the last evaluation and the reading of `n_train` characters will take."""

        def reading_s(n_chars: int) -> float:
            if self._read_chars and self._read_s:
                return n_chars * self._read_s / self._read_chars
            return READING_COST * n_chars / self.chars_per_s if self.chars_per_s else 0.0

        pause_s = reading_s(n_val) if self._pause_s is None else self._pause_s
        return pause_s + reading_s(n_train)


class Schedule:
    """How far a run is, and what is due.

    Args:
        training: with at least one of `time_s`, `epochs` and `steps`.
        n_train: characters of the training text.
        n_val: characters of the validation text.
        n_cost: characters on which the cost of int8 is measured, after the end.
    """

    def __init__(
        self, training: TrainingConfig, *, n_train: int, n_val: int, n_cost: int = 0
    ) -> None:
        """Start at 0."""
        self._limits = training
        self._n_val = n_val
        self._n_closing = min(n_train, TRAIN_LOSS_CHARS) + COST_READING * min(n_val, n_cost)
        self.step = 0
        """Steps taken."""
        self.progress = 0.0
        self.preparation_s = 0.0
        """Seconds from the start of the command to the first step."""
        self.reason: Reason = "steps"
        """The limit that is nearest."""
        self._tick = 0  # of the grid, passed
        self._evaluations = 0
        self._cooldown: tuple[float, int] | None = None  # progress and step at which it began

    @property
    def late_s(self) -> float:
        """Seconds by which a time limit will be exceeded."""
        if self._limits.time_s is None:
            return 0.0
        return max(0.0, self.preparation_s - MOST_PREPARATION * self._limits.time_s)

    @property
    def is_complete(self) -> bool:
        """True at the end of the run."""
        return self.progress >= 1

    def advance(self, epoch: float, elapsed_s: float, clock: Clock) -> None:
        """Take note of a step.

        Args:
            epoch: epochs done.
            elapsed_s: seconds since the start of the command, those of earlier processes included.
            clock: of this process.
        """
        self.step += 1
        done = self._done(epoch, elapsed_s, clock)
        self.reason = max(done, key=done.__getitem__)
        self.progress = min(1.0, max(self.progress, done[self.reason]))

    def begin_again(self, epoch: float, elapsed_s: float) -> None:
        """Continue a finished run under later limits: what is done is a part of the longer run.

        Args:
            epoch: epochs done.
            elapsed_s: seconds of the earlier processes.
        """
        self._cooldown = None
        self.preparation_s = 0.0
        self.progress = min(1.0, max(self._done(epoch, elapsed_s, Clock()).values()))
        self._tick = int(self.progress * GRID + 1e-9)

    def _done(self, epoch: float, elapsed_s: float, clock: Clock) -> dict[Reason, float]:
        """Return how much of each limit is used up."""
        limits = self._limits
        done: dict[Reason, float] = {}
        if limits.time_s is not None:
            training_s = limits.time_s + self.late_s - self.preparation_s
            closing_s = clock.closing_s(self._n_val, self._n_closing)
            closing_s += min(EXIT_S, EXIT_SHARE * limits.time_s)
            training_s = max(1e-3, training_s - min(closing_s, MOST_CLOSING * training_s))
            done["time"] = (elapsed_s - self.preparation_s) / training_s
        if limits.epochs is not None:
            done["epochs"] = epoch / limits.epochs
        if limits.steps is not None:
            done["steps"] = self.step / limits.steps
        if self._cooldown is not None:
            progress, step = self._cooldown
            share = (self.step - step) / math.ceil(COOLDOWN * step)
            done["rising loss"] = progress + (1 - progress) * share
        return done

    def evaluation_is_due(self, served: int) -> bool:
        """Say, once after each step, whether an evaluation is due.

        Args:
            served: characters trained on so far, against which the cost of evaluations is counted.
        """
        before, self._tick = self._tick, int(self.progress * GRID + 1e-9)
        if self._tick == before:
            return False
        cost = (self._evaluations + 1) * READING_COST * self._n_val
        affordable = CHEAP
        if any(before < quarter <= self._tick for quarter in QUARTERS):
            affordable = DEAR if self._limits.time_s is not None else math.inf
        is_due = self.is_complete or cost <= affordable * served
        self._evaluations += is_due
        return is_due

    def shorten_if_rising(self, losses: Sequence[float]) -> bool:
        """Begin to end a run under a time limit if validation loss keeps rising.

        Progress then runs out over a few steps, and the learning rate falls with it; the loss
        usually falls once more.

        Args:
            losses: of all evaluations so far.
        """
        recent = losses[-RISING_EVALUATIONS:]
        if (
            self._limits.time_s is None
            or self._cooldown is not None
            or self.is_complete
            or len(recent) < RISING_EVALUATIONS
            or min(recent) <= RISE * min(losses)
        ):
            return False
        self._cooldown = (self.progress, self.step)
        return True

    def state(self) -> dict[str, Any]:
        """Return all that changes, as JSON values."""
        return {
            "step": self.step,
            "progress": self.progress,
            "preparation_s": self.preparation_s,
            "reason": self.reason,
            "tick": self._tick,
            "evaluations": self._evaluations,
            "cooldown": self._cooldown and list(self._cooldown),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` returned.

        Raises:
            LookupError, TypeError, ValueError: the state is none.
        """
        self.step = whole(state["step"])
        self.progress = real(state["progress"], high=1.0)
        self.preparation_s = real(state["preparation_s"])
        self.reason = state["reason"]
        if self.reason not in get_args(Reason):
            raise ValueError("its reason is none")
        self._tick = whole(state["tick"], high=GRID)
        self._evaluations = whole(state["evaluations"])
        self._cooldown = None
        if state["cooldown"] is not None:
            progress, step = listed(state["cooldown"], most=2)
            self._cooldown = real(progress, high=1.0), whole(step, low=1)
