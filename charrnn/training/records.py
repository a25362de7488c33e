"""Values from a resume state, which may come from a stranger: checked before they are used."""

from __future__ import annotations

import sys
from typing import Any

from charrnn.config import MAX_COUNT, shown


def whole(value: Any, *, low: int = 0, high: int = MAX_COUNT) -> int:
    """Return a whole number in [low, high].

    Raises:
        ValueError: the value is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{shown(value)} is no whole number from {low} to {high}")
    return value


def real(value: Any, *, high: float = sys.float_info.max) -> float:
    """Return a finite number in [0, high] as a float.

    Raises:
        ValueError: the value is none.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= high:
        raise ValueError(f"{shown(value)} is no number from 0 to {high:g}")
    return float(value)


def listed(value: Any, *, most: int = MAX_COUNT) -> list[Any]:
    """Return a list of at most `most` values.

    Raises:
        ValueError: the value is none.
    """
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{shown(value)} is no list of at most {most}")
    return value
