"""Numbers and words as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from charrnn.config import ModelConfig


def count(number: float) -> str:
    """Shorten a count: 940, 12.3k, 4.78M, 1.20G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            scaled = number / limit
            return f"{scaled:.{max(0, 2 - int(math.log10(scaled)))}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Write seconds as 45s, 3m 05s or 1h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def loss(nats: float) -> str:
    """Write a loss in nats per character and in bits per character."""
    return f"{nats:.3f} ({nats / math.log(2):.2f} bits)"


def architecture(parts: Sequence[ModelConfig]) -> str:
    """Write the shape of a network in a few words, or of several whose mean is the model."""
    shapes = [_shape(part) for part in parts]
    if len(parts) > 1 and len(set(shapes)) == 1:
        return f"{len(parts)} networks, each {shapes[0]}"
    return " and ".join(shapes)


def _shape(config: ModelConfig) -> str:
    inputs = f"embedding {config.embedding_size}" if config.embedding_size else "one-hot input"
    return f"{config.cell.upper()} {config.num_layers} × {config.hidden_size}, {inputs}"
