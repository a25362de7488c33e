"""A web page that shows texts coloured by surprise: one file, no network, light and dark."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence

from charrnn.display.heatmap import visible
from charrnn.scoring.details import END, CharScore
from charrnn.scoring.words import WordScore, word_scores

MAX_CHARS = 200_000
"""More would make a page of more than ten megabytes."""

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
        model: what the model is called.
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
    return _PAGE.format(
        style=_STYLE + _colours(),
        model=html.escape(model),
        figures="".join(
            f"<div><strong>{value}</strong><span>{label}</span></div>" for value, label in figures
        ),
        scale="".join(f'<i class="l{k}"></i>' for k in range(TOP_BITS * LEVELS_PER_BIT + 1)),
        ticks="".join(f"<span>{tick}{'+' if tick == TOP_BITS else ''}</span>" for tick in TICKS),
        texts="".join(f'<p class="text">{_text(text)}</p>\n' for text in texts),
        data=_data(events),
        script=_SCRIPT,
    )


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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>charrnn score</title>
<style>{style}</style>
</head>
<body>
<main class="chars">
<header>
<h1>How surprising is this text?</h1>
<p class="model">{model}</p>
</header>
<section class="figures">{figures}</section>
<section class="bar">
<div class="legend"><div class="scale">{scale}</div><div class="ticks">{ticks}</div>
<p>bits of surprise: each bit more is half as probable</p></div>
<div class="switch"><button type="button" class="on" data-mode="chars">characters</button>\
<button type="button" data-mode="words">words</button></div>
</section>
<article>
{texts}</article>
<footer>Point at a character to see what the model expected. Made by charrnn.</footer>
</main>
<div id="card" hidden="hidden"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { --ground: #f6f4ef; --paper: #fff; --ink: #1c1b19; --soft: #77736b; --line: #e4e0d7;
  --accent: #d8413f; }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1014; --paper: #16181d;
  --ink: #e8e6e1; --soft: #8f8b84; --line: #2a2d34; --accent: #ee6f9f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; letter-spacing: -.02em; margin: 0; font-weight: 650; }
.model { margin: .2rem 0 1.6rem; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: 1.25rem; }
.figures div { background: var(--paper); border: 1px solid var(--line); border-radius: .7rem;
  padding: .7rem 1.1rem; min-width: 8rem; flex: 1; }
.figures strong { display: block; font-size: 1.4rem; font-weight: 620;
  font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.figures span { color: var(--soft); font-size: .8rem; }
.bar { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem 2rem; position: sticky;
  top: 0; z-index: 1; background: var(--ground); padding: .75rem 0 .5rem; }
.legend { flex: 1; min-width: 15rem; }
.legend p { margin: 0; color: var(--soft); font-size: .78rem; }
.scale { display: flex; height: .8rem; border-radius: .4rem; overflow: hidden;
  border: 1px solid var(--line); }
.scale i { flex: 1; }
.ticks { display: flex; justify-content: space-between; font-size: .75rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.switch { display: flex; border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
.switch button { border: 0; background: var(--paper); color: var(--soft); font: inherit;
  font-size: .85rem; padding: .35rem .9rem; cursor: pointer; }
.switch button.on { background: var(--ink); color: var(--paper); }
.text { background: var(--paper); border: 1px solid var(--line); border-radius: .8rem;
  padding: 1.3rem 1.5rem; margin: .75rem 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 1rem/1.75 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
.text span { padding: .14em 0; cursor: default; }
.text span:hover { outline: 2px solid var(--accent); outline-offset: 0; border-radius: 2px; }
.text .mark { opacity: .75; font-size: .8em; }
footer { color: var(--soft); font-size: .8rem; margin-top: 1.5rem; }
#card { position: fixed; z-index: 2; pointer-events: none; background: var(--paper);
  color: var(--ink); border: 1px solid var(--line); border-radius: .7rem; padding: .7rem .9rem;
  box-shadow: 0 8px 30px rgb(0 0 0 / .22); font-size: .85rem; min-width: 13rem; }
#card h2 { margin: 0 0 .1rem; font-size: 1.05rem; }
#card p { margin: 0 0 .45rem; color: var(--soft); }
#card .row { display: grid; grid-template-columns: 5rem 1fr 3rem; gap: .5rem;
  align-items: center; font-variant-numeric: tabular-nums; }
#card .row b { font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
#card .row i { height: .5rem; border-radius: .25rem; background: var(--accent); min-width: 1px; }
#card .row span { text-align: right; color: var(--soft); }
"""

_SCRIPT = """
const rows = JSON.parse(document.getElementById("data").textContent);
const card = document.getElementById("card");
const main = document.querySelector("main");
const spans = Array.from(document.querySelectorAll(".text span"));
const numbers = new Map(spans.map((span, k) => [span, k]));
function make(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.appendChild(element);
  return element;
}
function odds(bits) {
  const times = Math.pow(2, bits);
  return times >= 10 ? "1 in " + Math.round(times).toLocaleString("en")
    : (100 / times).toFixed(times >= 2 ? 0 : 1) + " %";
}
function show(event) {
  const number = numbers.get(event.target);
  if (number === undefined) { card.hidden = true; return; }
  const [name, bits, rank, expected] = rows[number];
  card.replaceChildren();
  make("h2", name, card);
  make("p", bits.toFixed(2) + " bits · " + odds(bits) + " · rank " + rank, card);
  for (const [other, share] of expected) {
    const row = make("div", "", card);
    row.className = "row";
    make("b", other, row);
    make("i", "", row).style.width = (100 * share) + "%";
    make("span", (100 * share).toFixed(share >= 0.1 ? 0 : 1) + "%", row);
  }
  card.hidden = false;
  const box = card.getBoundingClientRect();
  const at = event.target.getBoundingClientRect();
  const below = at.bottom + 8 + box.height;
  card.style.left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8)) + "px";
  card.style.top = (below >= innerHeight ? at.top - box.height - 8 : at.bottom + 8) + "px";
}
document.addEventListener("mouseover", show);
document.addEventListener("click", show);
document.addEventListener("scroll", () => { card.hidden = true; });
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    main.className = button.dataset.mode;
    document.querySelectorAll(".switch button").forEach(
      (other) => other.classList.toggle("on", other === button));
  });
}
"""
