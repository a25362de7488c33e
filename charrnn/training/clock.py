"""How fast the steps of a run are."""

from __future__ import annotations

import time

UNMEASURED_STEPS = 3
"""The first steps allocate and compile; they are not measured."""


class Clock:
    """Measures the speed of the steps, without the first ones and without pauses.

    Args:
        step: steps taken before.
        served: characters served before.
    """

    def __init__(self, step: int, served: int) -> None:
        """Begin now."""
        self._first = step + UNMEASURED_STEPS
        self._begin = self._now = self._shown = time.monotonic()
        self._served_before = self._served = served
        self.steps = 0
        """Steps measured."""
        self.pause_s = 0.0
        """How long the last pause was."""

    def tick(self, step: int, served: int) -> None:
        """Take note of a step, given the steps and characters up to now."""
        self._now, self._served = time.monotonic(), served
        if step <= self._first:
            self._begin, self._served_before = self._now, served
        self.steps = max(0, step - self._first)

    @property
    def seconds(self) -> float:
        """Time of the measured steps."""
        return self._now - self._begin

    @property
    def chars_per_s(self) -> float:
        """Speed of the measured steps; 0 before there are any."""
        served = self._served - self._served_before
        return served / self.seconds if self.seconds > 0 else 0.0

    def since_shown(self) -> float:
        """Seconds since progress was shown."""
        return self._now - self._shown

    def shown(self) -> None:
        """Progress has been shown."""
        self._shown = self._now

    def leave_out_pause(self) -> None:
        """The time since the last step does not count."""
        self.pause_s = time.monotonic() - self._now
        self._begin += self.pause_s
