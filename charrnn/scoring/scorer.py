"""What is scored: the rules that turn a text into events, and where its reading begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.engine.network import Engine, State
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.normalize import Normalizer
from charrnn.vocab import EOS_ID, UNK_ID, Ids, Unknown, Vocabulary, utf8

ON_UNKNOWN = ("unk", "skip", "error")
CHUNK = 1024
"""Characters read at a time."""


class Encoded(NamedTuple):
    """A piece of text in ids, and what must be counted about it."""

    text: str
    """What is scored: the piece, less the characters left out."""
    ids: Ids
    n_bytes: int
    n_skipped: int
    n_unknown_bytes: int
    unknown: tuple[Unknown, ...]


class Beginning(NamedTuple):
    """Where texts begin: after EOS, or after a context."""

    state: State
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
        engine: the network.
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
        engine: Engine,
        vocabulary: Vocabulary,
        *,
        eos: bool = False,
        on_unknown: str = "unk",
        context: str = "",
        normalize: str = "none",
    ) -> None:
        """Read the context."""
        if on_unknown not in ON_UNKNOWN:
            raise ConfigError(
                f"--on-unknown must be one of {', '.join(ON_UNKNOWN)}, got {on_unknown!r}"
            )
        self.engine = engine
        self.vocabulary = vocabulary
        self.eos = eos
        self.on_unknown = on_unknown
        self.context = context
        self.form = normalize
        state, last = engine.initial_state(), EOS_ID
        for text in chunks(self.normalized([context]), CHUNK):
            ids = self.encode(text, what="the context").ids
            if len(ids):
                engine.run(_shifted(ids, last), state)
                last = int(ids[-1])
        self.beginning = Beginning(state, last)

    def normalized(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield a text in the model's Unicode form, piece by piece."""
        normalizer = Normalizer(self.form)
        for piece in pieces:
            yield normalizer.feed(piece, False)
        yield normalizer.feed("", True)

    def encode(self, text: str, *, offset: int = 0, what: str = "the text") -> Encoded:
        """Return a piece of text in ids, by the rule for unknown characters.

        Args:
            text: the piece.
            offset: characters before it, for the positions in messages.
            what: how a message calls it.

        Raises:
            UnknownCharacterError: there are unknown characters, and they are refused.
        """
        ids = self.vocabulary.encode(text)
        n_bytes = len(utf8(text))
        unknown_T = ids == UNK_ID
        if not unknown_T.any():
            return Encoded(text, ids, n_bytes, 0, 0, ())
        named = tuple(
            Unknown(item.character, item.position + offset)
            for item in self.vocabulary.unknown(text)
        )
        if self.on_unknown == "error":
            raise UnknownCharacterError(
                f"{what} has characters the model has never seen: {list_unknown(named)}; leave "
                "them out, or use --on-unknown unk or skip"
            )
        strange = {item.character for item in named}
        n_lost_bytes = sum(len(utf8(c)) for c in text if c in strange)
        if self.on_unknown == "skip":
            kept = "".join(c for c in text if c not in strange)
            n_skipped = len(text) - len(kept)
            return Encoded(kept, ids[~unknown_T], n_bytes - n_lost_bytes, n_skipped, 0, named)
        return Encoded(text, ids, n_bytes, 0, n_lost_bytes, named)

    def read(self, pieces: Iterable[str]) -> Iterator[Block]:
        """Read one text, however long, and yield it block by block of `CHUNK` characters.

        Where the text is cut into pieces makes no difference, not even to rounding.

        Raises:
            UnknownCharacterError: see `encode`.
        """
        state, last = self.engine.copy_state(self.beginning.state), self.beginning.last
        offset = 0
        for text in chunks(self.normalized(pieces), CHUNK):
            encoded = self.encode(text, offset=offset)
            offset += len(text)
            targets = encoded.ids.astype(np.int64)
            if len(targets):
                yield Block(encoded, targets, self.engine.run(_shifted(targets, last), state))
                last = int(targets[-1])
            elif encoded.n_skipped:
                yield Block(encoded, targets, np.empty((0, len(self.vocabulary))))
        if self.eos:
            logits = self.engine.run(np.array([last]), state)
            yield Block(Encoded("", _NOTHING, 0, 0, 0, ()), np.array([EOS_ID]), logits)


_NOTHING = np.empty(0, np.uint8)


def _shifted(targets: NDArray[Any], last: int) -> NDArray[np.int64]:
    """Return the ids that predict the targets `[T]`: each one's predecessor."""
    inputs = np.empty(len(targets), np.int64)
    inputs[0], inputs[1:] = last, targets[:-1]
    return inputs


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


def list_unknown(unknown: tuple[Unknown, ...]) -> str:
    """Name the first few of some unknown characters."""
    return ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
