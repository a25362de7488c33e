"""Models to score with: tiny, in float64, and their log-probabilities by the naive equations."""

from __future__ import annotations

import numpy as np
import reference

from charrnn.engine.network import Engine
from charrnn.scoring.details import char_scores
from charrnn.scoring.scorer import Scorer
from charrnn.vocab import EOS_ID, Vocabulary

VOCABULARY = Vocabulary("abcde\n ")
CONFIG = reference.make_config("lstm", layers=2, embedding=3, vocab_size=len(VOCABULARY))
WEIGHTS = reference.random_weights(CONFIG, seed=3)
ENGINE = Engine(CONFIG, WEIGHTS, np.float64)


def scorer(**rules):
    return Scorer(ENGINE, VOCABULARY, **rules)


def char_logprobs(rules, text):
    """Log-probability of every event of a text, as an array."""
    return np.array([one.logprob for one in char_scores(rules, [text])])


def naive(text, *, eos=False, context=""):
    """Log-probability of every event of a text after a context."""
    before = [EOS_ID, *VOCABULARY.encode(context).tolist()]
    ids = VOCABULARY.encode(text).tolist() + [EOS_ID] * eos
    logits, _ = reference.run(CONFIG, WEIGHTS, [*before, *ids][:-1] if ids else before)
    rows = reference.logprobs(logits)[len(before) - 1 :]
    return [float(row[i]) for row, i in zip(rows, ids, strict=False)]


def random_text(length, seed=0, characters="abcde\n "):
    return "".join(np.random.default_rng(seed).choice(list(characters), length))
