"""Word by word: the sum over each word's characters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from charrnn.scoring.details import END, CharScore


@dataclass(frozen=True)
class WordScore:
    """A word, the white space between two words, or the end. They sum to the text."""

    text: str
    kind: str
    """`word`: no white space; `space`: nothing else; `end`."""
    n_chars: int
    logprob: float
    """In nats, given all that stands before."""

    @property
    def bits(self) -> float:
        """-log2 of its probability."""
        return -self.logprob / math.log(2)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record."""
        return {
            "word": self.text,
            "kind": self.kind,
            "n_chars": self.n_chars,
            "logprob": self.logprob,
            "bits": self.bits,
        }


def word_scores(characters: Iterable[CharScore]) -> Iterator[WordScore]:
    """Group the events of a text into words and what lies between them."""
    kind, parts, logprobs = "", [""], [0.0]
    for one in characters:
        now = kind
        if one.text:
            now = "space" if one.text.isspace() else "word"
        elif one.character == END:
            now = "end"
        if now != kind:
            if kind:
                yield _word(kind, parts, logprobs)
            kind, parts, logprobs = now, [], []
        parts.append(one.text)
        logprobs.append(one.logprob)
    if kind:
        yield _word(kind, parts, logprobs)


def _word(kind: str, parts: list[str], logprobs: list[float]) -> WordScore:
    text = "".join(parts)
    return WordScore(text, kind, len(text), math.fsum(logprobs))
