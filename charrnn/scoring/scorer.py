"""What is scored and how: the rules that turn a text into events, and its reading from end to end.

Shapes: T events of a block, V ids.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from charrnn.batches.windows import shifted
from charrnn.config import Normalization, OnUnknown
from charrnn.engine.bidirectional import AHEAD, BidirectionalEngine
from charrnn.engine.network import Engine, Floats, require_finite, target_logprobs
from charrnn.normalize import Normalizer
from charrnn.scoring.score import Score
from charrnn.vocab import EOS_ID, UNK_ID, Encoded, Vocabulary, encode_known

if TYPE_CHECKING:
    from charrnn.models.runner import Runner

CHUNK = 1024
"""Characters read at a time."""
THE_TEXT = "the text"
"""What a text is called in a message, unless the caller knows better."""


class Beginning(NamedTuple):
    """Where texts begin: after EOS, or after a context."""

    state: Any
    """State before `last` is read."""
    last: int
    """The id that the first character is predicted from."""


class Block(NamedTuple):
    """A stretch of a text that has been read."""

    encoded: Encoded
    targets: NDArray[np.int64]
    """Ids `[T]` of the events: the characters, or the end alone."""
    logits: NDArray[Any]
    """Logits `[T, V]` that predict them."""


class Scorer:
    """A model and the rules to score by.

    Args:
        engine: the network, in NumPy or on a device.
        vocabulary: its characters.
        eos: count the end of each text as an event.
        on_unknown: characters that the model has never seen are charged with the probability of
            UNK (`unk`), left out before scoring (`skip`), or refused (`error`).
        context: text that stands before each text, read but not scored.
        normalize: Unicode form that texts are brought into, the one the model was trained on.

    Raises:
        ConfigError: `on_unknown` is none of these.
        UnknownCharacterError: the context has unknown characters, and they are refused.
    """

    def __init__(
        self,
        engine: Engine | Runner,
        vocabulary: Vocabulary,
        *,
        eos: bool = False,
        on_unknown: OnUnknown = "unk",
        context: str = "",
        normalize: Normalization = "none",
    ) -> None:
        """Read the context."""
        self.engine = cast(Any, engine)  # each takes the states that it makes
        self.vocabulary = vocabulary
        self.eos = eos
        self.on_unknown = on_unknown
        self.context = context
        self.form = normalize
        state, last = self.engine.initial_state(), EOS_ID
        ids = self.encode("".join(self.normalized([context])), what="the context").ids
        for start in range(0, len(ids), CHUNK):
            self.engine.run(shifted(ids[start : start + CHUNK], last), state)
            last = int(ids[start : start + CHUNK][-1])
        self.beginning = Beginning(state, last)

    def normalized(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield a text in the model's Unicode form, piece by piece."""
        normalizer = Normalizer(self.form)
        for piece in pieces:
            yield normalizer.feed(piece, False)
        yield normalizer.feed("", True)

    def encode(self, text: str, *, offset: int = 0, what: str = THE_TEXT) -> Encoded:
        """Return a piece of normalised text in ids; see `charrnn.vocab.encode_known`."""
        return encode_known(self.vocabulary, text, self.on_unknown, what=what, offset=offset)

    @property
    def is_on_device(self) -> bool:
        """True where torch reads on a device, which wants large batches and windows."""
        return not isinstance(self.engine, Engine)

    def run(self, inputs: NDArray[Any], state: Any) -> NDArray[Any]:
        """Return the logits after each of some ids, and change the state.

        Raises:
            ModelFileError: they are not finite.
        """
        logits: NDArray[Any] = self.engine.run(inputs, state)
        require_finite(logits)
        return logits

    def logprobs(self, inputs: NDArray[Any], targets: NDArray[Any], state: Any) -> Floats:
        """Return the log-probabilities of ids `[..]` after inputs `[..]`, and change the state.

        Raises:
            ModelFileError: the logits are not finite.
        """
        if self.is_on_device:  # the logits stay there
            found: Floats = self.engine.logprobs(inputs, targets, state)
            return found
        return target_logprobs(self.run(inputs, state), targets)

    def read(self, pieces: Iterable[str], *, what: str = THE_TEXT) -> Iterator[Block]:
        """Read one text of any length, and yield it block by block of `CHUNK` characters.

        Where the text is cut into pieces makes no difference, not even to rounding. `what` is the
        text's name in a message.

        Raises:
            UnknownCharacterError: see `charrnn.vocab.encode_known`.
            ModelFileError: the model gives no probabilities.
        """
        state, last = self.engine.copy_state(self.beginning.state), self.beginning.last
        offset = 0
        for text in chunks(self.normalized(pieces), CHUNK):
            encoded = self.encode(text, offset=offset, what=what)
            offset += len(text)
            targets = encoded.ids.astype(np.int64)
            if len(targets):
                yield Block(encoded, targets, self.run(shifted(targets, last), state))
                last = int(targets[-1])
            elif encoded.n_skipped:
                yield Block(encoded, targets, np.empty((0, len(self.vocabulary))))
        if self.eos:
            logits = self.run(np.array([last]), state)
            yield Block(self.encode(""), np.array([EOS_ID]), logits)


