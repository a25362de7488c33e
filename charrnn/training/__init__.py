"""Training with torch: a `Trainer` whose `run()` yields typed events."""

from charrnn.training.speed import measure_speed
from charrnn.training.trainer import Trainer

__all__ = ["Trainer", "measure_speed"]
