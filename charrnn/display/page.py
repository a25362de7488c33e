"""A web page that shows texts coloured by surprise: one file, no network, light and dark."""

from __future__ import annotations

import html
import json
import math
import pkgutil
from collections.abc import Sequence

from charrnn.display.terminal import visible
from charrnn.scoring.details import END, CharScore, WordScore, word_scores

MAX_EVENTS = 800_000
"""Characters and alternatives together; more would make a page of more than ten megabytes."""

LEVELS_PER_BIT = 2
TOP_BITS = 14
"""From here on the colour is the last one."""
TICKS = (0, 2, 4, 6, 8, 10, 12, 14)

LIGHT = ("#ffffff", "#fff3cf", "#ffd98a", "#ffb057", "#f3793f", "#d8413f", "#a81e5b", "#5b1a86")
DARK = ("#16181d", "#2f2a1b", "#57411a", "#8a5417", "#bd5a24", "#e0574d", "#ee6f9f", "#d9a6ff")
"""Colours at `TICKS` bits; between them they are mixed."""

Colour = tuple[float, float, float]


def page(texts: Sequence[Sequence[CharScore]], model: str) -> str:
    """Return the page.

    Args:
        texts: the events of each text.
        model: the name of the model, not its path: pages are shown to others.
    """
    events = [one for text in texts for one in text]
    n_chars = sum(bool(one.text) for one in events)
    bits = math.fsum(one.bits for one in events)
    mean = bits / len(events) if events else math.nan
    figures = [
        (f"{mean:.3f}", "bits per character"),
        (f"{2.0 ** min(mean, 1000.0):.2f}", "perplexity"),
        (f"{n_chars:,}", "characters"),
        (f"{bits:,.1f}", "bits in all"),
    ]
    unknown = sum(one.is_unknown for one in events)
    if unknown:
        figures.append((f"{unknown:,}", "unknown, charged as UNK"))
    return _asset("html").format(
        style=_asset("css") + _colours(),
        model=html.escape("".join(map(visible, model))),
        figures="".join(
            f"<div><strong>{value}</strong><span>{label}</span></div>" for value, label in figures
        ),
        scale="".join(f'<i class="l{k}"></i>' for k in range(TOP_BITS * LEVELS_PER_BIT + 1)),
        ticks="".join(f"<span>{tick}{'+' if tick == TOP_BITS else ''}</span>" for tick in TICKS),
        texts="".join(f'<p class="text">{_text(text)}</p>\n' for text in texts),
        data=_data(events),
        script=_asset("js"),
    )


def is_page(beginning: bytes) -> bool:
    """Return whether a file that begins with these bytes is such a page."""
    return beginning.startswith(_asset("html").partition("{")[0].encode("utf-8"))


def _asset(kind: str) -> str:
    """Return the part of the page in the file `page.KIND` beside this one."""
    data = pkgutil.get_data("charrnn.display", f"page.{kind}")
    assert data is not None
    return data.decode("utf-8")


def _text(events: Sequence[CharScore]) -> str:
    """Return one text as spans, one for each event that shows something."""
    words = iter(word_scores(events))
    parts = []
    left, word_class = 0, ""
    for one in events:
        if one.text and not left:
            word = next(words)
            left, word_class = word.n_chars, f"w{_level(_word_bits(word))}"
        if one.character == END:
            word_class = f"w{_level(one.bits)}"
        left -= bool(one.text)
        kind = f"l{_level(one.bits)} {word_class}"
        shown = _shown(one)
        if shown in ("↵", "→", "∎"):
            kind += " mark"
        after = {"\n": "\n", "\t": "\t"}.get(one.text, "")
        parts.append(f'<span class="{kind}">{html.escape(shown)}</span>{after}')
    return "".join(parts)


def _shown(one: CharScore) -> str:
    """Return what stands on the page: later bytes of a character show nothing."""
    return visible(one.text) if one.text or one.character == END else ""


def _word_bits(word: WordScore) -> float:
    return word.bits / max(word.n_chars, 1)


def _level(bits: float) -> int:
    return round(min(bits, TOP_BITS) * LEVELS_PER_BIT)


def _data(events: Sequence[CharScore]) -> str:
    """Return what the hover shows, as JSON that is safe inside a script element."""
    rows = [
        [
            _label(one.character) + " (unknown)" * one.is_unknown,
            round(one.bits, 3),
            one.rank,
            [[_label(a.character), round(math.exp(a.logprob), 4)] for a in one.alternatives],
        ]
        for one in events
    ]
    return (
        json.dumps(rows, separators=(",", ":"))
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )


_CALLED = {"\n": "line end", " ": "space", "\t": "tab", "<end>": "the end", "<unk>": "unknown"}


def _label(character: str) -> str:
    if character in _CALLED:
        return _CALLED[character]
    return visible(character) if len(character) == 1 else character


def _colours() -> str:
    """Return the style rules of all levels, for light and for dark."""
    light = "".join(_rule(k, LIGHT) for k in range(TOP_BITS * LEVELS_PER_BIT + 1))
    dark = "".join(_rule(k, DARK) for k in range(TOP_BITS * LEVELS_PER_BIT + 1))
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}"


def _rule(level: int, palette: Sequence[str]) -> str:
    bits = level / LEVELS_PER_BIT
    k = min(int(bits / 2), len(palette) - 2)
    share = bits / 2 - k
    low, high = _parse(palette[k]), _parse(palette[k + 1])
    r, g, b = (x + share * (y - x) for x, y in zip(low, high, strict=True))
    ink = "#111" if 0.299 * r + 0.587 * g + 0.114 * b > 140 else "#fff"
    ground = "transparent" if level == 0 else f"rgb({r:.0f} {g:.0f} {b:.0f})"
    ink = "inherit" if level == 0 else ink
    return (
        f".scale .l{level},.chars .l{level},.words .w{level}{{background:{ground};color:{ink}}}\n"
    )


def _parse(colour: str) -> Colour:
    r, g, b = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return r, g, b
