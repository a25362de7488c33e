"""Sums that lose nothing."""

from __future__ import annotations


class ExactSum:
    """A running sum of floats, exact to twice the digits of a float, in constant memory."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._high = 0.0
        self._low = 0.0

    def add(self, value: float) -> None:
        """Add one number (Knuth's two-sum: the rounding error of the sum is itself a float)."""
        high = self._high + value
        back = high - self._high
        self._low += (self._high - (high - back)) + (value - back)
        self._high = high

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._high + self._low
