"""A sample: where it begins, how ids become text, and how the text decides when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig
from charrnn.engine.network import Engine, State
from charrnn.vocab import EOS_ID, Vocabulary

StopReason = Literal["eos", "stop", "length"]
PROMPT_CHUNK = 1024


@dataclass(frozen=True)
class Start:
    """Where samples begin: the state after a prompt, and the logits of what comes next."""

    state: State
    logits: NDArray[Any]


@dataclass(frozen=True)
class Request:
    """One sample to draw."""

    start: Start
    prompt: str
    temperature: float
    index: int
    """Which sample of the seed this is."""


def read_prompt(
    engine: Engine,
    ids: NDArray[Any],
    *,
    after: Start | None = None,
    progress: Callable[[int], None] | None = None,
) -> Start:
    """Feed ids `[T]` to a stream.

    Args:
        engine: the network.
        ids: of the prompt (`charrnn.vocab.encode_known`); may be empty.
        after: where the stream stands; without it, it begins with EOS and a zero state.
        progress: called with the number of ids read.
    """
    if after is None:
        state = engine.initial_state()
        logits = engine.step(EOS_ID, state).copy()
    else:
        state, logits = engine.copy_state(after.state), after.logits
    for begin in range(0, len(ids), PROMPT_CHUNK):
        chunk = ids[begin : begin + PROMPT_CHUNK]
        logits = engine.run(chunk, state)[-1].copy()
        if progress is not None:
            progress(begin + len(chunk))
    return Start(state, logits)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text drawn from a model."""

    text: str
    """What was written, without the prompt."""
    prompt: str
    seed: int
    index: int
    """Which sample of the seed it is."""
    temperature: float
    stop_reason: StopReason
    """`eos`: the model ended it; `stop`: a stop text came; `length`: it reached the limit."""
    logprobs: tuple[float, ...] | None = None
    """If asked for: log-probability of each character under the model (temperature 1, nats), and
    last that of EOS when `stop_reason` is `eos`."""
    sampling_logprobs: tuple[float, ...] | None = None
    """The same under the distribution that was drawn from, filters and temperature applied."""

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record; the log-probabilities only if there are any."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Writer:
    """Turns the ids of one sample into text, until EOS or the length.

    Attributes:
        request: what was asked for.
        written: whole characters so far.
        stop_reason: why the text ended; None before its end.
        logprobs: log-probability of each id under the model, if asked for.
        sampling_logprobs: the same under the distribution that was drawn from.
    """

    def __init__(self, vocabulary: Vocabulary, request: Request, config: SamplingConfig) -> None:
        """Begin an empty text."""
        self.request = request
        self.written = 0
        self.stop_reason: StopReason | None = None
        self.logprobs: list[float] = []
        self.sampling_logprobs: list[float] = []
        self._vocabulary = vocabulary
        self._config = config
        self._strings = vocabulary.strings
        self._length = config.length

    def add(self, chosen: int) -> str:
        """Take the next id; return the text that it makes certain."""
        if chosen == EOS_ID:
            self.stop_reason = "eos"
            return ""
        self.written += 1
        if self.written == self._length:
            self.stop_reason = "length"
        return self._strings[chosen]

    def take(self, ids: NDArray[np.int64]) -> str:
        """Take ids at once, up to the end of the text; return the text that they make certain."""
        ids = ids[: self._length - self.written]
        (ends,) = np.nonzero(ids == EOS_ID)
        if len(ends):
            ids = ids[: ends[0]]
            self.stop_reason = "eos"
        self.written += len(ids)
        if self.stop_reason is None and self.written == self._length:
            self.stop_reason = "length"
        return "".join(map(self._strings.__getitem__, ids.tolist()))

    def impossible(self) -> Sequence[int]:
        """Return the ids that cannot come next in any text."""
        return ()

    def repeated(self) -> Sequence[int]:
        """Return the ids that would repeat an N-gram that must not be repeated."""
        return ()

    def finish(self, text: str) -> Sample:
        """Return the sample, given the whole text that `add` has returned."""
        config, reason = self._config, self.stop_reason or "length"
        logprobs = sampling_logprobs = None
        if config.logprobs:  # a stop text was drawn, too, and is not in the text
            kept = len(self._vocabulary.encode(text)) + (reason == "eos")
            logprobs = tuple(self.logprobs[:kept])
            sampling_logprobs = tuple(self.sampling_logprobs[:kept])
        return Sample(
            text=text,
            prompt=self.request.prompt,
            seed=config.seed,
            index=self.request.index,
            temperature=self.request.temperature,
            stop_reason=reason,
            logprobs=logprobs,
            sampling_logprobs=sampling_logprobs,
        )


