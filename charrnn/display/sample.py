"""Samples on stdout: streamed, whole, labelled, or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from charrnn.display.records import to_json
from charrnn.display.terminal import say, terminal_text, visible_text
from charrnn.sampling.novelty import RUN, Novelty
from charrnn.sampling.writer import Sample

LONG_PROMPT = 20_000
"""Characters from which reading a prompt is worth a progress bar."""
PIECE_CHARS = 1024
"""At most 4,096 bytes, which POSIX lets a pipe take whole."""
SHOWN_COPY = 60
"""A longer copied passage is cut in the report."""


def show_stream(characters: Iterable[str], echo: str, *, raw: bool) -> None:
    """Write a sample character by character, after the prompt if there is one to show.

    The last line is ended, also when the stream is interrupted. On a terminal, unless it is `raw`,
    control characters are shown escaped.
    """
    output = _Output(raw=raw)
    try:
        output.put((echo, "bold"))
        for character in characters:
            output.put_character(character)
    finally:
        output.end_line()


def show_samples(
    samples: Iterable[tuple[Sample, Novelty | None]],
    *,
    as_json: bool,
    echo: bool,
    labelled: bool,
    raw: bool,
) -> None:
    """Write whole samples as they are finished, in order, and what is copied in them.

    Args:
        samples: what to write, each with what a corpus has of it if that was looked for.
        as_json: one JSON object a line instead of text.
        echo: write the prompts, too.
        labelled: put a line with number and temperature before each.
        raw: send control characters to a terminal as they are.
    """
    output, total = _Output(raw=raw), _Total()
    try:
        for number, (sample, novelty) in enumerate(samples, 1):
            if novelty is not None:
                total.add(novelty)
            if as_json:
                copied = {} if novelty is None else _copied(novelty)
                output.put_plain(to_json({**sample.to_dict(), **copied}) + "\n")
                continue
            if labelled:
                label = f"── {number} · temperature {sample.temperature:g} ──\n"
                output.put((label, "dim"))
            output.put((sample.prompt if echo else "", "bold"), *_marked(sample.text, novelty))
            output.end_line()
            if novelty is not None and (report := _report(novelty)):
                say(report)
    finally:
        if output.is_inside_line:
            output.end_line()
        if total.n_samples > 1:
            say(str(total))


class _Output:
    """Standard output: texts in styles and escaped on a terminal, exactly elsewhere or if `raw`.

    It is written in pieces that a pipe takes whole or not at all, so that an interrupt leaves whole
    characters.
    """

    def __init__(self, *, raw: bool) -> None:
        """Begin a line."""
        self._is_plain = raw or not sys.stdout.isatty()
        self._last = ""

    @property
    def is_inside_line(self) -> bool:
        """Whether the last line has characters and no end."""
        return self._last not in ("", "\n")

    def put(self, *parts: tuple[str, str]) -> None:
        """Write texts, each with its style."""
        text = "".join(text for text, _ in parts)
        if self._is_plain:
            self.put_plain(text)
            return
        self._last = text[-1:] or self._last
        shown = Text.assemble(*((terminal_text(text), style) for text, style in parts))
        Console(soft_wrap=True, highlight=False).print(shown, end="")

    def put_plain(self, text: str) -> None:
        """Write a text as it is."""
        for begin in range(0, len(text), PIECE_CHARS):
            piece = text[begin : begin + PIECE_CHARS]
            self._last = piece[-1]
            sys.stdout.write(piece)
            sys.stdout.flush()

    def put_character(self, character: str) -> None:
        """Write a character, in no style."""
        self.put_plain(character if self._is_plain else terminal_text(character))

    def end_line(self) -> None:
        """End the last line, even an empty one, if it is not ended; begin the next."""
        if self._last != "\n":
            self.put_plain("\n")
        self._last = ""


def _marked(text: str, novelty: Novelty | None) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text with the style that marks what is copied."""
    at = 0
    for begin, end in () if novelty is None else novelty.spans:
        yield text[at:begin], ""
        yield text[begin:end], "reverse"
        at = end
    yield text[at:], ""


def _copied(novelty: Novelty) -> dict[str, object]:
    return {
        "longest_copied": novelty.longest,
        "copied_share": novelty.copied_share,
        "is_whole_document": novelty.is_whole_document,
    }


def _report(novelty: Novelty) -> str:
    """Say what of a sample is copied; nothing of one too short to have a copied passage."""
    if novelty.is_whole_document:
        return "copied: this is a whole document of the corpus"
    if len(novelty.longest) < novelty.n_chars < RUN:
        return ""
    return (
        f"copied: {novelty.copied_share:.1%} of the characters are in passages of {RUN} or more "
        f"that occur in the corpus; the longest passage has {len(novelty.longest)}: "
        f"'{visible_text(novelty.longest, SHOWN_COPY)}'"
    )


@dataclass
class _Total:
    """How much of several samples is copied."""

    n_samples: int = 0
    n_chars: int = 0
    n_copied: int = 0
    n_whole: int = 0
    """Samples that are whole documents of the corpus."""
    n_with: int = 0
    """Other ones with a copied passage."""

    def add(self, one: Novelty) -> None:
        """Count a sample."""
        self.n_samples += 1
        self.n_chars += one.n_chars
        self.n_copied += one.n_copied
        self.n_whole += one.is_whole_document
        self.n_with += bool(one.spans) and not one.is_whole_document

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"of {self.n_samples:,} samples {self.n_whole:,} are whole documents of the corpus and "
            f"{self.n_with:,} others have a copied passage: "
            f"{self.n_copied / max(self.n_chars, 1):.1%} of all characters"
        )


@contextmanager
def prompt_progress(n_chars: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on stderr while a long prompt is read, if there is a terminal."""
    console = Console(stderr=True) if n_chars >= LONG_PROMPT else None
    if console is None or not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading the prompt", total=n_chars)
        yield lambda done: progress.update(task, completed=done)
