"""`charrnn sample --interactive`: the model proposes, the user picks, and so on."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from charrnn.config import SamplingConfig
from charrnn.display.interactive import Conversation, Proposal
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.model import CharModel
from charrnn.sampling.writer import Request, Start

CHOICES = 4
PROPOSAL_CHARS = 20, 80
"""Fewest and most of a continuation, which fits into a line of the terminal in between."""
MARGIN = 8
"""Columns of such a line that the continuation does not have."""
SHOWN_DIGITS = 20
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
    offered: list[Proposal] = field(default_factory=list)


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
        least, most = PROPOSAL_CHARS
        length = min(config.length, most, max(least, talk.width - MARGIN))
        self._short = dataclasses.replace(config, length=length, min_length=0, logprobs=False)
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
        picked = {str(number): one.text for number, one in enumerate(proposals, 1)}
        while (answer := self._talk.ask()) is not None and answer.strip() != "/quit":
            command = answer.strip()
            if command == "/help":
                self._talk.help()
                continue
            if command == "/undo":
                del self._history[max(1, len(self._history) - 1) :]
                return True
            try:
                if command.startswith("/temp"):
                    self._set_temperature(command)
                    return True
                number = answer.rstrip()  # with a space before it, a number is a text
                added = picked[number] if number in picked else self._typed(answer, len(picked))
                start = self._start(added, "the text", after=place.start)
            except UnknownCharacterError as error:
                here = "type it without them, or begin again with --on-unknown skip"
                self._talk.complain(
                    re.sub("leave them out, or .* to unk or skip", here, str(error))
                )
                continue
            except ConfigError as error:
                self._talk.complain(str(error))
                continue
            if added:
                self._history.append(_Place(place.text + added, start))
            return True
        return False

    def _set_temperature(self, command: str) -> None:
        """Take the temperature of `/temp 0.8` for what is proposed from now on.

        Raises:
            ConfigError: it is none.
        """
        try:
            value = float(command.removeprefix("/temp"))
        except ValueError:
            raise ConfigError("/temp takes a number: /temp 0.8") from None
        self._short = dataclasses.replace(self._short, temperature=value)

    def _typed(self, answer: str, n_offered: int) -> str:
        """Return the text that an answer stands for.

        Raises:
            ConfigError: it is a command or a continuation that does not exist, or has an escape
                that does not.
        """
        if answer.strip().isdecimal() and not answer[0].isspace():
            offered = (
                f"1 to {n_offered} are offered" if n_offered > 1 else f"{n_offered} is offered"
            )
            raise ConfigError(
                f"there is no continuation {answer.strip()[:SHOWN_DIGITS]} ({offered}): with a "
                "space before it, a number is added as text"
            )
        if answer.startswith("/") and not answer.startswith("//"):
            raise ConfigError(
                f"there is no command {answer}: /help shows all of them, and a text that begins "
                "with / is typed with //"
            )
        return self._read(answer[answer.startswith("//") :])

    def _propose(self, place: _Place) -> list[Proposal]:
        """Return a few continuations that have not been offered at this place, perhaps none."""
        found: list[Proposal] = []
        for _ in range(0, PATIENCE, CHOICES):
            indices = itertools.islice(self._indices, CHOICES)
            requests = [Request(place.start, "", self._short.temperature, k) for k in indices]
            for sample in self._model.sample_requests(requests, self._short):
                ends = sample.stop_reason != "length"
                one = Proposal(sample.text if ends else _whole_words(sample.text), ends)
                if one.text and one not in place.offered and len(found) < CHOICES:
                    found.append(one)
                    place.offered.append(one)
            if len(found) == CHOICES:
                break
        return found


def _whole_words(text: str) -> str:
    """Return a text up to the white space before its last word, unless that is most of it."""
    words = re.match(r"(.*\s)\S*$", text, re.DOTALL)
    return words[1] if words and 2 * len(words[1]) >= len(text) else text
