"""Numbers and words as people read them."""

from __future__ import annotations

import math

from charrnn.config import ModelConfig
from charrnn.events import Verdict
from charrnn.scoring.score import bits

VERDICTS = {
    "interrupted": "the run was stopped before its end and can only be judged there",
    "no validation": "without validation text, over- and underfitting cannot be told apart",
    "overfits": "the model overfits: at the end, validation loss was {amount:.3f} nats above its "
    "lowest, and the model of that point is kept; try more --dropout, --recurrent-dropout or "
    "--weight-decay, or a smaller --hidden",
    "wide gap": "the model begins to overfit: the training loss is {amount:.2f} nats below the "
    "validation loss; more --dropout, --recurrent-dropout or --weight-decay would help, or more "
    "text",
    "few epochs": "the model underfits: it has read the text only {amount:.2g} times; more "
    "training would help",
    "narrow gap": "the model underfits: it does no better on the training text than on the "
    "validation text; more training would help",
    "good": "the model fits well: validation loss is {amount:.2f} nats above the training loss; "
    "more text, or more time for a larger --hidden, would help further",
}


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
    return f"{nats:.3f} ({bits(nats):.2f} bits)"


def architecture(config: ModelConfig) -> str:
    """Write the shape of a model in a few words."""
    inputs = f"embedding {config.embedding_size}" if config.embedding_size else "one-hot input"
    kind = config.cell.upper() + (" (relu)" if config.nonlinearity == "relu" else "")
    shape = f"{kind} {config.num_layers} × {config.hidden_size}, {inputs}"
    return shape if config.members == 1 else f"{config.members} ensemble members, each {shape}"


def verdict(found: Verdict) -> str:
    """Write a verdict as a sentence without its capital and full stop."""
    return VERDICTS[found.judgement].format(amount=found.amount)
