"""What a text has shown so far: histories of its contexts, and the longest match.

An id is read as the decisions of a binary tree that halves the alphabet by number, so that ids next
to each other share their first decisions. In each context (the last N ids, the word so far) each
node of the tree has a history of the decisions taken there: a state of one byte, which counts both
and forgets the rarer one. A learned table says how probable a 1 is after each state (indirect
modelling: Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression").

Shapes: T ids, E decisions (some for each id), C contexts, V ids of the alphabet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDERS = (1, 2, 3, 4, 5, 6, 8)
"""Contexts of the last N ids; one of the word so far and one with the word before it follow."""
N_CONTEXTS = len(ORDERS) + 2
MATCH_LENGTHS = (5, 12)
"""Ids that must agree before a match is followed, one match model each."""
MAX_MATCH = 32
TABLE_BITS = 22
"""Places of a table of histories, and of each match model, as a power of two."""
MOST_COUNTED = (40, 22, 14, 9, 6)
"""Most decisions of one kind that a state tells apart, by the number of the other kind."""
PRIOR = 0.4
STATE_LIMIT = 255
"""Decisions over which the table of probabilities averages, at most."""
CHUNK = 32
"""Ids of a corpus that are counted at a time, each without those beside it."""
BLOCK = 1 << 14
LONGEST = max(*ORDERS, *MATCH_LENGTHS)
HISTORY = 1 << 23
"""Ids that the match models can look back."""

_A, _B, _C = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0x8CB92BA72F3D8DD7))
_MASK = (1 << 64) - 1
_LOW, _CHECK = np.uint16(0xFF), np.uint16(0xFF00)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Tree:
    """The decisions that lead to each id; node n halves a range of ids, and 1 is its upper part."""

    def __init__(self, size: int) -> None:
        """Halve the ids 0 to size - 1 at the largest power of two, and so on."""
        self.size = size
        paths: list[list[tuple[int, int]]] = [[] for _ in range(size)]
        ranges: list[tuple[int, int, int]] = []
        waiting = [(0, size)]
        while waiting:
            low, high = waiting.pop()
            if high - low < 2:
                continue
            middle = low + (1 << (high - low - 1).bit_length() - 1)
            for one in range(low, high):
                paths[one].append((len(ranges), int(one >= middle)))
            ranges.append((low, middle, high))
            waiting += [(middle, high), (low, middle)]
        self.decisions = [dict(path) for path in paths]
        """Per id, the decision at each node of its path."""
        self.lengths: Ints = np.array([len(path) for path in paths])
        self._starts = np.cumsum(self.lengths) - self.lengths
        flat = np.array([pair for path in paths for pair in path], np.int64).reshape(-1, 2)
        self._nodes, self._bits = flat[:, 0], flat[:, 1]
        self._ranges = np.array(ranges, np.int64).reshape(-1, 3).T

    def events(self, ids: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the position `[E]` in `ids` of each decision, its node, and what it is."""
        lengths = self.lengths[ids]
        at = np.repeat(np.arange(len(ids)), lengths)
        within = np.arange(len(at)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = self._starts[ids[at]] + within
        return at, self._nodes[place], self._bits[place]

    def log_odds(self, logprobs_TV: NDArray[Any], at: Ints, nodes: Ints) -> Floats:
        """Return what a distribution says at each decision `[E]`."""
        sums = np.zeros((len(logprobs_TV), self.size + 1))
        np.cumsum(np.exp(logprobs_TV, dtype=np.float64), axis=1, out=sums[:, 1:])
        low, middle, high = self._ranges[:, nodes]
        lower, upper = sums[at, middle] - sums[at, low], sums[at, high] - sums[at, middle]
        return np.asarray(np.log(upper + 1e-12) - np.log(lower + 1e-12))


class Places(NamedTuple):
    """Where the histories of some decisions are."""

    slots_EC: Ints
    """Place in the tables."""
    checks_EC: NDArray[np.uint16]
    """Upper byte that a history has if it belongs to this context."""


def make_states() -> tuple[Ints, NDArray[np.uint16]]:
    """Return the counts `[S, 2]` of each state, and the state `[2 S]` after state · 2 + decision.

    A decision counts 1, and of the other kind at most 2, 3 or 4 are remembered, the more the more
    there were. States in which both occurred also know which came last.
    """

    def fits(zeros: int, ones: int) -> bool:
        few, many = sorted((zeros, ones))
        return few < len(MOST_COUNTED) and many <= MOST_COUNTED[few]

    most = range(MOST_COUNTED[0] + 1)
    pairs = [(zeros, ones) for zeros in most for ones in most if fits(zeros, ones)]
    states = [(*pair, last) for pair in pairs for last in ((0, 1) if all(pair) else (0,))]
    number = {state: k for k, state in enumerate(states)}
    assert len(states) <= 256
    assert states[0] == (0, 0, 0)
    after = []
    for zeros, ones, _ in states:
        for bit in (0, 1):
            counts = [zeros, ones]
            other = counts[1 - bit]
            counts[1 - bit] = other if other < 3 else 2 + (other > 5) + (other > 15)
            counts[bit] += 1
            while not fits(*counts):
                counts[bit if counts[bit] >= counts[1 - bit] else 1 - bit] -= 1
            after.append(number[counts[0], counts[1], bit if all(counts) else 0])
    return np.array(states)[:, :2], np.array(after, np.uint16)


COUNTS, AFTER = make_states()
N_STATES = len(COUNTS)


class Contexts:
    """Names of the contexts of each position, as numbers of 64 bits.

    Args:
        letters: which ids are part of words `[V]`.
    """

    def __init__(self, letters: NDArray[np.bool_]) -> None:
        """Begin before the first text."""
        self._letters: list[bool] = letters.tolist()
        self._word = self._word_before = 0

    def names(self, ids: Ints, before: Ints) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the names `[C, T]` of the contexts that each id is in, and those of matches.

        Args:
            ids: the next ids of the text.
            before: the last ids before them, at least `LONGEST` where there are as many.
        """
        n = len(ids)
        known = np.zeros(LONGEST + n, np.uint64)
        before = before[-LONGEST:]
        known[LONGEST - len(before) : LONGEST] = before.astype(np.uint64) + np.uint64(1)
        known[LONGEST:] = ids.astype(np.uint64) + np.uint64(1)
        by_length = {}
        with np.errstate(over="ignore"):
            name = np.zeros(n, np.uint64)
            for length in range(1, LONGEST + 1):
                name = (name + known[LONGEST - length : LONGEST - length + n]) * _A
                name += np.uint64(length)
                name ^= name >> np.uint64(29)
                if length in ORDERS or length in MATCH_LENGTHS:
                    by_length[length] = name * _B
            last = known[LONGEST - 1 : LONGEST - 1 + n]
            word, with_word_before = self._words(ids)
            contexts = [by_length[order] for order in ORDERS]
            contexts += [(word + last) * _A ^ _C, (with_word_before + last) * _B ^ _A]
        return np.array(contexts), np.array([by_length[length] for length in MATCH_LENGTHS])

    def _words(self, ids: Ints) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        words, pairs = [], []
        word, before, letters = self._word, self._word_before, self._letters
        for one in ids.tolist():
            words.append(word)
            pairs.append((word + before * 0x2545F4914F6CDD1D) & _MASK)
            if letters[one]:
                word = ((word + one + 1) * 0x9E3779B97F4A7C15) & _MASK
                word ^= word >> 31
            elif word:
                word, before = 0, word
        self._word, self._word_before = word, before
        return np.array(words, np.uint64), np.array(pairs, np.uint64)


class Histories:
    """The states of all nodes in all contexts, in tables of a fixed size.

    Where two contexts want one place, the later one has it; a check of one byte tells whose it is.
    """

    def __init__(self) -> None:
        """Begin with no history."""
        self._table = np.zeros(N_CONTEXTS << TABLE_BITS, np.uint16)
        self._offsets = np.arange(N_CONTEXTS) << TABLE_BITS
        self._rows = np.arange(N_CONTEXTS) * N_STATES
        ones, both = COUNTS[:, 1], COUNTS.sum(1)
        self.p_one: Floats = np.tile((ones + PRIOR) / (both + 2 * PRIOR), N_CONTEXTS)
        """Probability of a 1 by context and state, `[C S]`."""
        self._n_seen: Floats = np.full(N_CONTEXTS * N_STATES, 10.0)

    def places(self, names_CT: NDArray[np.uint64], at: Ints, nodes: Ints) -> Places:
        """Return where the decisions at `nodes`, of the ids at `at`, have their histories."""
        slots = np.empty((len(nodes), N_CONTEXTS), np.int64)
        checks = np.empty((len(nodes), N_CONTEXTS), np.uint16)
        with np.errstate(over="ignore"):
            of_node = (nodes.astype(np.uint64) + np.uint64(1)) * _C
            for k, names in enumerate(names_CT):
                z = names[at] ^ of_node
                z = (z ^ (z >> np.uint64(31))) * _B
                z ^= z >> np.uint64(32)
                slots[:, k] = z & np.uint64((1 << TABLE_BITS) - 1)
                checks[:, k] = (z >> np.uint64(40)).astype(np.uint16) << np.uint16(8)
        slots += self._offsets
        return Places(slots, checks)

    def states(self, slots_EC: Ints, checks_EC: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the states there, 0 where there is no history of this context."""
        found = self._table[slots_EC]
        found *= (found & _CHECK) == checks_EC
        found &= _LOW
        return found

    def cells(self, states_EC: NDArray[np.uint16]) -> Ints:
        """Return where `p_one` has the probabilities of some states."""
        return states_EC + self._rows

    def learn(
        self,
        slots_EC: Ints,
        checks_EC: NDArray[np.uint16],
        states_EC: NDArray[np.uint16],
        bits_E1: NDArray[np.uint16],
    ) -> None:
        """Take decisions into their histories."""
        self._table[slots_EC] = checks_EC | AFTER[2 * states_EC + bits_E1]

    def adjust(self, cells_EC: Ints, p_EC: Floats, bits_E1: Floats) -> None:
        """Move the probabilities of some states, `p_EC` until now, towards what came."""
        n = self._n_seen[cells_EC]
        self.p_one[cells_EC] = p_EC + (bits_E1 - p_EC) / (n + 1.5)
        self._n_seen[cells_EC] = np.minimum(n + 1, STATE_LIMIT)

    def read(self, places: Places, at: Ints, bits: Ints) -> None:
        """Take a block of decisions, `CHUNK` ids at a time: a corpus is counted, not predicted."""
        ends = np.searchsorted(at, np.arange(CHUNK, int(at[-1]) + 1 + CHUNK, CHUNK)).tolist()
        cells, first = [], 0
        bits_E1 = bits.astype(np.uint16)[:, None]
        for end in ends:
            part = slice(first, end)
            slots, checks = places.slots_EC[part], places.checks_EC[part]
            states = self.states(slots, checks)
            self.learn(slots, checks, states, bits_E1[part])
            cells.append(self.cells(states))
            first = end
        flat = np.concatenate(cells).ravel()
        size = N_CONTEXTS * N_STATES
        n = np.bincount(flat, minlength=size)
        ones = np.bincount(flat, weights=np.repeat(bits, N_CONTEXTS), minlength=size)
        total = self._n_seen + n
        self.p_one = (self.p_one * self._n_seen + ones) / total
        self._n_seen = np.minimum(total, STATE_LIMIT)


class Matches:
    """The last place where the text went as it does now, and what followed there.

    One match model per length in `MATCH_LENGTHS`. `length` of a model is 0 where it knows none.
    """

    def __init__(self) -> None:
        """Begin with no text."""
        self.history: list[int] = []
        self.length = [0] * len(MATCH_LENGTHS)
        self._place = [0] * len(MATCH_LENGTHS)
        self._table = np.zeros((len(MATCH_LENGTHS), 1 << TABLE_BITS), np.int64)
        self._p_right = [
            [(n + 0.5) / (n + 1.5) for n in range(MAX_MATCH + 1)] for _ in MATCH_LENGTHS
        ]
        self._corpus_end = 0
        self.n_copied = 0
        """Ids foretold by a match of full length that began in the corpus."""

    @staticmethod
    def rows(names_LT: NDArray[np.uint64]) -> Ints:
        """Return where each position stands in the tables."""
        rows: Ints = (names_LT >> np.uint64(64 - TABLE_BITS)).astype(np.int64)
        return rows

    def append(self, ids: list[int]) -> None:
        """Continue the text without looking for matches, which end here."""
        self.history += ids
        self.length = [0] * len(MATCH_LENGTHS)
        if len(self.history) > 2 * HISTORY:
            n = len(self.history) - HISTORY
            del self.history[:n]
            self._table = np.maximum(self._table - n, 0)
            self._corpus_end = max(0, self._corpus_end - n)

    def read(self, ids: list[int], rows_LT: Ints) -> None:
        """Remember the places of a corpus."""
        places = np.arange(len(self.history), len(self.history) + len(ids))
        for table, rows in zip(self._table, rows_LT, strict=True):
            table[rows] = places
        self.append(ids)
        self._corpus_end = len(self.history)

    def find(self, model: int, row: int) -> tuple[int, float]:
        """Return the id foretold, and the probability that it is right; (-1, 0) without a match."""
        history = self.history
        if not self.length[model]:
            place, here = int(self._table[model, row]), len(history)
            n = 0
            while n < min(MAX_MATCH, place) and history[place - n - 1] == history[here - n - 1]:
                n += 1
            if n < MATCH_LENGTHS[model]:
                return -1, 0.0
            self.length[model], self._place[model] = n, place
        return history[self._place[model]], self._p_right[model][self.length[model]]

    def learn(self, came: int, foretold: list[int], rows: list[int]) -> None:
        """Take the next id into the text, and into the tables."""
        here = len(self.history)
        for model, row in enumerate(rows):
            if foretold[model] >= 0:
                n = self.length[model]
                is_right = foretold[model] == came
                self._p_right[model][n] += (is_right - self._p_right[model][n]) * 0.02
                self.length[model] = min(n + 1, MAX_MATCH) if is_right else 0
                self._place[model] += 1
            self._table[model, row] = here
        if self.length[-1] == MAX_MATCH and self._place[-1] < self._corpus_end:
            self.n_copied += 1
        self.history.append(came)
