"""A network and the counts of a text, mixed in the logarithmic domain.

An id is a path of decisions in a tree (`charrnn.scoring.ngram`), and each decision is predicted by
mixing the log-odds x_i of the network, of the contexts' histories and of the longest matches:

    p(1) = σ(Σ w_i x_i)        w_i ← w_i + rate · (decision - p(1)) · x_i

which is the gradient of the log loss (logistic mixing: Mahoney 2005; Mattern 2012, "Mixing
Strategies in Data Compression", for two symbols). The weights of a decision are a sum of four: one
of its node, one of the length of the match, one of the longest contexts that are known, and one of
the id before. All change only when an id has been scored, so each id has a probability, that of
its path, and those of the alphabet sum to one. For a network among the models see Knoll's cmix.

Shapes: T ids, E decisions of a path, X inputs, V ids of the alphabet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.scoring.ngram import (
    BLOCK,
    MATCH_LENGTHS,
    N_CONTEXTS,
    ORDERS,
    Contexts,
    Floats,
    Histories,
    Ints,
    Matches,
    Places,
    Tree,
)
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, Vocabulary

FIRST_RATE = 2e-3
LAST_RATE = 7e-4
RATE_DECAY = 1 - 1 / 3000
MAX_LOG_ODDS = 12.0
FIRST_WEIGHTS = (0.7, *[0.12] * N_CONTEXTS, *[0.25] * len(MATCH_LENGTHS), 0.0)
"""Of the network, the contexts, the matches, and a constant."""
N_INPUTS = len(FIRST_WEIGHTS)
BIAS = 0.3
N_MATCHES = 20
"""Kinds of match by length."""
_FIRST_MATCH = 1 + N_CONTEXTS
MOST_COUNTED = 1 << 22
"""Ids of a corpus that are counted: what fills the tables."""


class _Found(NamedTuple):
    """What the inputs of a place were made from, for learning."""

    states_EC: NDArray[np.uint16]
    cells_EC: Ints
    p_EC: Floats
    foretold: list[int]
    match: int
    order: int


class Mixer:
    """Learns from every id that it scores, and from a corpus where there is one.

    Memory: 143 MB of tables, of which a short text touches little, and up to 17 million ids.

    Attributes:
        n_counted: ids of the corpus.
        n_left_out: ids at its beginning that were one too many.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Begin with nothing counted."""
        size = len(vocabulary)
        self.tree = Tree(size)
        letters = [one.isalpha() for one in vocabulary.characters]
        self._contexts = Contexts(np.array([False] * FIRST_CHARACTER_ID + letters))
        self._histories = Histories()
        self._matches = Matches()
        self._of_node: Floats = np.tile(np.array(FIRST_WEIGHTS), (max(1, size - 1), 1))
        self._of_match: Floats = np.zeros((N_MATCHES, N_INPUTS))
        self._of_order: Floats = np.zeros((2 * len(ORDERS) + 2, N_INPUTS))
        few = 1 - np.arange(2 * len(ORDERS) + 2) // 2 / len(ORDERS)
        self._of_order[:, 0] = (1 - FIRST_WEIGHTS[0]) * few  # where nothing is known: the network
        self._of_id: Floats = np.zeros((size, N_INPUTS))
        self._rate = FIRST_RATE
        self._before: Ints = np.zeros(0, np.int64)
        self.n_counted = self.n_left_out = 0

    @property
    def n_copied(self) -> int:
        """Ids scored that stand in the corpus after the same 32 ids as in the text."""
        return self._matches.n_copied

    def read(self, ids: NDArray[np.integer[Any]]) -> None:
        """Count a corpus, or the next piece of one."""
        for start in range(0, len(ids), BLOCK):
            part = ids[start : start + BLOCK].astype(np.int64)
            names, match_names = self._contexts.names(part, self._before)
            at, nodes, bits = self.tree.events(part)
            if len(at):
                self._histories.read(self._histories.places(names, at, nodes), at, bits)
            self._matches.read(part.tolist(), Matches.rows(match_names))
            self._remember(part)
            self.n_counted += len(part)

    def read_end(self, pieces: Iterable[NDArray[np.integer[Any]]]) -> None:
        """Count a corpus that comes in pieces, or its last `MOST_COUNTED` ids."""
        kept: deque[NDArray[np.integer[Any]]] = deque()
        n = 0
        for piece in pieces:
            kept.append(piece)
            n += len(piece)
            while n - len(kept[0]) >= MOST_COUNTED:
                first = len(kept.popleft())
                n -= first
                self.n_left_out += first
        ids = np.concatenate(kept) if kept else np.zeros(0, np.uint8)
        self.n_left_out += max(0, n - MOST_COUNTED)
        self.read(ids[-MOST_COUNTED:])

    def begin(self, context: NDArray[np.integer[Any]]) -> None:
        """Begin a text: after EOS, and after ids that are neither scored nor counted."""
        is_new = not len(self._before) or self._before[-1] != EOS_ID
        ids = np.concatenate([np.full(int(is_new), EOS_ID), context.astype(np.int64)])
        self._contexts.names(ids, self._before)
        self._matches.append(ids.tolist())
        self._remember(ids)

    def _remember(self, ids: Ints) -> None:
        self._before = np.concatenate([self._before, ids])[-64:]

    def score(self, ids: Ints, logprobs_TV: NDArray[np.floating[Any]]) -> Floats:
        """Return the log-probabilities `[T]` of the next ids, and learn from them.

        Args:
            ids: what came.
            logprobs_TV: the network's, each after the ids before.
        """
        names, match_names = self._contexts.names(ids, self._before)
        at, nodes, bits = self.tree.events(ids)
        places = self._histories.places(names, at, nodes)
        from_network = self.tree.log_odds(logprobs_TV, at, nodes)
        np.clip(from_network, -MAX_LOG_ODDS, MAX_LOG_ODDS, out=from_network)
        lengths = self.tree.lengths[ids]
        ends = np.cumsum(lengths).tolist()
        rows = Matches.rows(match_names).T.tolist()
        bits_E1, targets_E = bits.astype(np.uint16)[:, None], bits.astype(np.float64)
        mixed = np.empty(len(at))
        first, last = 0, int(self._before[-1])
        for t, one in enumerate(ids.tolist()):
            part = slice(first, ends[t])
            mixed[part] = self._step(
                *(one, last, nodes[part], from_network[part]),
                *(Places(places.slots_EC[part], places.checks_EC[part]), rows[t]),
                *(bits_E1[part], targets_E[part]),
            )
            first, last = ends[t], one
        self._remember(ids)
        logprobs = -np.logaddexp(0.0, np.where(bits == 1, -mixed, mixed))
        return _sums(logprobs, at, len(ids))

    def distribution(self, logprobs_V: NDArray[np.floating[Any]]) -> Floats:
        """Return the log-probabilities `[V]` of all ids at this place, and learn nothing."""
        word = self._contexts._word, self._contexts._word_before
        names, match_names = self._contexts.names(np.zeros(1, np.int64), self._before)
        self._contexts._word, self._contexts._word_before = word
        at, nodes, bits = self.tree.events(np.arange(self.tree.size))
        here = np.zeros_like(at)
        odds = self.tree.log_odds(logprobs_V[None], here, nodes)
        np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS, out=odds)
        places = self._histories.places(names, here, nodes)
        rows = Matches.rows(match_names)[:, 0].tolist()
        inputs, weights, _ = self._inputs(int(self._before[-1]), nodes, odds, places, rows)
        mixed = np.einsum("ex,ex->e", weights, inputs)
        logprobs = -np.logaddexp(0.0, np.where(bits == 1, -mixed, mixed))
        return _sums(logprobs, at, self.tree.size)

    def _inputs(
        self, last: int, nodes: Ints, from_network: Floats, places: Places, rows: list[int]
    ) -> tuple[Floats, Floats, _Found]:
        """Return the inputs `[E, X]` of some nodes, their weights, and what learning needs."""
        histories, matches = self._histories, self._matches
        states = histories.states(*places)
        cells = histories.cells(states)
        p_EC = histories.p_one[cells]
        inputs = np.empty((len(nodes), N_INPUTS))
        inputs[:, 0] = from_network
        inputs[:, 1:_FIRST_MATCH] = np.log(p_EC / (1 - p_EC))
        inputs[:, -1] = BIAS
        foretold = []
        for model, row in enumerate(rows):
            one, p_right = matches.find(model, row)
            column = 0.0 if one < 0 else self._match_column(one, p_right, nodes)
            inputs[:, _FIRST_MATCH + model] = column
            foretold.append(one)
        short, long = matches.length
        kind = min(short, 15) if short < 16 else min(16 + (short - 16) // 6, N_MATCHES - 1)
        # the root of the tree is the first node: how many orders know this context at all
        order = 2 * int(np.count_nonzero(states[0, : len(ORDERS)])) + (long > 0)
        weights = self._of_node[nodes]
        weights += self._of_match[kind]
        weights += self._of_order[order]
        weights += self._of_id[last]
        return inputs, weights, _Found(states, cells, p_EC, foretold, kind, order)

    def _match_column(self, foretold: int, p_right: float, nodes: Ints) -> list[float]:
        """Return the log-odds of a match at each node, 0 beside its path."""
        value = float(np.log(p_right / (1 - p_right)))
        path = self.tree.decisions[foretold]
        return [(value if path[n] else -value) if n in path else 0.0 for n in nodes.tolist()]

    def _step(
        self,
        came: int,
        last: int,
        nodes: Ints,
        from_network: Floats,
        places: Places,
        rows: list[int],
        bits_E1: NDArray[np.uint16],
        targets_E: Floats,
    ) -> Floats:
        """Return the mixed log-odds of the path of one id, and learn from it."""
        inputs, weights, found = self._inputs(last, nodes, from_network, places, rows)
        states, cells, p_EC, foretold, kind, order = found
        mixed: Floats = np.einsum("ex,ex->e", weights, inputs)
        error = targets_E - 1 / (1 + np.exp(-mixed))
        change = (self._rate * error)[:, None] * inputs
        total = change.sum(0)
        self._of_node[nodes] += change
        self._of_match[kind] += total
        self._of_order[order] += total
        self._of_id[last] += total
        self._histories.adjust(cells, p_EC, targets_E[:, None])
        self._histories.learn(*places, states, bits_E1)
        self._matches.learn(came, foretold, rows)
        self._rate = max(LAST_RATE, self._rate * RATE_DECAY)
        return mixed


def _sums(logprobs_E: Floats, at: Ints, size: int) -> Floats:
    """Return the sum over the path of each id."""
    sums: Floats = np.bincount(at, weights=logprobs_E, minlength=size).astype(np.float64)
    return sums