class BothSidesScorer(Scorer):
    """A scorer by a bidirectional model: each character is predicted from all the others.

    The sum is the pseudo-log-likelihood of the text (Besag 1975), which is not its probability.
    Keywords as for `Scorer`. Of the context the model reads what stands before a text; ends are no
    events, for where a text ends is known.
    """

    def __init__(
        self,
        engine: BidirectionalEngine,
        vocabulary: Vocabulary,
        *,
        on_unknown: OnUnknown = "unk",
        context: str = "",
        normalize: Normalization = "none",
    ) -> None:
        """Read the context."""
        super().__init__(
            engine.forwards,
            vocabulary,
            on_unknown=on_unknown,
            context=context,
            normalize=normalize,
        )
        self._from_right = engine.from_right_of_long

    def read(self, pieces: Iterable[str], *, what: str = THE_TEXT) -> Iterator[Block]:
        """Read one text of any length; see `Scorer.read`."""
        state, last = self.engine.copy_state(self.beginning.state), self.beginning.last
        waiting: deque[Encoded] = deque()
        offset = 0
        for text in itertools.chain(chunks(self.normalized(pieces), CHUNK), [None]):
            if text is not None:
                waiting.append(self.encode(text, offset=offset, what=what))
                offset += len(text)
            while waiting:
                ahead = [encoded.ids for encoded in itertools.islice(waiting, 1, None)]
                if text is not None and sum(map(len, ahead)) < AHEAD:
                    break
                encoded = waiting.popleft()
                targets = encoded.ids.astype(np.int64)
                if len(targets):
                    logits = self.engine.run(shifted(targets, last), state)
                    following = np.concatenate([*ahead, targets[:0]])
                    logits = logits + self._from_right(targets[None], following[None])[0]
                    require_finite(logits)
                    yield Block(encoded, targets, logits)
                    last = int(targets[-1])
                elif encoded.n_skipped:
                    yield Block(encoded, targets, np.empty((0, len(self.vocabulary))))


def chunks(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Cut a text that comes in pieces into pieces of `size` characters; the last may be shorter."""
    rest = ""
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % size
        for start in range(0, whole, size):
            yield rest[start : start + size]
        rest = rest[whole:]
    if rest:
        yield rest


def score_pieces(
    scorer: Scorer, pieces: Iterable[str], *, text: str = "", what: str = THE_TEXT
) -> Score:
    """Return the score of one text that comes in pieces, in memory that does not grow with it.

    The first character is predicted from EOS and a zero state, or from the context.

    Args:
        scorer: model and rules.
        pieces: the text.
        text: the name of the score.
        what: the text's name in a message.

    Raises:
        UnknownCharacterError: see `charrnn.vocab.encode_known`.
    """
    return Score.total(score_blocks(scorer, pieces, what=what), text=text)


def score_blocks(scorer: Scorer, pieces: Iterable[str], *, what: str = THE_TEXT) -> Iterator[Score]:
    """Yield the scores of consecutive blocks of one text, each given all that stands before it.

    They sum to the score of the text. The end is a block of its own.
    """
    return map(block_score, scorer.read(pieces, what=what))


def block_score(block: Block) -> Score:
    """Return the score of one block."""
    logprobs = target_logprobs(block.logits, block.targets)
    return scored(
        block.encoded,
        text=block.encoded.text,
        logprob=math.fsum(logprobs),
        unknown_logprob=math.fsum(logprobs[block.targets == UNK_ID]),
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
        text: the name of the score.
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
