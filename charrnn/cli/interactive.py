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
    """Write a text in turns until the user ends it, then put the whole on stdout."""
    talk = Conversation()
    talk.explain(CHOICES)
    # every turn can be taken back
    history: list[tuple[str, Start]] = [(beginning, model.start(beginning))]
    turn = 0
    while True:
        text, start = history[-1]
        proposals = _propose(model, start, config, turn) if text else []
        turn += 1
        answer = talk.turn(text, proposals)
        if answer is None or answer == "/quit":
            break
        if answer == "/undo":
            history = history[:-1] or history
        elif answer == "":
            continue
        elif answer.isdecimal() and 1 <= int(answer) <= len(proposals):
            chosen = proposals[int(answer) - 1]
            history.append((text + chosen, model.start(chosen, after=start)))
        else:
            try:
                history.append((text + answer, model.start(answer, after=start)))
            except UnknownCharacterError as error:
                talk.complain(str(error))
    if history[-1][0]:
        print(history[-1][0])


def _propose(model: CharModel, start: Start, config: SamplingConfig, turn: int) -> list[str]:
    """Return a few continuations, other ones every turn."""
    short = dataclasses.replace(
        config, length=min(config.length, PROPOSAL_CHARS), min_length=0, logprobs=False
    )
    requests = [Request(start, "", config.temperature, turn * CHOICES + k) for k in range(CHOICES)]
    texts = [sample.text for sample in model.sample_requests(requests, short)]
    return [text for text in dict.fromkeys(texts) if text]
