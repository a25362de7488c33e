"""The NumPy engine: a trained network stepped on the CPU without torch."""

from charrnn.engine.engine import Engine, State

__all__ = ["Engine", "State"]
