"""Fills the gaps of a text with a bidirectional model: the most probable fillings, or random ones.

A gap is one or more missing characters, its places. A bidirectional model knows the distribution of
a character given all others. The places of a text are filled from left to right,

    P(v_1 … v_G) = Π_g P(v_g | the text, v_1 … v_{g-1}, UNK at the places that are still open),

a distribution over all fillings, for networks that have met UNK in training. With one place it is
the model's own. A beam search (Graves 2012) finds the most probable fillings. Random ones are drawn
from this product, and then place by place anew, each given all other characters as they are now:
Gibbs sampling (Geman & Geman 1984), whose stationary distribution needs no UNK.

Shapes: B fillings side by side, T characters, G places, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from charrnn.config import OnUnknown, SamplingConfig, shown
from charrnn.engine.bidirectional import BidirectionalEngine
from charrnn.engine.cells import Array
from charrnn.engine.network import Engine, State, log_softmax, require_finite
from charrnn.errors import ConfigError
from charrnn.normalize import normalize
from charrnn.rng import stream_keys, uniforms
from charrnn.sampling.picker import Picker
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import (
    EOS_ID,
    FIRST_CHARACTER_ID,
    UNK_ID,
    Vocabulary,
    encode_known,
    is_utf8,
    may_follow,
)

CHUNK = 256
"""Characters read at a time between two gaps, at most."""
READ = 1 << 14
"""The same of all fillings together."""
SWEEPS = 20
"""Times that Gibbs sampling draws every place anew."""
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Filling:
    """A text whose gaps are filled."""

    text: str
    gaps: tuple[str, ...]
    """What stands in each gap: in neighbouring places together."""
    starts: tuple[int, ...]
    """Where each gap begins in the text, in characters."""
    logprob: float
    """Of what is filled in, in nats; all fillings together have probability 1."""

    @property
    def probability(self) -> float:
        """Of what is filled in."""
        return math.exp(self.logprob)

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class GapText:
    """A text with gaps, as ids.

    Args:
        text: where each character that is missing is marked.
        mark: stands for one missing character; in a byte model, for one byte.
        saved: whose alphabet and Unicode form are used.
        on_unknown: what happens to other characters that the model has never seen.

    Raises:
        ConfigError: the mark is empty, or the text has no gap, or nothing else.
        UnknownCharacterError: there are unknown characters, and they are refused.
    """

    def __init__(self, text: str, mark: str, saved: SavedModel, on_unknown: OnUnknown) -> None:
        """Find the gaps."""
        if not mark:
            raise ConfigError("is empty: choose a mark for a missing character", field="gap")
        self.parts = [normalize(part, saved.text.normalize) for part in text.split(mark)]
        if len(self.parts) == 1:
            raise ConfigError(
                f"{shown(text)} has no gap: write {mark} for each missing character, or choose "
                "another mark (gap)"
            )
        if not any(self.parts):
            raise ConfigError(
                f"{shown(text)} has nothing but gaps: give a text around them, or write one with a "
                "model that is not bidirectional"
            )
        # a known character in place of each mark, so that the positions in a message are right
        known = "".join(saved.vocabulary.characters[:1]) * len(mark)
        encode_known(saved.vocabulary, known.join(self.parts), on_unknown, what="the text")
        ids: list[int] = []
        places = []
        for k, part in enumerate(self.parts):
            if k:
                places.append(len(ids))
                ids.append(UNK_ID)
            ids += encode_known(saved.vocabulary, part, on_unknown).ids.tolist()
        self.ids_T = np.array(ids, np.int64)
        """UNK at the places."""
        self.places_G: Places = np.array(places)
        self._vocabulary = saved.vocabulary
        # how many places follow each without a break: what a character of several bytes needs
        is_joined = [after - before == 1 for before, after in pairwise(places)] + [False]
        self.rooms_G = [0] * len(places)
        for g in reversed(range(len(places))):
            self.rooms_G[g] = self.rooms_G[g + 1] + 1 if is_joined[g] else 0

    def run_of(self, g: int) -> slice:
        """Return the neighbouring places that place g belongs to."""
        begin = g
        while begin and self.rooms_G[begin - 1]:
            begin -= 1
        return slice(begin, g + self.rooms_G[g] + 1)

    def filling(self, values_G: Sequence[int], logprob: float) -> Filling:
        """Return the text with these ids in its places."""
        gaps: list[str] = []
        starts: list[int] = []
        text, run = self.parts[0], list[int]()
        for g, value in enumerate(values_G):
            run.append(value)
            if self.rooms_G[g] == 0:
                starts.append(len(text))
                gaps.append(self._vocabulary.decode(run))
                text, run = text + gaps[-1] + self.parts[g + 1], []
        return Filling(text, tuple(gaps), tuple(starts), logprob)


class Filler:
    """Fills the gaps of texts.

    Args:
        engine: the network.
        vocabulary: its characters.
    """

    def __init__(self, engine: BidirectionalEngine, vocabulary: Vocabulary) -> None:
        """Keep both."""
        self._engine = engine
        self._vocabulary = vocabulary
        self._characters_1V = np.arange(len(vocabulary))[None] >= FIRST_CHARACTER_ID

    def best(self, text: GapText, *, top: int, beam: int) -> list[Filling]:
        """Return the most probable fillings that a beam search finds, the best first.

        Args:
            text: with gaps.
            top: how many.
            beam: fillings that are kept from place to place, at least `top`.
        """
        beam = max(top, beam)
        logprobs_B = np.zeros(1)
        values_BG = np.zeros((1, 0), np.int64)
        for logits_BV, reader in self._places(text, self._begin(text)):
            totals_BV = logprobs_B[:, None] + self._log_distribution(logits_BV, values_BG, text)
            flat = totals_BV.reshape(-1)
            order = np.argsort(-flat, kind="stable")[:beam]
            order = order[np.isfinite(flat[order])]
            rows, chosen = np.divmod(order, totals_BV.shape[1])
            logprobs_B = flat[order]
            values_BG = np.column_stack([values_BG[rows], chosen])
            reader.follow(rows, chosen)
        return [
            text.filling(values_G, logprob)
            for values_G, logprob in zip(
                values_BG[:top].tolist(), logprobs_B[:top].tolist(), strict=True
            )
        ]

    def draw(
        self, text: GapText, config: SamplingConfig, *, num: int, sweeps: int = SWEEPS
    ) -> list[Filling]:
        """Return random fillings, each drawn on its own.

        Args:
            text: with gaps.
            config: temperature, filters and seed.
            num: how many.
            sweeps: times that every place is drawn anew.
        """
        picker = Picker(self._vocabulary, config)
        temperature_B1 = np.full((num, 1), config.temperature)
        keys = stream_keys(config.seed, np.arange(num))
        n_drawn = 0

        def pick(logits_BV: Array) -> Places:
            nonlocal n_drawn
            uniform_B1 = uniforms(keys, n_drawn)[:, None]
            n_drawn += 1
            return picker.pick_rows(logits_BV, temperature_B1, uniform_B1)

        begin = self._begin(text)
        values_BG = np.zeros((num, 0), np.int64)
        for logits_BV, reader in self._places(text, begin, num):
            chosen = pick(np.where(self._allowed(values_BG, text), logits_BV, -np.inf))
            values_BG = np.column_stack([values_BG, chosen])
            reader.follow(np.arange(num), chosen)
        if len(text.places_G) > 1:
            for _ in range(sweeps):
                for g, (logits_BV, reader) in enumerate(self._places(text, begin, num, values_BG)):
                    allowed_BV = self._allowed_again(values_BG, g, text)
                    values_BG[:, g] = pick(np.where(allowed_BV, logits_BV, -np.inf))
                    reader.follow(np.arange(num), values_BG[:, g])
        logprobs = self.logprobs(text, values_BG).tolist()
        return [text.filling(row, p) for row, p in zip(values_BG.tolist(), logprobs, strict=True)]

    def logprobs(self, text: GapText, values_BG: Places) -> NDArray[np.float64]:
        """Return the log-probabilities `[B]` of fillings in nats."""
        rows = np.arange(len(values_BG))
        sums_B = np.zeros(len(values_BG))
        places = self._places(text, self._begin(text), len(values_BG))
        for g, (logits_BV, reader) in enumerate(places):
            chosen = values_BG[:, g]
            sums_B += self._log_distribution(logits_BV, values_BG[:, :g], text)[rows, chosen]
            reader.follow(rows, chosen)
        return sums_B

    def _begin(self, text: GapText) -> _Reader:
        """Return a reader that has read the text before its first place."""
        begin = _Reader(self._engine.forwards, text)
        begin.read_to(int(text.places_G[0]))
        return begin

    def _places(
        self, text: GapText, begin: _Reader, n: int = 1, values_BG: Places | None = None
    ) -> Iterator[tuple[Array, _Reader]]:
        """Yield the logits at each place `[B, V]`, and the reader, which has to follow the choice.

        Args:
            text: with gaps.
            begin: has read the text before the first.
            n: fillings to begin with.
            values_BG: what stands in the places to the right; by default UNK.
        """
        filled_BT = text.ids_T[None]
        if values_BG is not None:
            filled_BT = np.repeat(filled_BT, len(values_BG), axis=0)
            filled_BT[:, text.places_G] = values_BG
        places = text.places_G.tolist()
        reader = begin.copies(n)
        right = self._engine.from_right_at(filled_BT, places)
        for place, right_BV in zip(places, right, strict=True):
            logits_BV = reader.read_to(place) + right_BV
            require_finite(logits_BV)
            yield logits_BV, reader

    def _log_distribution(self, logits_BV: Array, values_BG: Places, text: GapText) -> Array:
        """Return the log-probabilities of what may come next, -inf for the rest."""
        allowed_BV = self._allowed(values_BG, text)
        return log_softmax(np.where(allowed_BV, logits_BV, -np.inf))

    def _allowed(self, values_BG: Places, text: GapText) -> NDArray[np.bool_]:
        """Return which ids may stand in the next place, `[B, V]` or, for all alike, `[1, V]`."""
        if self._vocabulary.unit == "char":
            return self._characters_1V
        g = values_BG.shape[1]
        runs = values_BG[:, text.run_of(g).start : g] - FIRST_CHARACTER_ID
        return np.array([may_follow(bytes(run), text.rooms_G[g]) for run in runs.tolist()])

    def _allowed_again(self, values_BG: Places, g: int, text: GapText) -> NDArray[np.bool_]:
        """Return which ids may replace the one in place g; see `_allowed`."""
        if self._vocabulary.unit == "char":
            return self._characters_1V
        run_G = text.run_of(g)
        runs_BG = values_BG[:, run_G].copy()
        runs_BG[:, g - run_G.start] = FIRST_CHARACTER_ID
        runs, which_B = np.unique(runs_BG, axis=0, return_inverse=True)
        allowed = np.zeros((len(runs), len(self._vocabulary)), np.bool_)
        for row, run in zip(allowed, runs - FIRST_CHARACTER_ID, strict=True):
            filled = bytearray(run.tolist())
            for byte in range(256):
                filled[g - run_G.start] = byte
                row[FIRST_CHARACTER_ID + byte] = is_utf8(filled)
        return allowed[which_B.reshape(-1)]


class _Reader:
    """Reads several fillings of a text from left to right."""

    def __init__(self, engine: Engine, text: GapText) -> None:
        self._engine = engine
        self._ids_T = text.ids_T
        self._state: State = engine.initial_state(1)
        self._position = 0
        self._next_B: Places | None = np.array([EOS_ID])
        """Not read yet; None where all is read."""
        self._logits_BV: Array = np.empty((1, 0))

    def copies(self, n: int) -> _Reader:
        """Return a reader of `n` fillings from the one that this has read."""
        other = copy(self)
        other._state = self._engine.copy_state(self._state, np.zeros(n, np.int64))
        other._logits_BV = np.repeat(self._logits_BV, n, axis=0)
        return other

    def read_to(self, place: int) -> Array:
        """Return the logits at a place `[B, V]`."""
        if self._next_B is not None:
            known = self._ids_T[self._position : place]
            ids_BT = np.empty((len(self._next_B), 1 + len(known)), np.int64)
            ids_BT[:, 0] = self._next_B
            ids_BT[:, 1:] = known
            chunk = min(CHUNK, max(1, READ // len(ids_BT)))
            for start in range(0, ids_BT.shape[1], chunk):
                logits_BTV = self._engine.run(ids_BT[:, start : start + chunk], self._state)
            self._logits_BV = logits_BTV[:, -1]
            self._position, self._next_B = place, None
        return self._logits_BV

    def follow(self, rows: Places, chosen_B: Places) -> None:
        """Continue from some of the fillings, with these ids at the place."""
        if len(rows) != len(self._logits_BV) or (rows != np.arange(len(rows))).any():
            self._state = self._engine.copy_state(self._state, rows)
        self._next_B = chosen_B.astype(np.int64)
        self._position += 1
