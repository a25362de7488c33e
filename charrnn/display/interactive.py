"""The screen of writing together."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.display.terminal import terminal_text, visible_text

VISIBLE_CHARS = 400
"""Characters of the text so far that are shown at each turn."""


class Conversation:
    """Shows the text and its possible continuations on stderr, and asks what to do."""

    def __init__(self) -> None:
        """Talk on the terminal."""
        self._console = Console(stderr=True, highlight=False)

    def explain(self, choices: int) -> None:
        """Say how it works."""
        self._console.print(
            f"Type a beginning. Then a number from 1 to {choices} takes a continuation, Enter asks "
            "for others, /undo takes a turn back, /quit ends; any other text is added as it is.",
            style="dim",
        )

    def turn(self, text: str, proposals: Sequence[str]) -> str | None:
        """Show a turn and return the user's answer; None at the end of the input."""
        self._console.print()
        if text:
            shown = text if len(text) <= VISIBLE_CHARS else "…" + text[-VISIBLE_CHARS:]
            self._console.print(Text(terminal_text(shown), style="bold"))
        table = Table(show_header=False, box=None, padding=(0, 1))
        table.add_column(style="cyan", justify="right")
        table.add_column(overflow="fold")
        for number, proposal in enumerate(proposals, 1):
            table.add_row(str(number), Text(visible_text(proposal)))
        if proposals:
            self._console.print(table)
        elif text:
            self._console.print("The model would end here.", style="dim")
        try:
            return self._console.input("[bold cyan]> [/]")
        except EOFError:
            return None

    def complain(self, message: str) -> None:
        """Say what was wrong with an answer."""
        self._console.print(Text(terminal_text(message), style="yellow"))

    def finish(self, text: str) -> None:
        """Put the whole text on stdout."""
        print(terminal_text(text) if sys.stdout.isatty() else text)
