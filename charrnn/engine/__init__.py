"""The NumPy engine: a trained network stepped on the CPU without torch."""
