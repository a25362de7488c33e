"""From a budget of time, passes or steps to a plan: how many steps, and how many evaluations.

The number of evaluations follows from counts of characters alone, never from measured time, so a
run of a fixed number of steps keeps the same model on every machine and at every attempt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from charrnn.config import TrainingConfig
from charrnn.training.clock import Clock

MEASURING_SHARE = 0.04
"""Share of a time budget spent on measuring the speed of the first steps."""
MIN_MEASURED_STEPS = 5
REPLAN_SHARE = 0.01
"""Share of its time by which a run may miss its end before the number of steps is changed."""
CHECK_SHARE = 0.02
"""Share of its time after which a run looks whether it is in time."""
EVALUATION_SHARE = 0.03
"""Share of the cost of training that evaluations may have."""
READING_COST = 1 / 3
"""Cost of reading a character in an evaluation, as a share of its cost in training."""
MAX_EVALUATIONS, MIN_EVALUATIONS = 20, 4
FEW_EVALUATIONS_SHARE = 0.25
"""Share of a time budget up to which there are `MIN_EVALUATIONS`; if they cost more, fewer."""
CLOSING_SHARE = 0.5
"""Share of the time left that may be kept for what is measured after the last step."""
RISING_EVALUATIONS, RISE = 3, 1.01
"""Validation keeps rising when so many losses in a row are so many times the best one."""
TRAIN_LOSS_CHARS = 100_000
"""Most characters of the training text read for the final comparison with validation."""
COOLDOWN_SHARE = 0.15
"""Steps in which a run ends early, as a share of those taken."""


@dataclass(frozen=True)
class Plan:
    """How many steps a run takes, and its evaluations, spread evenly over those to come."""

    total_steps: int
    evaluations: int
    """To come when the plan was made."""
    begin: int = 0
    """Step at which it was made."""

    def evaluates_after(self, step: int) -> bool:
        """Say whether an evaluation is due after `step` steps; the last one is at the end."""
        return self.evaluated_by(step) > self.evaluated_by(step - 1)

    def evaluated_by(self, step: int) -> int:
        """Return how many of the evaluations are due by `step`."""
        return ((step - self.begin) * self.evaluations) // (self.total_steps - self.begin)


class Budget:
    """Makes the plan of a run, and changes it to keep to time.

    Args:
        training: exactly one of `time_s`, `epochs` and `steps` must be set.
        n_train: characters of the training text.
        n_val: characters of the validation text.
        steps_per_epoch: steps that read the training text once.
    """

    def __init__(
        self, training: TrainingConfig, *, n_train: int, n_val: int, steps_per_epoch: float
    ) -> None:
        """Take the counts; nothing has been measured yet."""
        self.time_s = training.time_s
        self.steps_per_epoch = steps_per_epoch
        self.chars_per_step = n_train / steps_per_epoch
        """Mean number of characters that a step predicts."""
        self._training = training
        self._most_steps = (
            math.inf
            if training.max_epochs is None
            else max(1, math.ceil(training.max_epochs * steps_per_epoch))
        )
        self._evaluation_chars = READING_COST * n_val
        """Cost of an evaluation, as characters trained on for the same price."""
        self._final_chars = READING_COST * min(n_train, TRAIN_LOSS_CHARS)
        """And of the comparison with the training text, after the last step."""

    def plan(self, total_steps: int, step: int = 0) -> Plan:
        """Return the plan of so many steps, with as many evaluations as they can pay for.

        Args:
            total_steps: of the whole run.
            step: steps taken; the plan has those evaluations that are left.
        """
        affordable, least = float(MAX_EVALUATIONS), float(MIN_EVALUATIONS)
        if self._evaluation_chars:
            affordable = total_steps * self.chars_per_step / self._evaluation_chars
            if self.time_s is not None:
                least = min(least, max(1.0, FEW_EVALUATIONS_SHARE * affordable))
            affordable *= EVALUATION_SHARE
        evaluations = int(min(MAX_EVALUATIONS, max(least, affordable)))
        left = total_steps - step
        evaluations = max(1, round(evaluations * left / total_steps))
        return Plan(total_steps, min(evaluations, left), step)

    def fixed_plan(self) -> Plan:
        """Return the plan of an `epochs` or `steps` budget."""
        if self._training.steps is not None:
            return self.plan(self._training.steps)
        epochs = self._training.epochs
        assert epochs is not None, "a Trainer needs exactly one budget"
        return self.plan(max(1, math.ceil(epochs * self.steps_per_epoch)))

    def timed_plan(self, step: int, elapsed_s: float, clock: Clock) -> tuple[Plan, float] | None:
        """Return the plan that fills a time budget, and the seconds its steps still take.

        None as long as the first steps have not been measured well enough.

        Args:
            step: steps taken.
            elapsed_s: time used up, all that came before training included.
            clock: has measured the steps.
        """
        assert self.time_s is not None
        if clock.steps <= MIN_MEASURED_STEPS:
            return None
        if clock.seconds <= MEASURING_SHARE * self.time_s and elapsed_s <= self.time_s / 2:
            return None
        step_s = clock.seconds / clock.steps
        left_s = max(0.0, self.time_s - elapsed_s)
        closing_s = (self._evaluation_chars + self._final_chars) / max(clock.chars_per_s, 1.0)
        left_s -= min(closing_s, CLOSING_SHARE * left_s) + EVALUATION_SHARE * left_s
        steps = max(1, int(left_s / step_s))
        steps = int(min(steps, max(1, self._most_steps - step)))
        return self.plan(step + steps), steps * step_s

    def corrected_plan(
        self, plan: Plan, step: int, elapsed_s: float, chars_per_s: float, pause_s: float
    ) -> Plan | None:
        """Return another plan if the machine turns out slower or faster than measured.

        Args:
            plan: the plan so far.
            step: steps taken.
            elapsed_s: time used up.
            chars_per_s: speed of the steps.
            pause_s: seconds that an evaluation takes, with all that is saved and shown.
        """
        assert self.time_s is not None
        step_s = self.seconds_of(1, chars_per_s)
        needed_s = (plan.total_steps - step) * step_s
        left_s = max(0.0, self.time_s - elapsed_s)
        pauses_s = (plan.evaluations - plan.evaluated_by(step)) * pause_s
        pauses_s += self._final_chars / max(chars_per_s, 1.0)
        left_s -= min(pauses_s, CLOSING_SHARE * left_s)
        if abs(needed_s - left_s) <= REPLAN_SHARE * self.time_s:
            return None
        total_steps = int(min(step + max(1, int(left_s / step_s)), self._most_steps))
        return None if total_steps == plan.total_steps else self.plan(total_steps, step)

    def is_to_be_checked(self, plan: Plan | None, step: int, seconds: float) -> bool:
        """Say whether it is time for `corrected_plan`, so many seconds after the last.

        That is so after each evaluation, and after the last but one at any time: to move the
        evaluations to come again and again might pass them by.
        """
        if plan is None or self.time_s is None:
            return False
        if plan.evaluates_after(step):
            return True
        is_closing = plan.evaluations - plan.evaluated_by(step) == 1
        return is_closing and seconds >= CHECK_SHARE * self.time_s

    def is_cut(self, plan: Plan) -> bool:
        """Say whether it is the number of passes, not the time, that ends the run."""
        return plan.total_steps >= self._most_steps

    def early_end(self, plan: Plan, step: int, losses: Sequence[float]) -> Plan | None:
        """Return a plan that ends soon if validation loss keeps rising.

        The learning rate follows the plan, so it falls to nothing in the steps that remain; the
        loss usually falls with it once more.

        Args:
            plan: the plan so far.
            step: steps taken.
            losses: of all evaluations so far.
        """
        recent = losses[-RISING_EVALUATIONS:]
        if len(recent) < RISING_EVALUATIONS or min(recent) <= RISE * min(losses):
            return None
        total_steps = step + math.ceil(COOLDOWN_SHARE * step)
        return self.plan(total_steps, step) if total_steps < plan.total_steps else None

    def seconds_of(self, steps: int, chars_per_s: float) -> float:
        """Return how long so many steps take at a speed."""
        return steps * self.chars_per_step / max(chars_per_s, 1e-9)
