"""A web page that shows a text coloured by the units of a network, one after another.

One file, no network, light and dark; its colours are made as those of `charrnn score --html`.
"""

from __future__ import annotations

import base64
import html
import pkgutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from charrnn.display.terminal import visible
from charrnn.export.heat import asset, css, ink_on, mixed, script_json
from charrnn.inspection.features import Found

LIGHT = ("#1d4f91", "#6ba3dc", "#ffffff", "#f3a15c", "#a8430a")
DARK = ("#6db3ff", "#2c5c92", "#16181d", "#96501a", "#ffab61")
"""Colours at -1, -½, 0, ½ and 1; between them they are mixed."""
STEPS = 10
"""Colours from 0 to 1."""
STEPS_PER_LINE = 4
"""The line at a character is one pixel thicker for each: colour is not for all."""
MAX_BYTES = 24_000_000
"""Of levels in a page."""


class Shape(NamedTuple):
    """How many of each a model has."""

    members: int
    layers: int
    units: int


class Signal(NamedTuple):
    """What is shown of all units."""

    name: str
    is_gate: bool
    levels: bytes
    """By member, layer, unit and character, from -127 to 127, as `packed` makes them."""


def page(
    text: str,
    shape: Shape,
    signals: Sequence[Signal],
    *,
    start: Mapping[str, int | None],
    found: Sequence[tuple[Found, str]] = (),
    model: str,
) -> str:
    """Return the page.

    Args:
        text: what was read, character by character.
        shape: of the model.
        signals: what can be shown; the first is what a unit remembers.
        start: `signal`, `member`, `layer` and `unit` at first; None is the mean of the units.
        found: units that stand out, each with why; of the first signal.
        model: its name, not its path: pages are shown to others.
    """
    data = {
        **shape._asdict(),
        "start": dict(start),
        "names": [_name(c) for c in text],
        "found": [{"member": f.member, "layer": f.layer, "unit": f.unit} for f, _ in found],
        "signals": [
            {
                "name": one.name,
                "is_gate": one.is_gate,
                "levels": base64.b64encode(one.levels).decode("ascii"),
            }
            for one in signals
        ],
    }
    return _asset("html").format(
        style=asset("heat.css") + _asset("css") + _colours(),
        model=html.escape("".join(map(visible, model))),
        found=_found(found, shape),
        signals=_options(one.name for one in signals),
        members=_options(map(str, range(shape.members))),
        layers=_options(map(str, range(shape.layers))),
        hide_members=' hidden="hidden"' * (shape.members == 1),
        hide_layers=' hidden="hidden"' * (shape.layers == 1),
        last_unit=shape.units - 1,
        scale="".join(f'<i class="d{k}"></i>' for k in range(2 * STEPS + 1)),
        text="".join(map(_span, text)),
        data=script_json(data),
        script=_asset("js"),
    )


def _asset(kind: str) -> str:
    """Return the part of the page in the file `units.KIND` beside this one."""
    data = pkgutil.get_data("charrnn.display", f"units.{kind}")
    assert data is not None
    return data.decode("utf-8")


def _options(names: object) -> str:
    assert hasattr(names, "__iter__")
    return "".join(
        f'<option value="{k}">{html.escape(str(name))}</option>' for k, name in enumerate(names)
    )


def _found(found: Sequence[tuple[Found, str]], shape: Shape) -> str:
    """Return the buttons of the units that stand out."""
    if not found:
        return ""
    buttons = []
    for number, (one, why) in enumerate(found):
        where = f"layer {one.layer}, " * (shape.layers > 1)
        where += f"member {one.member}, " * (shape.members > 1)
        buttons.append(
            f'<li><button type="button" data-number="{number}">{where}unit {one.unit} '
            f"<small>{html.escape(why)}</small></button></li>"
        )
    return f'<ul class="found" aria-label="Units that stand out">{"".join(buttons)}</ul>'


def _span(character: str) -> str:
    shown = visible(character)
    kind = ' class="mark"' if shown in ("↵", "→") else ""
    after = character if character in "\n\t" else ""
    return f"<span{kind}>{html.escape(shown)}</span>{after}"


def _name(character: str) -> str:
    return {"\n": "line end", " ": "space", "\t": "tab"}.get(character, visible(character))


def _colours() -> str:
    """Return the style rules of all levels, for light and for dark."""
    light, dark = (
        "".join(_rule(k, palette) for k in range(2 * STEPS + 1)) for palette in (LIGHT, DARK)
    )
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}"


def _rule(number: int, palette: Sequence[str]) -> str:
    if number == STEPS:
        return f".d{number}{{background:transparent;color:inherit}}\n"
    colour = mixed(palette, 2 * number / STEPS)
    thick = abs(number - STEPS) // STEPS_PER_LINE
    side = -thick if number > STEPS else thick
    line = f";box-shadow:inset 0 {side}px var(--ink)" if thick else ""
    return f".d{number}{{background:{css(colour)};color:{ink_on(colour)}{line}}}\n"
