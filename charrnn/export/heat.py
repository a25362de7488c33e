"""Texts coloured by surprise: the colours, their legend, and the card of a character.

What the page of `charrnn score --html` and an exported model share; `heat.css` and `heat.js` belong
to it.
"""

from __future__ import annotations

import json
import math
import pkgutil
from collections.abc import Sequence
from typing import Any

LEVELS_PER_BIT = 2
TOP_BITS = 14
"""From here on the colour is the last one."""
BITS_PER_LINE = 4
"""The line under a character is one pixel thicker for so many bits: colour is not for all."""
TICKS = (0, 2, 4, 6, 8, 10, 12, 14)

LIGHT = ("#ffffff", "#fff3cf", "#ffd98a", "#ffb057", "#f3793f", "#d8413f", "#a81e5b", "#5b1a86")
DARK = ("#16181d", "#2f2a1b", "#57411a", "#8a5417", "#bd5a24", "#e0574d", "#ee6f9f", "#d9a6ff")
"""Colours at `TICKS` bits; between them they are mixed."""

Colour = tuple[float, float, float]
"""Red, green and blue, from 0 to 255."""


def asset(name: str) -> str:
    """Return a file beside this one."""
    data = pkgutil.get_data("charrnn.export", name)
    assert data is not None
    return data.decode("utf-8")


def style() -> str:
    """Return the style sheet of pages with such texts."""
    return asset("heat.css") + _colours()


def legend() -> str:
    """Return what the colours mean, as HTML."""
    scale = "".join(f'<i class="l{k}"></i>' for k in range(TOP_BITS * LEVELS_PER_BIT + 1))
    ticks = "".join(f"<span>{tick}{'+' if tick == TOP_BITS else ''}</span>" for tick in TICKS)
    return (
        f'<div class="legend"><div class="scale" aria-hidden="true">{scale}</div>'
        f'<div class="ticks">{ticks}</div><p>bits of surprise: a character with one bit more is '
        "half as probable; the more bits, the thicker its line</p></div>"
    )


def level(bits: float) -> int:
    """Return the number of a colour."""
    return round(min(bits, TOP_BITS) * LEVELS_PER_BIT)


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _colours() -> str:
    """Return the style rules of all levels, for light and for dark."""
    light = "".join(_rule(k, LIGHT) for k in range(TOP_BITS * LEVELS_PER_BIT + 1))
    dark = "".join(_rule(k, DARK) for k in range(TOP_BITS * LEVELS_PER_BIT + 1))
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}"


def _rule(level: int, palette: Sequence[str]) -> str:
    bits = level / LEVELS_PER_BIT
    colour = mixed(palette, bits / 2)
    ground = "transparent" if level == 0 else css(colour)
    ink = "inherit" if level == 0 else ink_on(colour)
    thick = int(bits / BITS_PER_LINE)
    line = f";box-shadow:inset 0 -{thick}px" if thick else ""
    return (
        f".scale .l{level},.chars .l{level},.words .w{level}"
        f"{{background:{ground};color:{ink}{line}}}\n"
    )


def mixed(palette: Sequence[str], place: float) -> Colour:
    """Return the colour at a place of a palette, from 0 to the number of its last colour."""
    k = min(int(place), len(palette) - 2)
    low, high = _parse(palette[k]), _parse(palette[k + 1])
    r, g, b = (x + (place - k) * (y - x) for x, y in zip(low, high, strict=True))
    return r, g, b


def css(colour: Colour) -> str:
    """Return a colour as a style sheet has it."""
    return "rgb({:.0f} {:.0f} {:.0f})".format(*colour)


def ink_on(colour: Colour) -> str:
    """Return black or white: the more legible one, by the contrast of WCAG 2."""
    return "#000" if _luminance(colour) > math.sqrt(1.05 * 0.05) - 0.05 else "#fff"


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, from 0 to 1."""
    linear = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in colour)
    )
    return math.fsum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _parse(colour: str) -> Colour:
    r, g, b = (float(int(colour[k : k + 2], 16)) for k in (1, 3, 5))
    return r, g, b
