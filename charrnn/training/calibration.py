"""How sure of itself a model should be: one factor for all its logits.

A network is surer of what comes next in a text it has not read than it has reason to be.
The factor that fits the validation text best is found at every evaluation, and multiplied into the
output weights of the model that is saved: temperature scaling, Guo et al. 2017. So models are
judged as they will be used: by what they know, not by how sure they are of it. The factor is a
single number, fitted on a text of thousands of characters, so that this text stays as good a judge
as before.
"""

from __future__ import annotations

from collections.abc import Callable

ENOUGH_CHARS = 2_000
"""Characters of validation text below which nothing is fitted."""
MOST_CHARS, MOST_LOGITS = 50_000, 2**25
"""The factor is fitted to so many characters, fewer where a large alphabet makes more logits (128
MiB) of them."""
TRIALS = 6
STEP = 0.1
LEAST, LARGEST = 0.5, 1.5


def fit_scale(loss_at: Callable[[float], float]) -> float:
    """Return the factor of the logits that makes a loss least, to three digits.

    The loss is convex in the factor. Its minimum is that of the parabola through three points, laid
    once more about the first minimum found.

    Args:
        loss_at: the loss with logits times a factor.
    """
    scale = 1.0 - STEP
    for _ in range(TRIALS // 3):
        below, here, above = (loss_at(scale + k * STEP) for k in (-1, 0, 1))
        curvature = below - 2 * here + above
        if curvature <= 0:  # nearly a straight line: no minimum in sight
            return 1.0
        scale -= STEP * (above - below) / (2 * curvature)
        scale = min(LARGEST, max(LEAST, scale))
    return round(scale, 3)
