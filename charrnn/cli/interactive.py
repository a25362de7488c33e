"""`charrnn sample --interactive`: the model proposes, the user picks, and so on."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from charrnn.config import SamplingConfig
from charrnn.display.interactive import Conversation
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.model import CharModel
from charrnn.sampling.writer import Request, Start

CHOICES = 4
PROPOSAL_CHARS = 80
PATIENCE = 32
"""Continuations drawn at a turn, at most, to find new ones."""


def require_terminal() -> None:
    """Make sure that there is a terminal to talk to.

    Raises:
        ConfigError: there is none.
    """
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("--interactive needs a terminal; in a pipe use --prompt or --prompts")


class Starter(Protocol):
    """Reads a text, after a place if one is given, and returns the place after it.

    Raises:
        UnknownCharacterError: it has unknown characters, and they are refused.
    """

    def __call__(self, text: str, place: str, after: Start | None = None) -> Start:
        """Read it; `place` is its name in messages."""


def write_together(
    model: CharModel,
    config: SamplingConfig,
    beginning: str,
    *,
    start: Starter,
    read: Callable[[str], str],
) -> None:
    """Write a text in turns until the user ends it, in whatever way, then put it on stdout.

    Args:
        model: the other writer.
        config: as for a sample.
        beginning: of the text.
        start: lets the model read.
        read: turns what is typed into the text that it stands for.
    """
    talk = Conversation()
    talk.explain()
    writing = _Writing(model, config, talk, start, read)
    writing.begin(beginning)
    try:
        while writing.take_turn():
            pass
    finally:
        if writing.text:
            talk.finish(writing.text)


@dataclass
class _Place:
    """Where the text can continue, or be taken back to."""

    text: str
    start: Start
    offered: list[str] = field(default_factory=list)


class _Writing:
    """A text that is being written."""

    def __init__(
        self,
        model: CharModel,
        config: SamplingConfig,
        talk: Conversation,
        start: Starter,
        read: Callable[[str], str],
    ) -> None:
        """Begin nothing yet."""
        self._model = model
        self._short = dataclasses.replace(
            config, length=min(config.length, PROPOSAL_CHARS), min_length=0, logprobs=False
        )
        self._talk = talk
        self._start = start
        self._read = read
        self._indices = itertools.count()
        self._history: list[_Place] = []

    @property
    def text(self) -> str:
        """What is written so far."""
        return self._history[-1].text

    def begin(self, text: str) -> None:
        """Begin with a text, which is not taken back."""
        self._history = [_Place(text, self._start(text, "the prompt"))]

    def take_turn(self) -> bool:
        """Offer continuations and do what the user wants; return whether to continue."""
        place = self._history[-1]
        proposals = self._propose(place)
        are_new = bool(proposals) or not place.offered
        proposals = proposals or place.offered[-CHOICES:]
        self._talk.show(place.text, proposals, are_new=are_new)
        picked = {str(number): text for number, text in enumerate(proposals, 1)}
        while (answer := self._talk.ask()) is not None and answer.strip() != "/quit":
            command = answer.strip()
            if command == "/help":
                self._talk.help()
                continue
            if command == "/undo":
                del self._history[max(1, len(self._history) - 1) :]
                return True
            try:
                added = picked[command] if command in picked else self._typed(answer)
                start = self._start(added, "the text", after=place.start)
            except (ConfigError, UnknownCharacterError) as error:
                self._talk.complain(str(error))
                continue
            if added:
                self._history.append(_Place(place.text + added, start))
            return True
        return False

    def _typed(self, answer: str) -> str:
        """Return the text that an answer stands for.

        Raises:
            ConfigError: it is a command that does not exist, or has an escape that does not.
        """
        if answer.startswith("/") and not answer.startswith("//"):
            raise ConfigError(
                f"there is no command {answer}: /help shows all of them, and a text that begins "
                "with / is typed with //"
            )
        return self._read(answer[answer.startswith("//") :])

    def _propose(self, place: _Place) -> list[str]:
        """Return a few continuations that have not been offered at this place, perhaps none."""
        found: list[str] = []
        for _ in range(0, PATIENCE, CHOICES):
            indices = itertools.islice(self._indices, CHOICES)
            requests = [Request(place.start, "", self._short.temperature, k) for k in indices]
            for sample in self._model.sample_requests(requests, self._short):
                is_new = sample.text not in place.offered
                if sample.text and is_new and len(found) < CHOICES:
                    found.append(sample.text)
                    place.offered.append(sample.text)
            if len(found) == CHOICES:
                break
        return found
