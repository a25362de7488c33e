"""Samples on stdout: streamed, whole, labelled, or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from charrnn.display.records import to_json
from charrnn.sampling.novelty import RUN, Novelty, check_novelty
from charrnn.sampling.writer import Sample

LONG_PROMPT = 20_000
"""Characters from which reading a prompt is worth a progress bar."""


def show_stream(characters: Iterable[str], echo: str) -> None:
    """Write a sample character by character, after the prompt if there is one to show.

    The last line is ended, also when the stream is interrupted.
    """
    write, flush = sys.stdout.write, sys.stdout.flush
    last = echo
    _prompt(echo)
    flush()
    try:
        for last in characters:
            write(last)
            flush()
    finally:
        if not last.endswith("\n"):
            write("\n")
            flush()


def show_samples(
    samples: Iterable[Sample], *, as_json: bool, echo: bool, labelled: bool, corpus: str | None
) -> None:
    """Write whole samples as they are finished, in order.

    Args:
        samples: what to write.
        as_json: one JSON object a line instead of text.
        echo: write the prompts, too.
        labelled: put a line with number and temperature before each.
        corpus: text to look for copies in, or None.
    """
    for number, sample in enumerate(samples, 1):
        novelty = None if corpus is None else check_novelty(sample.text, corpus)
        if as_json:
            record = sample.to_dict()
            if novelty is not None:
                record["longest_copied"] = novelty.longest
                record["copied_share"] = novelty.copied_share
            print(to_json(record), flush=True)
            continue
        if labelled:
            _label(f"── {number} · temperature {sample.temperature:g} ──")
        _prompt(sample.prompt if echo else "")
        _text(sample.text, novelty)
        sys.stdout.flush()
        if novelty is not None:
            _report(novelty)


def _prompt(text: str) -> None:
    if sys.stdout.isatty():
        Console(soft_wrap=True).print(Text(text, style="bold"), end="")
    else:
        sys.stdout.write(text)


def _label(text: str) -> None:
    if sys.stdout.isatty():
        Console().print(Text(text, style="dim"))
    else:
        print(text)


def _text(text: str, novelty: Novelty | None) -> None:
    if novelty is None or not sys.stdout.isatty():
        sys.stdout.write(text)
    else:
        shown = Text(text)
        for begin, end in novelty.spans:
            shown.stylize("reverse", begin, end)
        Console(soft_wrap=True, highlight=False).print(shown, end="")
    if not text.endswith("\n"):
        sys.stdout.write("\n")


def _report(novelty: Novelty) -> None:
    longest = novelty.longest if len(novelty.longest) <= 60 else novelty.longest[:60] + "…"
    print(
        f"copied: {novelty.copied_share:.1%} of the characters are in passages of {RUN} or more "
        f"that occur in the corpus; the longest passage has {len(novelty.longest)}: {longest!r}",
        file=sys.stderr,
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
