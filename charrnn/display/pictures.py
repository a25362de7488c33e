"""Charts as pictures, drawn by matplotlib, and a page around one.

matplotlib is imported when a picture is drawn; everything else works without it.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from charrnn.display.charts import COLOURS, Bars, Chart, Curves, Scatter, finite, ticks
from charrnn.display.terminal import visible_text
from charrnn.export.heat import asset

INK = "#1c1b19"
"""Of axes and words; in a page it becomes the page's own."""
PAPER = "#ffffff"
SIZE, PAGE_SIZE = (8.0, 4.8), (5.6, 4.2)
"""Inches of a picture, and of one in a page, which has room on a phone."""
DPI = 150
MOST_TICKS = 8
_SETTINGS = {
    "svg.fonttype": "none",  # the reader's own letters
    "svg.hashsalt": "charrnn",  # the same picture is the same file
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}
_PAGE_STYLE = """
figure { margin: 1.2rem 0; background: var(--paper); border: 1px solid var(--line);
  border-radius: .8rem; padding: .8rem; overflow-x: auto; }
figure svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: 0 auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .8rem; border-bottom: 1px solid var(--line); }
summary { cursor: pointer; color: var(--soft); margin: .5rem 0; }
footer { color: var(--soft); font-size: .8rem; margin-top: 1.5rem; }
"""


def draw(chart: Chart, stream: BinaryIO, kind: str, *, in_page: bool = False) -> None:
    """Draw a chart into a file.

    Args:
        chart: what to draw.
        stream: where the picture goes.
        kind: png or svg.
        in_page: leave the ground transparent, and the title to the page.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks
        width, height = PAGE_SIZE if in_page else SIZE
        if isinstance(chart, Scatter):
            height = 0.85 * width
        elif isinstance(chart, Bars):
            height = 1.2 + 0.32 * len(chart.rows)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot(facecolor="none" if in_page else PAPER)
        if isinstance(chart, Curves):
            _draw_curves(axes, chart)
        elif isinstance(chart, Scatter):
            _draw_scatter(axes, chart)
        else:
            _draw_bars(axes, chart)
        axes.spines[["top", "right"]].set_visible(False)
        if not in_page:
            figure.suptitle(_plain(chart.title))
        figure.savefig(
            stream,
            format=kind,
            dpi=DPI,
            facecolor="none" if in_page else PAPER,
            metadata={"Date": None, "Creator": "charrnn"} if kind == "svg" else None,
        )


def page(chart: Chart, svg: str, model: str) -> str:
    """Return a page with a picture, which takes the colours of the page, and its numbers.

    Args:
        chart: what the picture shows.
        svg: the picture, drawn with `in_page`.
        model: what it is of.
    """
    picture = svg[svg.index("<svg") :].replace(INK, "currentColor")
    headers, rows = _table(chart)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in headers)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    title = html.escape(chart.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{title}</title>\n<style>{asset('heat.css')}{_PAGE_STYLE}</style>\n"
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\"/>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n<p>{html.escape(visible_text(model))}</p>\n"
        f'<figure role="img" aria-label="{title}">{picture}</figure>\n'
        f"<details><summary>The numbers</summary><table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></details>\n<footer>Made by charrnn.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _table(chart: Chart) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
    """Return the numbers of a chart as a table."""
    if isinstance(chart, Curves):
        rows = (
            (one.name, chart.x_text(x), f"{y:.4g}") for one in chart.series for x, y in finite(one)
        )
        return ("", chart.x_label, chart.y_label), rows
    if isinstance(chart, Scatter):
        return ("", "x", "y"), ((label, f"{x:.3f}", f"{y:.3f}") for label, x, y in chart.points)
    return ("", *chart.names), ((label, f"{a:.4f}", f"{b:.4f}") for label, a, b in chart.rows)


def _draw_curves(axes: Any, chart: Curves) -> None:
    lines, names = [], []
    for one in chart.series:
        points = finite(one, chart.is_log)
        (line,) = axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=COLOURS[one.colour % len(COLOURS)],
            linestyle="--" if one.is_faint else "-",
            linewidth=1.2 if one.is_faint else 1.8,
            marker="o" if len(points) == 1 else "",
        )
        lines.append(line)
        names.append(_plain(one.name))
    if chart.is_log:
        axes.set_yscale("log")
    xs = [x for one in chart.series for x, _ in finite(one, chart.is_log)]
    if xs:
        axes.set_xticks(ticks(min(xs), max(xs), MOST_TICKS, chart.x_steps))
    axes.xaxis.set_major_formatter(lambda x, _: chart.x_text(x))
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylabel(_plain(chart.y_label))
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(lines, names, frameon=False)


def _draw_scatter(axes: Any, chart: Scatter) -> None:
    xs, ys = [x for _, x, _ in chart.points], [y for _, _, y in chart.points]
    axes.scatter(xs, ys, s=120, color=COLOURS[0], alpha=0.12, linewidth=0)
    for label, x, y in chart.points:
        axes.text(x, y, label, ha="center", va="center", parse_math=False)
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylabel(_plain(chart.y_label))
    axes.grid(alpha=0.25)


def _draw_bars(axes: Any, chart: Bars) -> None:
    places = range(len(chart.rows))
    for k, name in enumerate(chart.names):
        offset = 0.2 * (2 * k - 1)
        axes.barh(
            [place + offset for place in places],
            [100 * row[1 + k] for row in chart.rows],
            height=0.36,
            color=COLOURS[k],
            label=_plain(name),
        )
    axes.set_yticks(list(places), [_plain(label) for label, _, _ in chart.rows])
    axes.invert_yaxis()
    axes.set_xlabel("per cent")
    axes.legend(frameon=False, loc="lower right")


def _plain(text: str) -> str:
    """Return a text that matplotlib takes for no formula, and for no hidden label."""
    return " " * text.startswith("_") + visible_text(text).replace("$", r"\$")
