"""Samples on stdout: streamed, whole, labelled, or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from charrnn.display.records import to_json
from charrnn.display.terminal import say, terminal_text, visible_text
from charrnn.sampling.novelty import RUN, Novelty
from charrnn.sampling.writer import Sample

LONG_PROMPT = 20_000
"""Characters from which reading a prompt is worth a progress bar."""
SHOWN_COPY = 60
"""A longer copied passage is cut in the report."""


def show_stream(characters: Iterable[str], echo: str, *, raw: bool) -> None:
    """Write a sample character by character, after the prompt if there is one to show.

    The last line is ended, also when the stream is interrupted. On a terminal, unless it is `raw`,
    control characters are shown escaped.
    """
    write, flush = sys.stdout.write, sys.stdout.flush
    shown = terminal_text if sys.stdout.isatty() and not raw else str
    last = echo
    _write((echo, "bold"), raw=raw)
    flush()
    try:
        for last in characters:
            write(shown(last))
            flush()
    finally:
        if not last.endswith("\n"):
            write("\n")
            flush()


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
    found: list[Novelty] = []
    try:
        for number, (sample, novelty) in enumerate(samples, 1):
            if novelty is not None:
                found.append(novelty)
            if as_json:
                copied = {} if novelty is None else _copied(novelty)
                print(to_json({**sample.to_dict(), **copied}), flush=True)
                continue
            if labelled:
                label = f"── {number} · temperature {sample.temperature:g} ──\n"
                _write((label, "dim"), raw=False)
            _write((sample.prompt if echo else "", "bold"), raw=raw)
            _write(*_marked(sample.text, novelty), raw=raw)
            sys.stdout.flush()
            if novelty is not None and (report := _report(novelty)):
                say(report)
    finally:
        if len(found) > 1:
            say(_total(found))


def _write(*parts: tuple[str, str], raw: bool) -> None:
    """Write texts: in their styles and escaped on a terminal, exactly elsewhere or if raw."""
    if raw or not sys.stdout.isatty():
        sys.stdout.write("".join(text for text, _ in parts))
        return
    shown = Text.assemble(*((terminal_text(text), style) for text, style in parts))
    Console(soft_wrap=True, highlight=False).print(shown, end="")


def _marked(text: str, novelty: Novelty | None) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text with the style that marks what is copied."""
    at = 0
    for begin, end in () if novelty is None else novelty.spans:
        yield text[at:begin], ""
        yield text[begin:end], "reverse"
        at = end
    yield text[at:], ""
    if not text.endswith("\n"):
        yield "\n", ""


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


def _total(found: list[Novelty]) -> str:
    """Say how much of several samples is copied."""
    n_chars = sum(one.n_chars for one in found)
    n_copied = sum(one.n_copied for one in found)
    n_whole = sum(one.is_whole_document for one in found)
    n_with = sum(bool(one.spans) and not one.is_whole_document for one in found)
    return (
        f"of {len(found):,} samples {n_whole:,} are whole documents of the corpus and {n_with:,} "
        f"others have a copied passage: {n_copied / max(n_chars, 1):.1%} of all characters"
    )


@contextmanager
def prompt_progress(n_chars: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on stderr while a long prompt is read, if there is a terminal."""
    console = Console(stderr=True)
    if n_chars < LONG_PROMPT or not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading the prompt", total=n_chars)
        yield lambda done: progress.update(task, completed=done)
