"""Which units follow a feature of the text: quotations, brackets, the place in the line.

As Karpathy, Johnson & Li 2015 found them by eye ("Visualizing and Understanding Recurrent
Networks"), here by correlation. Shapes: M members, L layers, N characters, H hidden units.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import Feature
from charrnn.errors import ConfigError

Floats = NDArray[np.float64]

BINARY = ("quote", "bracket", "capital", "word-start", "digit")
"""Features that are there or not; the others are numbers."""
MEANINGS: dict[str, str] = {
    "quote": "inside a quotation",
    "bracket": "inside brackets",
    "line-position": "characters since the beginning of the line",
    "indent": "how far the line is indented",
    "capital": "a capital letter",
    "word-start": "the first letter of a word",
    "digit": "a digit",
}
"""What each says of the character that has just been read."""
TAB = 4
"""Blanks that a tab counts for in an indentation."""
_OPENING, _CLOSING = "“„«", "”»"
_BRACKETS = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}


class Found(NamedTuple):
    """A unit, and how well a feature explains it."""

    member: int
    layer: int
    unit: int
    correlation: float
    """Pearson's r; below 0 where the unit falls as the feature rises."""
    auc: float | None
    """Probability that the unit is higher at a character with the feature than at one without
    (area under the ROC curve); None for a feature that is a number."""

    @property
    def strength(self) -> float:
        """How well the feature explains the unit, from 0 to 1, in either direction."""
        return abs(self.correlation) if self.auc is None else abs(2 * self.auc - 1)


def feature_values(text: str, feature: Feature) -> Floats:
    """Return a feature at each character of a text `[N]`, as it is when that has been read.

    Raises:
        ConfigError: it is the same everywhere.
    """
    values: Sequence[float]
    if feature == "quote":
        values = _quotes(text)
    elif feature == "bracket":
        values = _brackets(text)
    elif feature in ("line-position", "indent"):
        values = _lines(text, feature)
    elif feature == "capital":
        values = [c.isupper() for c in text]
    elif feature == "digit":
        values = [c.isdigit() for c in text]
    else:
        starts = {match.start() for match in re.finditer(r"\w+(?:['’]\w+)*", text)}
        values = [k in starts for k in range(len(text))]
    array = np.array(values, dtype=np.float64)
    if (array == array[0]).all():
        raise ConfigError(
            f"{feature} is the same at every character of the text ({MEANINGS[feature]}): give a "
            "text in which it changes",
            field="find",
        )
    return array


def _quotes(text: str) -> list[bool]:
    """Say of each character whether a quotation is open; none goes beyond its paragraph."""
    inside, values = False, []
    for before, c in zip(" " + text, text, strict=False):
        if c == '"':
            inside = not inside
        elif c in _OPENING:
            inside = True
        elif c in _CLOSING or (c == before == "\n"):
            inside = False
        values.append(inside)
    return values


def _brackets(text: str) -> list[bool]:
    depth, values = 0, []
    for c in text:
        depth = max(0, depth + _BRACKETS.get(c, 0))
        values.append(depth > 0)
    return values


def _lines(text: str, feature: Feature) -> list[int]:
    values = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        blanks = [TAB if c == "\t" else 1 for c in line[: len(line) - len(line.lstrip(" \t"))]]
        indents = np.cumsum([0, *blanks])[1:].tolist()
        indents += [sum(blanks)] * (len(line) - len(blanks))
        places = indents if feature == "indent" else range(1, len(line) + 1)
        values += [0 if c == "\n" else place for c, place in zip(line, places, strict=True)]
    return values


def find_units(values: NDArray[Any], feature: Floats, *, binary: bool) -> list[Found]:
    """Return all units, those that a feature explains best first.

    Args:
        values: `[M, L, N, H]`.
        feature: `[N]`, not the same everywhere.
        binary: judge by the area under the ROC curve, not by the correlation.
    """
    centred_N = feature - feature.mean()
    centred_N /= np.sqrt(np.square(centred_N).sum())
    found = []
    for m, member in enumerate(values):
        for k, values_NH in enumerate(member):
            deviations_NH = values_NH - values_NH.mean(axis=0, dtype=np.float64)
            norm_H = np.sqrt(np.square(deviations_NH).sum(axis=0))
            still_H = norm_H <= 1e-12 * np.abs(values_NH).max(initial=1.0)
            r_H = np.where(still_H, 0, centred_N @ deviations_NH / np.where(still_H, 1, norm_H))
            for unit, r in enumerate(r_H.tolist()):
                auc = area_under_curve(values_NH[:, unit], feature > 0) if binary else None
                found.append(Found(m, k, unit, r, auc))
    # an AUC of 1 has no degrees: of units that tell all apart, the one that also stays put is first
    return sorted(found, key=lambda one: (-round(one.strength, 3), -abs(one.correlation)))


def area_under_curve(values: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive is higher than a negative; ties count half.

    From the sum of ranks (Mann & Whitney 1947).

    Args:
        values: `[N]`.
        positive: `[N]`, some true and some false.
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = int(positive.sum())
    rest = len(values) - n
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * rest))
