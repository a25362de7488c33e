"""Character by character, or word by word: how surprising each was, and what was expected instead.

Shapes: T characters, V ids, K alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from charrnn.engine.network import log_softmax
from charrnn.scoring.score import bits
from charrnn.scoring.scorer import THE_TEXT, Block, Scorer
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, UNK_ID, Vocabulary, utf8

END, UNKNOWN = "<end>", "<unk>"
"""Names of the events that are no character; a character's own name has length 1."""


class Alternative(NamedTuple):
    """One of the characters that the model thought most probable."""

    character: str
    logprob: float


@dataclass(frozen=True)
class CharScore:
    """One event of a text. In a byte model it is a byte."""

    character: str
    """The character itself, `<end>`, or in a byte model `<E9>` for a byte outside ASCII."""
    text: str
    """What it adds to the text: the character; a byte model's later bytes of it add nothing."""
    logprob: float
    """In nats."""
    rank: int
    """1 for the most probable of all ids, UNK and EOS included."""
    is_unknown: bool
    """Charged with the probability of UNK, and ranked as UNK."""
    alternatives: tuple[Alternative, ...]
    """The most probable events at this place, the best first, whether or not they came true."""

    @property
    def bits(self) -> float:
        """-log2 of its probability."""
        return bits(0.0 - self.logprob)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record."""
        return {
            "character": self.character,
            "logprob": self.logprob,
            "bits": self.bits,
            "rank": self.rank,
            "unknown": self.is_unknown,
            "alternatives": [alternative._asdict() for alternative in self.alternatives],
        }


def char_scores(
    scorer: Scorer, pieces: Iterable[str], *, alternatives: int = 0, what: str = THE_TEXT
) -> Iterator[CharScore]:
    """Yield the events of one text in their order; their log-probabilities sum to its score.

    Args:
        scorer: model and rules.
        pieces: the text, in any pieces.
        alternatives: number of most probable characters to name at each place.
        what: the text's name in a message.

    Raises:
        UnknownCharacterError: see `charrnn.vocab.encode_known`.
    """
    labels = id_labels(scorer.vocabulary)
    count = min(alternatives, len(labels))
    for block in scorer.read(pieces, what=what):
        logprobs_TV = log_softmax(block.logits)
        chosen_T = np.take_along_axis(logprobs_TV, block.targets[:, None], axis=1)
        ranks = (1 + (logprobs_TV > chosen_T).sum(axis=1)).tolist()
        best_TK = np.argsort(-logprobs_TV, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(logprobs_TV, best_TK, axis=1).tolist()
        named = _names(block, scorer.vocabulary, labels)
        for (character, text), target, logprob, rank, ids, values in zip(
            named,
            block.targets.tolist(),
            chosen_T[:, 0].tolist(),
            ranks,
            best_TK.tolist(),
            best,
            strict=True,
        ):
            expected = tuple(Alternative(labels[i], v) for i, v in zip(ids, values, strict=True))
            yield CharScore(character, text, logprob, rank, target == UNK_ID, expected)


def id_labels(vocabulary: Vocabulary) -> list[str]:
    """Return the name of each id."""
    labels = list(vocabulary.strings)
    labels[UNK_ID], labels[EOS_ID] = UNKNOWN, END
    if vocabulary.unit == "byte":
        for byte in range(0x80, 0x100):
            labels[FIRST_CHARACTER_ID + byte] = f"<{byte:02X}>"
    return labels


def _names(block: Block, vocabulary: Vocabulary, labels: list[str]) -> Iterator[tuple[str, str]]:
    """Yield for each event its name, and what it adds to the text."""
    text = block.encoded.text
    if not text:  # the end
        yield from ((labels[i], "") for i in block.targets.tolist())
    elif vocabulary.unit == "char":
        yield from zip(text, text, strict=True)
    else:
        adds = (part for c in text for part in (c, *[""] * (len(utf8(c)) - 1)))
        yield from zip((labels[i] for i in block.targets.tolist()), adds, strict=True)


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
        return bits(0.0 - self.logprob)

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
    kind, events = "", list[CharScore]()
    for one in characters:
        now = kind  # a byte model's later bytes of a character belong to it
        if one.text:
            now = "space" if one.text.isspace() else "word"
        elif one.character == END:
            now = "end"
        if now != kind and events:
            yield _word(kind, events)
            events = []
        kind = now
        events.append(one)
    if events:
        yield _word(kind, events)


def _word(kind: str, events: Sequence[CharScore]) -> WordScore:
    text = "".join(one.text for one in events)
    return WordScore(text, kind, len(text), math.fsum(one.logprob for one in events))
