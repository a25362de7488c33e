"""The learning rate as a function of the step."""

from __future__ import annotations

import math

WARMUP_STEPS = 100
FINAL_FRACTION = 0.002
"""Learning rate of the last step, as a share of the peak."""


def learning_rate_factor(step: int, total_steps: int | None) -> float:
    """Return the share of the peak learning rate for `step` (from 0).

    A linear rise over the first steps, then half a cosine (Loshchilov & Hutter 2017) down to
    nearly zero at `total_steps`. While the total is not known yet, only the rise applies.
    """
    warmup = WARMUP_STEPS if total_steps is None else min(WARMUP_STEPS, max(1, total_steps // 10))
    rise = min(1.0, (step + 1) / warmup)
    if total_steps is None:
        return rise
    done = min(1.0, step / max(1, total_steps - 1))
    fall = FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * done))
    return min(rise, fall)
