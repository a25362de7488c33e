"""Counts mixed with a network: probabilities, from the text before, by the equations."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from charrnn.config import CorpusConfig
from charrnn.corpus.encode import read_ids
from charrnn.errors import CorpusError
from charrnn.scoring import mixing, ngram
from charrnn.scoring.mixing import Mixer
from charrnn.scoring.ngram import AFTER, COUNTS, Tree
from charrnn.vocab import ByteVocabulary, Vocabulary

VOCABULARY = Vocabulary("abcdefg hi")
V = len(VOCABULARY)
TEXT = "a bad cabbage fed a cab, he had a bag; a bad cabbage fed a high head a cab. "


def encode(text):
    return VOCABULARY.encode(text).astype(np.int64)


def network(n, size=V, seed=0):
    """Log-probabilities `[n, size]` of a network that knows nothing."""
    logits = np.random.default_rng(seed).normal(0, 1.5, (n, size))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def mixer(corpus="", context="", vocabulary=VOCABULARY):
    made = Mixer(vocabulary)
    if corpus:
        made.read(vocabulary.encode(corpus))
    made.begin(vocabulary.encode(context))
    return made


class Naive:
    """The same in plain Python: contexts are tuples, histories are in a dictionary."""

    def __init__(self, vocabulary):
        self.size = len(vocabulary)
        self.letters = {i for i, c in enumerate(vocabulary.characters, 2) if c.isalpha()}
        self.past, self.states = [], {}
        self.n_contexts = len(ngram.ORDERS) + 2
        self.p, self.n = {}, {}
        self.w = {}
        self.rate = 2e-3
        self.seen = [{}, {}]
        self.length, self.place = [0, 0], [0, 0]
        self.right = {}

    def path(self, one):
        """Nodes as ranges, and the decisions."""
        low, high, steps = 0, self.size, []
        while high - low > 1:
            half = 1
            while 2 * half < high - low:
                half *= 2
            steps.append(((low, low + half, high), int(one >= low + half)))
            low, high = (low + half, high) if one >= low + half else (low, low + half)
        return steps

    def last(self, k):
        padded = [None] * k + self.past
        return tuple(padded[len(padded) - k :])

    def contexts(self):
        words, word = [], ()
        for one in self.past:
            if one in self.letters:
                word = (*word, one)
            elif word:
                words.append(word)
                word = ()
        before = words[-1] if words else ()
        return [*map(self.last, ngram.ORDERS), (word, self.last(1)), (word, before, self.last(1))]

    def p_one(self, kind, state):
        zeros, ones = COUNTS[state]
        return self.p.get((kind, state), (ones + 0.4) / (zeros + ones + 0.8))

    def foretell(self):
        """Per match model, the id foretold and its probability."""
        found = []
        for m, least in enumerate((5, 12)):
            if not self.length[m]:
                place, n = self.seen[m].get(self.last(least), 0), 0
                here = len(self.past)
                while n < 32 and place > n and self.past[place - n - 1] == self.past[here - n - 1]:
                    n += 1
                if n >= least:
                    self.length[m], self.place[m] = n, place
            n = self.length[m]
            p = self.right.get((m, n), (n + 0.5) / (n + 1.5))
            found.append((self.past[self.place[m]], p) if n else None)
        return found

    def inputs(self, node, logprobs, contexts, foretold):
        low, middle, high = node
        lower = math.fsum(math.exp(x) for x in logprobs[low:middle])
        upper = math.fsum(math.exp(x) for x in logprobs[middle:high])
        x = [max(-12.0, min(12.0, math.log(upper + 1e-12) - math.log(lower + 1e-12)))]
        for kind, context in enumerate(contexts):
            p = self.p_one(kind, self.states.get((kind, context, node), 0))
            x.append(math.log(p / (1 - p)))
        for one in foretold:
            if one is None or not low <= one[0] < high:
                x.append(0.0)
            else:
                odds = math.log(one[1] / (1 - one[1]))
                x.append(odds if one[0] >= middle else -odds)
        return [*x, 0.3]

    def own(self, key):
        """Weights of a node, or what is added to them: at first the network's, if counts lack."""
        rest = [0.0] * (self.n_contexts + 3)
        first = 0.3 * (1 - key[1] // 2 / len(ngram.ORDERS)) if key[0] == "order" else 0.0
        return self.w.get(key, [first, *rest])

    def weights(self, keys):
        start = [0.7] + [0.12] * self.n_contexts + [0.25, 0.25, 0.0]
        rows = [self.own(key) for key in keys]
        return [math.fsum(column) for column in zip(start, *rows, strict=True)]

    def step(self, came, logprobs):
        contexts, foretold = self.contexts(), self.foretell()
        root = (0, *self.path(0)[0][0][1:])
        known = sum(
            self.states.get((kind, contexts[kind], root), 0) > 0
            for kind in range(len(ngram.ORDERS))
        )
        short = self.length[0]
        kind_of_match = short if short < 16 else min(16 + (short - 16) // 6, 19)
        shared = (
            ("match", kind_of_match),
            ("order", 2 * known + (self.length[1] > 0)),
            ("id", self.past[-1]),
        )
        total, moves, learned = 0.0, [], []
        for node, bit in self.path(came):
            x = self.inputs(node, logprobs, contexts, foretold)
            w = self.weights((("node", node), *shared))
            z = math.fsum(a * b for a, b in zip(w, x, strict=True))
            total += -math.log1p(math.exp(-z if bit else z))
            error = bit - 1 / (1 + math.exp(-z))
            moves += [
                (key, [self.rate * error * a for a in x]) for key in (("node", node), *shared)
            ]
            for kind, context in enumerate(contexts):
                state = self.states.get((kind, context, node), 0)
                learned.append((kind, context, node, state, bit, self.p_one(kind, state)))
        for key, move in moves:
            self.w[key] = [a + b for a, b in zip(self.own(key), move, strict=True)]
        counts = dict(self.n)
        for kind, context, node, state, bit, p in learned:
            n = counts.get((kind, state), 10)
            self.p[kind, state] = p + (bit - p) / (n + 1.5)
            self.n[kind, state] = min(n + 1, 255)
            self.states[kind, context, node] = int(AFTER[2 * state + bit])
        for m, least in enumerate((5, 12)):
            if foretold[m]:
                n, (one, p) = self.length[m], foretold[m]
                self.right[m, n] = p + ((one == came) - p) * 0.02
                self.length[m] = min(32, n + 1) if one == came else 0
                self.place[m] += 1
            self.seen[m][self.last(least)] = len(self.past)
        self.past.append(came)
        self.rate = max(7e-4, self.rate * (1 - 1 / 3000))
        return total

    def read(self, ids):
        """A corpus of one block, in chunks of 32 ids: the last decision of a history counts."""
        sums = {}
        for start in range(0, len(ids), 32):
            after = {}
            for one in ids[start : start + 32]:
                contexts = self.contexts()
                for node, bit in self.path(one):
                    for kind, context in enumerate(contexts):
                        state = self.states.get((kind, context, node), 0)
                        after[kind, context, node] = int(AFTER[2 * state + bit])
                        n, ones = sums.get((kind, state), (0, 0))
                        sums[kind, state] = (n + 1, ones + bit)
                for m, least in enumerate((5, 12)):
                    self.seen[m][self.last(least)] = len(self.past)
                self.past.append(one)
            self.states.update(after)
        for (kind, state), (n, ones) in sums.items():
            self.p[kind, state] = (self.p_one(kind, state) * 10 + ones) / (10 + n)
            self.n[kind, state] = min(10 + n, 255)


@pytest.mark.parametrize("corpus", ["", TEXT * 2])
def test_the_score_is_the_one_of_the_equations(corpus):
    ids = encode(TEXT * 2 + "?a bad high cab")
    logprobs = network(len(ids))
    naive = Naive(VOCABULARY)
    naive.read(encode(corpus).tolist())
    naive.past.append(1)
    expected = [naive.step(int(i), row) for i, row in zip(ids, logprobs, strict=True)]
    np.testing.assert_allclose(mixer(corpus).score(ids, logprobs), expected, rtol=1e-9)


@pytest.mark.parametrize("vocabulary", [VOCABULARY, ByteVocabulary(), Vocabulary("a")])
def test_the_probabilities_of_the_alphabet_sum_to_one(vocabulary):
    """At every tenth place; that of what comes is the one that is scored."""
    made = mixer(TEXT, vocabulary=vocabulary)
    ids = vocabulary.encode(TEXT * 2).astype(np.int64)
    logprobs = network(len(ids), len(vocabulary))
    for t in range(0, len(ids) - 10, 10):
        all_of_them = made.distribution(logprobs[t])
        assert math.fsum(np.exp(all_of_them)) == pytest.approx(1, abs=1e-12)
        scored = made.score(ids[t : t + 10], logprobs[t : t + 10])
        assert scored[0] == pytest.approx(all_of_them[ids[t]], abs=1e-12)


def test_what_comes_later_has_no_influence_and_what_came_does():
    ids, logprobs = encode(TEXT * 3), network(3 * len(TEXT))
    before = mixer().score(ids, logprobs)
    for place in (5, 100, len(ids) - 1):
        changed = ids.copy()
        changed[place] = 2 + (changed[place] - 1) % (V - 2)
        after = mixer().score(changed, logprobs)
        np.testing.assert_array_equal(after[:place], before[:place])
        assert (after[place:] != before[place:]).all() or place > 5


def test_where_a_text_is_cut_makes_no_difference():
    ids, logprobs = encode(TEXT * 3), network(3 * len(TEXT))
    whole, made = mixer(TEXT).score(ids, logprobs), mixer(TEXT)
    parts = [made.score(ids[a : a + 17], logprobs[a : a + 17]) for a in range(0, len(ids), 17)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def test_what_repeats_itself_is_learned_and_a_corpus_is_remembered():
    ids, logprobs = encode(TEXT * 8), network(8 * len(TEXT))
    scores = mixer().score(ids, logprobs).reshape(8, -1).sum(1)
    assert scores[7] > scores[0] / 4
    assert mixer(TEXT * 4).score(ids[: len(TEXT)], logprobs[: len(TEXT)]).sum() > scores[0] / 2
    assert mixer().n_copied == 0


def test_a_text_that_stands_in_the_corpus_is_noticed():
    text = "".join(np.random.default_rng(1).choice(list("abcdefghi "), 400))
    made = mixer(text)
    made.score(encode(text), network(400))
    assert made.n_copied > 350
    other = mixer(text[::-1])
    other.score(encode(text), network(400))
    assert other.n_copied == 0


def test_of_a_long_corpus_the_end_is_counted(monkeypatch):
    monkeypatch.setattr(mixing, "MOST_COUNTED", 100)
    ids = encode(TEXT * 5)
    long, short = Mixer(VOCABULARY), Mixer(VOCABULARY)
    long.read_end(iter(np.array_split(ids, 7)))
    short.read(ids[-100:])
    assert (long.n_counted, long.n_left_out) == (100, len(ids) - 100)
    for one in (long, short):
        one.begin(encode(""))
    scores = [one.score(ids[:50], network(50)) for one in (long, short)]
    np.testing.assert_array_equal(*scores)


def test_old_text_is_forgotten_by_the_matches(monkeypatch):
    monkeypatch.setattr(ngram, "HISTORY", 64)
    made = mixer()
    for _ in range(5):
        made.begin(encode(""))
        scores = made.score(encode(TEXT), network(len(TEXT)))
        assert np.isfinite(scores).all()
    assert len(made._matches.history) < 2 * 64 + 2 * len(TEXT)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 67, 258])
def test_the_tree_has_a_path_to_each_id(size):
    tree = Tree(size)
    at, nodes, bits = tree.events(np.arange(size))
    paths = {
        one: tuple(zip(nodes[at == one].tolist(), bits[at == one].tolist(), strict=True))
        for one in range(size)
    }
    assert len(set(paths.values())) == size
    assert set(nodes.tolist()) == set(range(size - 1))
    odds = tree.log_odds(network(1, size), np.zeros_like(at), nodes)
    logprobs = np.bincount(
        at, weights=-np.logaddexp(0, np.where(bits == 1, -odds, odds)), minlength=size
    )
    np.testing.assert_allclose(logprobs, network(1, size)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("documents", "expected"), [("none", "ab\n\ncd"), ("line", "ab|cd|"), ("file", "ab\n\ncd|")]
)
def test_a_corpus_is_read_as_training_reads_it(tmp_path, documents, expected):
    path = tmp_path / "text"
    path.write_bytes(b"ab\r\n\r\ncd")
    for vocabulary, unit in ((Vocabulary("abc\n"), "char"), (ByteVocabulary(), "byte")):
        digest = hashlib.sha256()
        config = CorpusConfig(documents=documents, unit=unit)
        ids = np.concatenate(list(read_ids([path], vocabulary, config, digest)))
        right = [1 if c == "|" else int(vocabulary.encode(c)[0]) for c in expected]
        assert ids.tolist() == right
        assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()
    path.write_text("")
    with pytest.raises(CorpusError, match="no text in"):
        list(read_ids([path], vocabulary, config, digest))