class WatchfulWriter(Writer):
    """A writer that looks at every id: bytes of characters, stop texts, N-grams not to repeat."""

    def __init__(self, vocabulary: Vocabulary, request: Request, config: SamplingConfig) -> None:
        """Begin an empty text."""
        super().__init__(vocabulary, request, config)
        self._decoder = vocabulary.decoder()
        self._stops = StopTexts(config.stop)
        self._no_repeat = NoRepeat(config.no_repeat) if config.no_repeat else None

    def add(self, chosen: int) -> str:
        """Take the next id; return the text that it makes certain."""
        if chosen == EOS_ID:
            self.stop_reason = "eos"
            return self._stops.rest()
        if self._no_repeat is not None:
            self._no_repeat.add(chosen)
        text = self._decoder.feed(chosen)
        if not text:  # an id may be a part of a character
            return ""
        self.written += 1
        ready, found = self._stops.feed(text)
        if found:
            self.stop_reason = "stop"
        elif self.written == self._length:
            self.stop_reason = "length"
            return ready + self._stops.rest()
        return ready

    def take(self, ids: NDArray[np.int64]) -> str:
        """Take ids at once, up to the end of the text; return the text that they make certain."""
        pieces = []
        for one in ids.tolist():
            pieces.append(self.add(one))
            if self.stop_reason is not None:
                break
        return "".join(pieces)

    def impossible(self) -> Sequence[int]:
        """Return the ids that would break a character off."""
        return self._decoder.banned()

    def repeated(self) -> Sequence[int]:
        """Return the ids that would repeat an N-gram; none while a character is incomplete."""
        if self._no_repeat is None or self._decoder.pending:
            return ()
        return self._no_repeat.banned()


def is_watchful(vocabulary: Vocabulary, config: SamplingConfig) -> bool:
    """Return whether anything but EOS and the length depends on what has been written."""
    return bool(config.stop or config.no_repeat) or vocabulary.unit == "byte"


def new_writer(vocabulary: Vocabulary, request: Request, config: SamplingConfig) -> Writer:
    """Return the writer of a sample."""
    kind = WatchfulWriter if is_watchful(vocabulary, config) else Writer
    return kind(vocabulary, request, config)


class StopTexts:
    """Holds back the end of a text while it may be the beginning of a stop text.

    The search is that of Knuth, Morris and Pratt 1977, for each stop text on its own.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for any of `stops`, none of which is empty."""
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)
        self._beginnings = frozenset(stop[0] for stop in stops)
        self._held = ""

    def feed(self, character: str) -> tuple[str, bool]:
        """Take one character; return what may be written now, and whether a stop text is whole.

        The stop text itself is never written.
        """
        if not self._held and character not in self._beginnings:
            return character, False
        self._held += character
        found = 0
        for k, (stop, borders) in enumerate(self._stops):
            self._matched[k] = n = _matched(stop, borders, self._matched[k], character)
            found = max(found, n if n == len(stop) else 0)
        cut = len(self._held) - (found or max(self._matched))
        ready, self._held = self._held[:cut], "" if found else self._held[cut:]
        return ready, found > 0

    def rest(self) -> str:
        """Return what is still held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _matched(stop: str, borders: Sequence[int], n: int, character: str) -> int:
    """Return how much of a stop text ends a text, after one more character; before it was `n`."""
    while n and stop[n] != character:
        n = borders[n - 1]
    return n + (stop[n] == character)


def _borders(stop: str) -> list[int]:
    """Return for each beginning of a text the length of its longest proper end that begins it."""
    borders = [0]
    for character in stop[1:]:
        borders.append(_matched(stop, borders, borders[-1], character))
    return borders


_PRIME = (1 << 61) - 1
_BASE = 0x9E3779B97F4A7C15 % _PRIME


class NoRepeat:
    """Remembers every N-gram of an output, to forbid writing it again.

    The ids before the last one of an N-gram are known by a rolling hash of 61 bits (Karp and Rabin
    1987), so that memory does not grow with N.
    """

    def __init__(self, n: int) -> None:
        """Watch N-grams of `n` ids."""
        self._context = n - 1
        self._weight = pow(_BASE, self._context, _PRIME)
        self._ids: deque[int] = deque()
        self._hash = 0
        self._followers: dict[int, tuple[int, ...]] = {}

    def banned(self) -> Sequence[int]:
        """Return the ids that would complete an N-gram that has been written before."""
        return self._followers.get(self._hash, ()) if len(self._ids) == self._context else ()

    def add(self, chosen: int) -> None:
        """Take the next id of the output."""
        banned = self.banned()
        if len(self._ids) == self._context and chosen not in banned:
            self._followers[self._hash] = (*banned, chosen)
        self._ids.append(chosen)
        self._hash = (self._hash * _BASE + chosen + 1) % _PRIME
        if len(self._ids) > self._context:
            first = self._ids.popleft() + 1
            self._hash = (self._hash - first * self._weight) % _PRIME
