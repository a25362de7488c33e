"""Numbers and words as people read them."""

from __future__ import annotations

import math


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


def architecture(cell: str, layers: int, hidden: int, embedding: int) -> str:
    """Write a network's shape in a few words."""
    inputs = f"embedding {embedding}" if embedding else "one-hot input"
    return f"{cell.upper()} {layers} × {hidden}, {inputs}"
