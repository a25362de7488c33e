"""A running mean that does not wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor


class Meter:
    """Sums losses and counts on the device; the division comes when the mean is asked for."""

    def __init__(self, device: torch.device) -> None:
        """Begin at nothing."""
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0

    def add(self, loss: Tensor, count: int) -> None:
        """Take a summed loss and the number of characters in it."""
        self._sum += loss
        self._count += count

    def mean(self) -> float | None:
        """Return the mean in nats per character; None of nothing."""
        return float(self._sum) / self._count if self._count else None

    def take(self) -> float | None:
        """Return the mean and begin again."""
        mean = self.mean()
        self._sum.zero_()
        self._count = 0
        return mean

    def state(self) -> list[float]:
        """Return sum and count as JSON values."""
        return [float(self._sum), self._count]

    def load(self, state: list[float]) -> None:
        """Go back to a state."""
        self._sum.fill_(state[0])
        self._count = int(state[1])
