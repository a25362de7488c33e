"""Samples on stdout: streamed, whole, labelled, or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from charrnn.display.records import to_json
from charrnn.display.terminal import say, terminal_text, visible_text
from charrnn.sampling.novelty import RUN, Novelty
from charrnn.sampling.writer import Sample, StopReason

LONG_PROMPT = 20_000
"""Characters from which reading a prompt is worth a progress bar."""
PIECE_CHARS = 1024
"""At most 4,096 bytes, which POSIX lets a pipe take whole."""
MIN_LENGTH = 120, 1
"""Characters that a model is advised to write if it ends a text, or a document, at once."""
SHOWN_PROMPT = 40
SHOWN_COPY = 60
"""A longer copied passage is cut in the report."""


class Labels(NamedTuple):
    """What the lines between samples tell beside their numbers."""

    prompts: bool
    """There are several."""
    temperatures: bool

    def of(self, number: int, sample: Sample) -> str:
        """Return the line before a sample."""
        parts = [f"{number:,}"]
        if self.prompts:
            parts.append(f"'{visible_text(sample.prompt, SHOWN_PROMPT)}'")
        if self.temperatures:
            parts.append(f"temperature {sample.temperature:g}")
        return f"── {' · '.join(parts)} ──\n"


def show_stream(characters: Iterable[str], echo: str, *, raw: bool) -> str:
    """Write a sample character by character, after the prompt if there is one to show.

    The last line is ended, also when the stream is interrupted. On a terminal, unless it is `raw`,
    control characters are shown escaped.

    Returns:
        The sample up to its first character that is no white space: what it takes to tell whether
        anything can be seen of it.
    """
    output, beginning = _Output(raw=raw), ""
    try:
        output.put((echo, "bold"))
        for character in characters:
            output.put_character(character)
            if not beginning or beginning.isspace():
                beginning += character
    finally:
        output.end_line()
    return beginning


def tell_blank(text: str, stop_reason: StopReason, *, in_documents: bool) -> None:
    """Say on stderr why nothing can be seen of a sample, if nothing can.

    Args:
        text: the sample.
        stop_reason: why it ended.
        in_documents: the model writes documents, which may be short.
    """
    if stop_reason == "length" or text.strip():
        return
    n = f"{len(text)} character{'s' * (len(text) != 1)}" + " of white space" * bool(text)
    if stop_reason == "eos":
        least = MIN_LENGTH[in_documents]
        say(f"the model ended the text after {n}; --min-length {least} keeps it writing")
    else:
        say(f"the stop text came after {n}; another --stop or --seed gives more")


def show_samples(
    samples: Iterable[tuple[Sample, Novelty | None]],
    *,
    as_json: bool,
    echo: bool,
    labels: Labels | None,
    raw: bool,
    in_documents: bool = False,
) -> None:
    """Write whole samples as they are finished, in order, and what is copied in them.

    Args:
        samples: what to write, each with what a corpus has of it if that was looked for.
        as_json: one JSON object a line instead of text.
        echo: write the prompts, too.
        labels: what the line before each tells; None for no such lines.
        raw: send control characters to a terminal as they are.
        in_documents: the model writes documents, which may be short.
    """
    output, total = _Output(raw=raw), _Total()
    blank: list[Sample] = []
    n_samples = n_blank = 0
    try:
        for number, (sample, novelty) in enumerate(samples, 1):
            n_samples = number
            if sample.stop_reason == "eos" and not (sample.prompt + sample.text).strip():
                n_blank += 1
                blank = blank or [sample]
            if novelty is not None:
                total.add(novelty)
            if as_json:
                copied = {} if novelty is None else _copied(novelty)
                output.put_plain(to_json({**sample.to_dict(), **copied}) + "\n")
                continue
            if labels is not None:
                output.put((labels.of(number, sample), "dim"))
            output.put((sample.prompt if echo else "", "bold"), *_marked(sample.text, novelty))
            output.end_line()
            if novelty is not None and (report := _report(novelty)):
                say(report)
    finally:
        if output.is_inside_line:
            output.end_line()
        if total.n_samples > 1:
            say(str(total))
    if as_json or not n_blank:
        return
    if n_samples == 1:
        tell_blank(blank[0].text, "eos", in_documents=in_documents)
    else:
        say(
            f"{n_blank:,} of {n_samples:,} samples {'is' if n_blank == 1 else 'are'} blank: the "
            f"model ended the text at once; --min-length {MIN_LENGTH[in_documents]} keeps it "
            "writing"
        )


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
    if novelty.n_chars < RUN:
        return ""
    longest = (
        f"the longest passage that also stands in the corpus has {len(novelty.longest)}: "
        f"'{visible_text(novelty.longest, SHOWN_COPY)}'"
    )
    if not novelty.spans:
        return f"nothing copied: {longest}"
    return (
        f"copied: {novelty.copied_share:.1%} of the sample, in passages of {RUN} or more "
        f"characters; {longest}"
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
        if not self.n_whole + self.n_with:
            return f"nothing is copied in any of the {self.n_samples:,} samples"
        found = []
        if self.n_whole:
            are = "is a whole document" if self.n_whole == 1 else "are whole documents"
            found.append(f"{self.n_whole:,} {are} of the corpus")
        if self.n_with:
            has = "has" if self.n_with == 1 else "have"
            found.append(f"{self.n_with:,} {has} a passage of {RUN} or more characters from it")
        return (
            f"of {self.n_samples:,} samples, {' and '.join(found)}: "
            f"{self.n_copied / max(self.n_chars, 1):.1%} of all characters are copied"
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
