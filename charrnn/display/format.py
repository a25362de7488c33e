"""Numbers and words as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from charrnn.config import CELL_NAMES, ModelConfig, Unit
from charrnn.events import Verdict
from charrnn.scoring.score import bits

VERDICTS = {
    "interrupted": "stopped before its end, so there is no verdict yet",
    "worse than chance": "at the end the loss was {loss:.3f} nats/{abbreviation}, worse than "
    "choosing every {unit} at random ({chance:.2f})",
    "no validation": "nothing was held out, so nobody can tell how the model does on new text",
    "unknown validation": "{unknown_share:.0%} of the validation text is unknown to the model, too "
    "much to judge it by",
    "little validation": "the validation text of {n_val:,} {units} is too short to judge by",
    "not learned": "the network has learned no more than how often each {unit} occurs",
    "overfits": "the model overfits: after {epochs:.3g} epochs, validation loss was {rise:.3f} "
    "nats above its lowest, and the model of that point is kept",
    "sound": "after {epochs:.3g} epochs, validation loss was {gap} the training loss"
    "{measured}{lowest}",
}
ADVICE = {
    "more training": "more training would help",
    "dropout": "--dropout 0.25 --recurrent-dropout 0.2 would help",
    "more text": "more text would help",
    "lower rate": "a lower --lr would help",
}
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
"""The heights of a sparkline."""
UNITS = {"char": ("character", "characters"), "byte": ("byte", "bytes")}


def count(number: float) -> str:
    """Shorten a count: 940, 12.3k, 4.78M, 1.20G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            scaled = number / limit
            return f"{scaled:.{max(0, 2 - int(math.log10(scaled)))}f}{unit}"
    return f"{number:.0f}"


def size(n_bytes: int) -> str:
    """Write the size of a file: `940 bytes`, `12.3 kB`, `4.78 MB`."""
    shown = count(n_bytes)
    return f"{shown[:-1]} {shown[-1]}B" if shown[-1].isalpha() else f"{shown} bytes"


def duration(seconds: float) -> str:
    """Write seconds as 45s, 3m 05s or 1h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def loss(nats: float, unit: Unit = "char", bits_per_char: float | None = None) -> str:
    """Write a loss: `1.512 nats/char (2.18 bits/char)`; of bytes, both bits/byte and bits/char.

    Args:
        nats: per unit.
        unit: of the loss.
        bits_per_char: the same in bits per character; needed for bytes, and left out if unknown.
    """
    per_char = bits(nats) if bits_per_char is None and unit == "char" else bits_per_char
    shown = [] if unit == "char" else [f"{bits(nats):.2f} bits/{unit}"]
    shown += [] if per_char is None else [f"{per_char:.2f} bits/char"]
    return f"{nats:.3f} nats/{unit} ({', '.join(shown)})"


def can_show(text: str, encoding: str) -> bool:
    """Say whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values: Sequence[float], width: int, encoding: str = "utf-8") -> str:
    """Draw values as a line of bars, from the lowest to the highest of them.

    Args:
        values: one bar each. Where there are more than `width`, a selection is drawn, evenly spread
            and with the last; what is not finite is as high as the highest.
        width: most columns, 1 or more.
        encoding: of the terminal; one that lacks block characters gets ASCII.
    """
    bars = BARS if can_show(BARS, encoding) else ASCII_BARS
    if len(values) > width:
        step = (len(values) - 1) / max(1, width - 1)
        values = [values[-1 - round(n * step)] for n in reversed(range(width))]
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    heights = (value if math.isfinite(value) else high for value in values)
    shares = ((height - low) / ((high - low) or 1.0) for height in heights)
    return "".join(bars[round(share * (len(bars) - 1))] for share in shares)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number of things: `1 character`, `1,200 characters`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _gap(nats: float) -> str:
    """Write how far a loss is from another: `0.05 nats above`."""
    if round(nats, 2) == 0:
        return "as low as"
    return f"{abs(nats):.2f} nats {'above' if nats > 0 else 'below'}"


def architecture(config: ModelConfig) -> str:
    """Write the shape of a model in a few words."""
    inputs = f"embedding {config.embedding_size}" if config.embedding_size else "one-hot input"
    kind = CELL_NAMES[config.cell] + (" (relu)" if config.nonlinearity == "relu" else "")
    shape = f"{kind} {config.num_layers} × {config.hidden_size}, {inputs}"
    if config.bidirectional:
        shape = f"bidirectional {shape}"
    return shape if config.members == 1 else f"{config.members} ensemble members, each {shape}"


def verdict(found: Verdict, unit: Unit = "char") -> str:
    """Write a verdict and its advice as a sentence without its capital and full stop."""
    one, many = UNITS[unit]
    measured = ""
    if found.train_loss is not None:
        measured = f" without dropout ({found.train_loss:.3f})"
    sentence = VERDICTS[found.judgement].format(
        n_val=found.n_val,
        unit=one,
        units=one if found.n_val == 1 else many,
        abbreviation=unit,
        loss=found.loss,
        chance=found.chance,
        unknown_share=found.unknown_share,
        measured=measured,
        epochs=found.epochs,
        rise=found.rise,
        gap=_gap(found.gap),
        lowest=", and at its lowest" if found.rise == 0 else "",
    )
    return sentence if found.advice is None else f"{sentence}; {ADVICE[found.advice]}"
