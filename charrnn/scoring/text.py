"""The score of one text, read from its first character to its last in one lane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from charrnn.engine.network import Engine
from charrnn.scoring.logprobs import Floats, target_logprobs
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Block, Encoded, Scorer
from charrnn.vocab import UNK_ID, Vocabulary


def char_logprobs(
    engine: Engine, vocabulary: Vocabulary, text: str, *, eos: bool = False
) -> Floats:
    """Return the log-probability of each character given those before it, in nats.

    The first character is predicted from EOS and a zero state; unknown characters are charged
    UNK's probability; with `eos`, the end of the text is one more event.

    Returns:
        `[len(text)]`, or `[len(text) + 1]` with `eos`; of a byte model, one for each byte.
    """
    blocks = Scorer(engine, vocabulary, eos=eos).read([text])
    return np.concatenate([np.empty(0), *(target_logprobs(b.logits, b.targets) for b in blocks)])


def score(engine: Engine, vocabulary: Vocabulary, text: str, *, eos: bool = False) -> Score:
    """Return the probability of a text; see `char_logprobs` for what is counted."""
    return score_pieces(Scorer(engine, vocabulary, eos=eos), [text], text=text)


def score_pieces(scorer: Scorer, pieces: Iterable[str], *, text: str = "") -> Score:
    """Return the score of one text that comes in pieces, in memory that does not grow with it.

    Args:
        scorer: model and rules.
        pieces: the text.
        text: what the score is to be called.

    Raises:
        UnknownCharacterError: see `Scorer.encode`.
    """
    return Score.total(score_blocks(scorer, pieces), text=text)


def score_blocks(scorer: Scorer, pieces: Iterable[str]) -> Iterator[Score]:
    """Yield the scores of consecutive blocks of one text, each given all that stands before it.

    They sum to the score of the text. The end is a block of its own.
    """
    return map(block_score, scorer.read(pieces))


def block_score(block: Block) -> Score:
    """Return the score of one block."""
    logprobs = target_logprobs(block.logits, block.targets)
    unknown = block.targets == UNK_ID
    return scored(
        block.encoded,
        text=block.encoded.text,
        logprob=math.fsum(logprobs),
        unknown_logprob=math.fsum(logprobs[unknown]),
        ends=not block.encoded.text and len(logprobs) > 0,
    )


def scored(
    encoded: Encoded,
    *,
    text: str = "",
    logprob: float = 0.0,
    unknown_logprob: float = 0.0,
    ends: bool = False,
) -> Score:
    """Return the score of a piece of text: what is counted about it, and the sums given.

    Args:
        encoded: the piece.
        text: what the score is to be called.
        logprob: the sum over its events, in nats.
        unknown_logprob: the part of UNK.
        ends: the end is one of the events.
    """
    n_chars = len(encoded.text)
    n_unknown = int(np.count_nonzero(encoded.ids == UNK_ID)) if encoded.n_unknown_bytes else 0
    return Score(
        text=text,
        n_chars=n_chars,
        n_bytes=encoded.n_bytes,
        n_scored=n_chars + ends,
        n_unknown=n_unknown,
        logprob=logprob,
        unknown_logprob=unknown_logprob if n_unknown else 0.0,
        n_unknown_bytes=encoded.n_unknown_bytes,
        n_skipped=encoded.n_skipped,
        unknown=encoded.unknown,
    )
