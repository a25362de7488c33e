"""`charrnn sample --interactive`: the model proposes, the user picks, and so on."""

from __future__ import annotations

import dataclasses
import sys

from charrnn.config import SamplingConfig
from charrnn.display.interactive import Conversation
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.model import CharModel
from charrnn.sampling.writer import Request, Start

CHOICES = 4
PROPOSAL_CHARS = 80


def require_terminal() -> None:
    """Make sure that there is a terminal to talk to.

    Raises:
        ConfigError: there is none.
    """
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("--interactive needs a terminal; in a pipe use --prompt or --prompts")


def write_together(model: CharModel, config: SamplingConfig, beginning: str) -> None:
    """Write a text in turns until the user ends it, in whatever way, then put it on stdout."""
    talk = Conversation()
    talk.explain(CHOICES)
    # every turn can be taken back
    history: list[tuple[str, Start]] = [(beginning, model.start(beginning))]
    try:
        _take_turns(model, config, talk, history)
    finally:
        if history[-1][0]:
            talk.finish(history[-1][0])


def _take_turns(
    model: CharModel,
    config: SamplingConfig,
    talk: Conversation,
    history: list[tuple[str, Start]],
) -> None:
    """Add to the history until the user has had enough."""
    turn = 0
    while True:
        text, start = history[-1]
        proposals = _propose(model, start, config, turn) if text else []
        turn += 1
        answer = talk.turn(text, proposals)
        if answer is None or answer == "/quit":
            return
        if answer == "/undo":
            del history[max(1, len(history) - 1) :]
        elif answer.isdecimal() and 1 <= int(answer) <= len(proposals):
            chosen = proposals[int(answer) - 1]
            history.append((text + chosen, model.start(chosen, after=start)))
        elif answer:
            try:
                history.append((text + answer, model.start(answer, after=start)))
            except UnknownCharacterError as error:
                talk.complain(str(error))


def _propose(model: CharModel, start: Start, config: SamplingConfig, turn: int) -> list[str]:
    """Return a few continuations, other ones every turn."""
    short = dataclasses.replace(
        config, length=min(config.length, PROPOSAL_CHARS), min_length=0, logprobs=False
    )
    requests = [Request(start, "", config.temperature, turn * CHOICES + k) for k in range(CHOICES)]
    texts = [sample.text for sample in model.sample_requests(requests, short)]
    return [text for text in dict.fromkeys(texts) if text]
