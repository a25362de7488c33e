"""Where a run stands: all that a stopped run must remember beside its arrays and its place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from charrnn.training.budget import Plan
from charrnn.training.divergence import Caution


@dataclass
class Progress:
    """The counters of a run. Losses are in nats per character."""

    patience: int
    """Evaluations without improvement that end the run; 0 for any number."""
    step: int = 0
    """Steps taken."""
    plan: Plan | None = None
    """None until a time budget has been measured."""
    best: float = math.inf
    """Loss of the best model so far."""
    best_scale: float = 1.0
    """What its logits were multiplied by."""
    best_step: int = 0
    stale: int = 0
    """Evaluations since the best one."""
    evaluated_step: int = -1
    """Step of the last evaluation."""
    uncounted_s: float = 0.0
    """Seconds of preparation beyond the share that a time budget has for it."""
    is_ending: bool = False
    """True when the plan has been shortened because validation loss kept rising."""
    caution: Caution = field(default_factory=Caution)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.jsonl."""

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, if they are known."""
        return None if self.plan is None else self.plan.total_steps

    @property
    def is_complete(self) -> bool:
        """True when all steps are taken."""
        return self.plan is not None and self.step >= self.plan.total_steps

    @property
    def is_stale(self) -> bool:
        """True when the patience is at its end."""
        return 0 < self.patience <= self.stale

    @property
    def evaluation_is_due(self) -> bool:
        """True when the plan has an evaluation after this step."""
        return self.plan is not None and self.plan.evaluates_after(self.step)

    def judge(self, loss: float, scale: float, *, is_first: bool) -> bool:
        """Take note of an evaluation and say whether it is the best; the first one always is.

        Args:
            loss: of the model with its logits scaled.
            scale: factor of the logits.
            is_first: there is no model yet.
        """
        self.evaluated_step = self.step
        if loss < self.best or is_first:
            self.best, self.best_scale = loss, scale
            self.best_step, self.stale = self.step, 0
            return True
        self.stale += 1
        return False

    def to_record(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return {
            "step": self.step,
            "plan": None if self.plan is None else dataclasses.asdict(self.plan),
            "best": None if math.isinf(self.best) else self.best,
            "best_scale": self.best_scale,
            "best_step": self.best_step,
            "stale": self.stale,
            "evaluated_step": self.evaluated_step,
            "uncounted_s": self.uncounted_s,
            "is_ending": self.is_ending,
            "rate_scale": self.caution.rate_scale,
            "rollbacks": self.caution.rollbacks,
            "metrics": self.metrics,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, patience: int) -> Progress:
        """Return the progress saved by `to_record`."""
        return cls(
            patience=patience,
            step=record["step"],
            plan=None if record["plan"] is None else Plan(**record["plan"]),
            best=math.inf if record["best"] is None else record["best"],
            best_scale=record["best_scale"],
            best_step=record["best_step"],
            stale=record["stale"],
            evaluated_step=record["evaluated_step"],
            uncounted_s=record["uncounted_s"],
            is_ending=record["is_ending"],
            caution=Caution(record["rollbacks"], record["rate_scale"]),
            metrics=list(record["metrics"]),
        )
