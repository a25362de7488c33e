"""Makes the pictures of the README anew from the program itself: `make pictures`, a minute.

Each picture of a terminal is a real run in tmux, drawn as SVG for a light and a dark page. They
load nothing, fonts included. The picture of the exported page is a screenshot.

Needs tmux and Chromium, and what the recipes in `corpora/` need.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from subprocess import PIPE
from xml.sax.saxutils import escape

from rich.ansi import AnsiDecoder
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = HERE / "pictures"
PAGE_WIDTH, PAGE_HEIGHT = 860, 760
COLUMN, ROW, SIZE, MARGIN = 8.4, 19, 14, 16
"""Width and height of a character, size of the font, and margin, in pixels."""
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,Liberation Mono,monospace"
COLOURS = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
OTHERS = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
"""Variables that would change how a program writes."""


@dataclass(frozen=True)
class Picture:
    """A terminal in which a command has been run."""

    name: str
    title: str
    command: str
    columns: int = 64
    at_percent: int = 0
    """How far a training run is at the moment of the picture; 0 when the command has ended."""


SAMPLE = Picture(
    "sample",
    "charrnn writes a scene in the manner of Shakespeare",
    "charrnn sample -p ROMEO: --temp 0.6 -n 300 --seed 8",
)
SCORE = Picture(
    "score",
    "A text coloured by how much each character surprised the model",
    'charrnn score --per-char "Shall I compare thee to a laptop?"',
)
TRAINING = Picture(
    "training",
    "A training run in progress: losses, speed and what the model writes by now",
    "charrnn train corpora/names.txt --documents line --time 1m",
    at_percent=70,
)
NAMES = Picture(
    "names",
    "Ten names by a model that has read a list of names for a minute",
    "charrnn sample -m runs/names --num 10 --temp 0.8 --seed 1",
)
STILL = (SAMPLE, SCORE)
"""The same on every machine: the bundled model, with a seed. No other model may be there."""
ALL = (*STILL, TRAINING, NAMES)
"""In this order: the names are those of the training run."""


def ansi(*colours: str) -> list[tuple[int, int, int]]:
    """Colours as rich wants them."""
    return [tuple(bytes.fromhex(colour)) for colour in colours]  # type: ignore[misc]


THEMES = {
    "light": TerminalTheme(
        *ansi("ffffff", "1f2328"),
        ansi("24292f", "b42318", "116329", "8a5a00", "0550ae", "8250df", "1b7c83", "6e7781"),
        ansi("57606a", "a40e26", "1a7f37", "7d4e00", "218bff", "a475f9", "3192aa", "8c959f"),
    ),
    "dark": TerminalTheme(
        *ansi("12161c", "dbe1e8"),
        ansi("484f58", "ff7b72", "5ecb76", "e0b341", "58a6ff", "bc8cff", "39c5cf", "b1bac4"),
        ansi("8b949e", "ffa198", "7ee787", "f0cd65", "79c0ff", "d2a8ff", "56d4dd", "ffffff"),
    ),
}


def main() -> None:
    """Make all of them."""
    if not shutil.which("tmux"):
        sys.exit("make pictures needs tmux")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpora").mkdir()
        recipe = [sys.executable, ROOT / "corpora" / "names.py"]
        subprocess.run([*recipe, "--out", folder / "corpora" / "names.txt"], check=True)
        for picture in ALL:
            save(picture, photographed(picture, folder))
    photograph_page()


def save(picture: Picture, output: str) -> None:
    """Write a picture for light and dark pages."""
    for theme in THEMES:
        drawn = svg(picture, output, theme)
        (FOLDER / f"{picture.name}-{theme}.svg").write_text(drawn, "utf-8", newline="\n")
    print(f"{FOLDER.name}/{picture.name}: {len(drawn):,} bytes", flush=True)


def photographed(picture: Picture, folder: Path) -> str:
    """What a command shows on a terminal, with its colours."""
    program = shlex.join([sys.executable, "-m", "charrnn"])
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}

    def tmux(*arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-S", folder / picture.name, "-f", os.devnull, *arguments],
            check=True, stdout=PIPE, encoding="utf-8", cwd=folder, env=environment, timeout=120,
        ).stdout  # fmt: skip

    variables = [f"-e{name}={value}" for name, value in COLOURS.items()]
    run = picture.command.replace("charrnn", program, 1) + "; tmux wait-for -S ended; exec cat"
    tmux("new-session", "-d", "-x", str(picture.columns), "-y", "40", *variables, run)
    seen, percent, until = "", 0, time.monotonic() + 180
    try:
        while percent < picture.at_percent:
            assert time.monotonic() < until, seen
            time.sleep(0.2)
            seen = tmux("capture-pane", "-e", "-p", "-N")
            percent = max(map(int, re.findall(r"(\d+)%", seen)), default=0)
        tmux("wait-for", "ended")
        time.sleep(0.5)  # the signal may overtake the last words
        return seen or tmux("capture-pane", "-e", "-p", "-N")
    finally:
        tmux("kill-server")


def svg(picture: Picture, output: str, theme: str) -> str:
    """Draw a command and what it has written.

    Args:
        picture: says which command, and how wide the terminal is.
        output: what it has written, with escape sequences for colours.
        theme: of the page that it is for.
    """
    lines = [Text.assemble(("$ ", "dim"), (picture.command, "bold"))]
    lines += AnsiDecoder().decode(output.rstrip("\n"))
    width = round(picture.columns * COLUMN + 2 * MARGIN)
    height = len(lines) * ROW + 2 * MARGIN
    colours = THEMES[theme]
    paper, ink = colours.background_color.hex, colours.foreground_color.hex
    edge = "#d0d7de" if theme == "light" else "#30363d"
    marks = [mark for y, line in enumerate(lines) for mark in drawn(line, y, colours)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="{FONTS}" '
            f'font-size="{SIZE}" fill="{ink}">',
            f"<title>{escape(picture.title)}</title>",
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="7" '
            f'fill="{paper}" stroke="{edge}"/>',
            *marks,
            "</svg>\n",
        ]
    )


def drawn(line: Text, number: int, colours: TerminalTheme) -> Iterator[str]:
    """The pieces of one line that have a style of their own, as elements of SVG."""
    column = 0
    top = MARGIN + number * ROW
    segments = ((part.text, part.style or Style()) for part in line.render(Console()))
    for style, group in groupby(segments, key=lambda pair: pair[1]):
        text = "".join(part for part, _ in group).rstrip("\n")
        cells = cell_len(text)
        front, back = style.color, style.bgcolor
        if style.reverse:
            front, back = back or Color.default(), front or Color.default()
        is_filled = back is not None and not (back.is_default and not style.reverse)
        if is_filled:
            colour = back.get_truecolor(colours, foreground=bool(style.reverse)).hex
            x, wide = f"{MARGIN + column * COLUMN:.1f}", f"{cells * COLUMN:.1f}"
            yield f'<rect x="{x}" y="{top}" width="{wide}" height="{ROW}" fill="{colour}"/>'
        kept = text if style.underline else text.strip()
        if kept:
            at = column + (0 if style.underline else cell_len(text) - cell_len(text.lstrip()))
            shown = escape(kept).replace(" ", "\N{NO-BREAK SPACE}")  # others collapse in SVG
            yield f"<text{looks(style, front, kept, at, top, colours)}>{shown}</text>"
        column += cells


def looks(
    style: Style, front: Color | None, text: str, column: int, top: int, colours: TerminalTheme
) -> str:
    """Place and looks of a piece of text as attributes of SVG."""
    attributes = {"x": f"{MARGIN + column * COLUMN:.1f}", "y": f"{top + 14}"}
    if cell_len(text) > 1:  # whatever the font, columns stay columns
        attributes |= {
            "textLength": f"{cell_len(text) * COLUMN:.1f}",
            "lengthAdjust": "spacingAndGlyphs",
        }
    if front is not None and not (front.is_default and not style.reverse):
        attributes["fill"] = front.get_truecolor(colours, foreground=not style.reverse).hex
    attributes |= {"font-weight": "bold"} if style.bold else {}
    attributes |= {"font-style": "italic"} if style.italic else {}
    attributes |= {"fill-opacity": ".65"} if style.dim else {}
    attributes |= {"text-decoration": "underline"} if style.underline else {}
    return "".join(f' {name}="{value}"' for name, value in attributes.items())


def photograph_page() -> None:
    """Write `page.png`, the page of the bundled model after it has written."""
    from playwright.sync_api import sync_playwright

    import charrnn

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as control:
        page = charrnn.load("builtin").export(
            Path(folder) / "page.html", title="A small Shakespeare", prompt="ROMEO:\n"
        )
        browser = control.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": PAGE_WIDTH, "height": PAGE_HEIGHT})
        tab.goto(page.as_uri())
        tab.wait_for_selector("#start:not([disabled])")
        tab.fill("#length", "400")
        tab.click("#start")
        tab.wait_for_selector("#stop[disabled]", state="attached")
        tab.screenshot(path=HERE / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
