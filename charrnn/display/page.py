"""A web page that shows texts coloured by surprise: one file, no network, light and dark."""

from __future__ import annotations

import html
import math
import pkgutil
from collections.abc import Iterable, Iterator, Sequence

from charrnn.display.terminal import visible
from charrnn.export.heat import asset, legend, level, script_json, style
from charrnn.scoring.details import END, CharScore, WordScore, word_scores

MAX_EVENTS = 800_000
"""Characters and alternatives together; more would make a page of more than ten megabytes."""

LARGEST_FIGURE = 1e9
MAX_EXPONENT = 1024
"""Of 2: more is beyond a float."""


def page(texts: Sequence[Sequence[CharScore]], model: str) -> str:
    """Return the page.

    Args:
        texts: the events of each text.
        model: the name of the model, not its path: pages are shown to others.
    """
    characters = [[_Shown(group) for group in _characters(events)] for events in texts]
    shown = [one for text in characters for one in text]
    n_ends = sum(one.is_end for one in shown)
    bits = math.fsum(one.bits for one in shown)
    mean = bits / len(shown) if shown else math.nan
    per = "per character or end" if n_ends else "per character"
    figures = [
        (_figure(mean, 3), f"bits {per}"),
        (_figure(math.inf if mean >= MAX_EXPONENT else 2.0**mean, 2), f"perplexity {per}"),
        (f"{len(shown) - n_ends:,}", "characters"),
        (_figure(bits, 1), "bits in all"),
    ]
    unknown = sum(one.is_unknown for one in shown)
    if unknown:
        figures.append((f"{unknown:,}", "unknown, charged as UNK"))
    return _asset("html").format(
        style=style() + _asset("css"),
        model=html.escape("".join(map(visible, model))),
        figures="".join(
            f"<div><strong>{value}</strong><span>{label}</span></div>" for value, label in figures
        ),
        legend=legend(),
        texts="".join(
            f'<p class="text">{_text(text, word_scores(events))}</p>\n'
            for text, events in zip(characters, texts, strict=True)
        ),
        data=script_json([one.row for one in shown]),
        script=asset("heat.js") + _asset("js"),
    )


def is_page(beginning: bytes) -> bool:
    """Return whether a file that begins with these bytes is such a page."""
    return beginning.startswith(_asset("html").partition("{")[0].encode("utf-8"))


def _asset(kind: str) -> str:
    """Return the part of the page in the file `page.KIND` beside this one."""
    data = pkgutil.get_data("charrnn.display", f"page.{kind}")
    assert data is not None
    return data.decode("utf-8")


class _Shown:
    """A character of a page, or an end. In a byte model it is of several bytes, which are events.

    Attributes:
        text: the character; empty for the end.
        is_end: whether it is the end.
        is_unknown: whether it is charged as UNK.
        bits: of all its events.
        row: what its card shows: name, bits, ranks, and what was expected in its place.
    """

    def __init__(self, events: Sequence[CharScore]) -> None:
        first = events[0]
        self.text = first.text
        self.is_end = first.character == END
        self.is_unknown = first.is_unknown
        self.bits = math.fsum(one.bits for one in events)
        names = [_label(one.character) for one in events]
        if len(events) > 1:
            names.insert(0, visible(first.text))
        self.row = [
            " ".join(names) + " (unknown)" * first.is_unknown,
            round(self.bits, 3),
            ", ".join(f"{one.rank:,}" for one in events),
            [[_label(a.character), round(math.exp(a.logprob), 4)] for a in first.alternatives],
        ]


def _characters(events: Sequence[CharScore]) -> Iterator[list[CharScore]]:
    """Yield the events of each character, and of the end."""
    group: list[CharScore] = []
    for one in events:
        if group and (one.text or one.character == END):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _figure(value: float, digits: int) -> str:
    """Return a number as it stands in a box."""
    if not math.isfinite(value):
        return "∞" if value == math.inf else "–"
    return f"{value:,.{digits}f}" if value < LARGEST_FIGURE else f"{value:.2e}"


def _text(characters: Sequence[_Shown], words: Iterable[WordScore]) -> str:
    """Return one text as spans, one for each character and for the end."""
    waiting = iter(words)
    parts = []
    left, word_class = 0, ""
    for one in characters:
        if not left:
            word = next(waiting)
            left, word_class = max(word.n_chars, 1), f"w{level(_word_bits(word))}"
        left -= 1
        kind = f"l{level(one.bits)} {word_class}"
        shown = visible(one.text)
        if shown in ("↵", "→", "∎"):
            kind += " mark"
        after = {"\n": "\n", "\t": "\t"}.get(one.text, "")
        parts.append(f'<span class="{kind}">{html.escape(shown)}</span>{after}')
    return "".join(parts)


def _word_bits(word: WordScore) -> float:
    return word.bits / max(word.n_chars, 1)


_CALLED = {"\n": "line end", " ": "space", "\t": "tab", "<end>": "the end", "<unk>": "unknown"}


def _label(character: str) -> str:
    if character in _CALLED:
        return _CALLED[character]
    return visible(character) if len(character) == 1 else character
