"""The screen of writing together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.terminal import terminal_text, visible_text

VISIBLE_CHARS = 400
"""Characters of the text so far that are shown at each turn."""

HELP = {
    "a number": "takes that continuation; with a space before it, it is a text",
    "Enter": "shows other continuations",
    "a text": "is added as it is",
    "//text": "adds a text that begins with /",
    "/undo": "takes back what was added last",
    "/temp T": "changes the temperature of the continuations",
    "/help": "shows this",
    "/quit": "or Ctrl-D ends, and prints the whole text",
}


class Proposal(NamedTuple):
    """A continuation to choose."""

    text: str
    ends: bool
    """The model would end the text after it."""


class Conversation:
    """Shows the text and its possible continuations on stderr, and asks what to do."""

    def __init__(self) -> None:
        """Talk on the terminal."""
        self._console = Console(stderr=True, highlight=False)

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    def explain(self) -> None:
        """Say how it works."""
        self._console.print(
            "Type a text, or the number of a continuation; Enter shows other continuations.\n"
            "/help shows all commands; a text that begins with / is typed with //.",
            style="dim",
        )

    def help(self) -> None:
        """List what can be typed."""
        table = Table(show_header=False, box=None, padding=(0, 1))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for typed, effect in HELP.items():
            table.add_row(typed, effect)
        self._console.print(table)

    def show(self, text: str, proposals: Sequence[Proposal], *, are_new: bool) -> None:
        """Show the text and its continuations.

        Args:
            text: the text so far.
            proposals: the continuations.
            are_new: False if they were offered before, because no others were found.
        """
        self._console.print()
        if text:
            shown = text if len(text) <= VISIBLE_CHARS else "…" + text[-VISIBLE_CHARS:]
            self._console.print(Text(terminal_text(shown), style="bold"))
        if not are_new:
            self._console.print(
                "No other continuations were found; a higher --temp gives more.", style="dim"
            )
        table = Table(show_header=False, box=None, padding=(0, 1))
        table.add_column(style="cyan", justify="right")
        table.add_column(overflow="fold")
        for number, proposal in enumerate(proposals, 1):
            line = Text(visible_text(proposal.text))
            line.append("∎" if proposal.ends else "…", "dim")
            table.add_row(str(number), line)
        if proposals:
            self._console.print(table)
        elif text:
            self._console.print("The model would end here.", style="dim")

    def ask(self) -> str | None:
        """Return the user's answer; None at the end of the input."""
        while True:
            try:
                return self._console.input("[bold cyan]> [/]")
            except UnicodeDecodeError:
                self.complain("this cannot be read: it is not in the terminal's encoding")
            except (EOFError, KeyboardInterrupt) as ended:
                self._console.print()
                if isinstance(ended, KeyboardInterrupt):
                    raise
                return None

    def complain(self, message: str) -> None:
        """Say what was wrong with an answer."""
        self._console.print(Text(terminal_text(message), style="yellow"))

    def finish(self, text: str) -> None:
        """Put the whole text on stdout."""
        print(terminal_text(text) if sys.stdout.isatty() else text)
