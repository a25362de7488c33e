"""A score is a probability: the chain rule, sums that are sums, and no seam between chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from score_models import char_logprobs

from charrnn.engine.network import Engine, log_softmax
from charrnn.scoring.score import Score, bits
from charrnn.scoring.scorer import CHUNK, Scorer, score_pieces
from charrnn.vocab import EOS_ID, UNK_ID, Unknown, Vocabulary

VOCABULARY = Vocabulary("abcde\n")
CONFIG = reference.make_config("lstm", layers=2, embedding=3, vocab_size=len(VOCABULARY))
WEIGHTS = reference.random_weights(CONFIG, seed=3)
ENGINE = Engine(CONFIG, WEIGHTS, np.float64)

texts = st.text(st.sampled_from("abcde\n"), max_size=20)
texts_with_unknowns = st.text(st.sampled_from("abcde\n?é"), max_size=20)


def score(text, *, eos=False):
    return score_pieces(Scorer(ENGINE, VOCABULARY, eos=eos), [text])


def logprob(text, *, eos=False):
    return score(text, eos=eos).logprob


def naive_logprobs(text, *, eos=False):
    ids = VOCABULARY.encode(text).tolist() + [EOS_ID] * eos
    logits, _ = reference.run(CONFIG, WEIGHTS, [EOS_ID, *ids][:-1])
    return np.array([row[i] for row, i in zip(reference.logprobs(logits), ids, strict=True)])


@given(texts_with_unknowns.filter(bool), st.booleans())
def test_characters_against_the_reference(text, eos):
    found = char_logprobs(Scorer(ENGINE, VOCABULARY, eos=eos), text)
    assert found.shape == (len(text) + eos,)
    np.testing.assert_allclose(found, naive_logprobs(text, eos=eos), rtol=0, atol=1e-10)


@given(texts, texts)
def test_chain_rule(a, b):
    """log P(ab) = log P(a) + log P(b | a), the second read off an engine that has read a."""
    state = ENGINE.initial_state()
    logits = ENGINE.run(np.array([EOS_ID, *VOCABULARY.encode(a)]), state)[-1]
    conditional = 0.0
    for i in VOCABULARY.encode(b).tolist():
        conditional += log_softmax(logits)[i]
        logits = ENGINE.step(i, state)
    assert logprob(a + b) == pytest.approx(logprob(a) + conditional, abs=1e-9)
    assert logprob(a + b, eos=True) - logprob(a + b) == pytest.approx(
        log_softmax(logits)[EOS_ID], abs=1e-9
    )


@given(texts)
def test_the_probabilities_of_all_next_characters_sum_to_one(text):
    nexts = [logprob(text + c) for c in VOCABULARY.characters]
    nexts += [logprob(text + "?"), logprob(text, eos=True)]  # UNK and EOS
    assert math.fsum(math.exp(v - logprob(text)) for v in nexts) == pytest.approx(1, abs=1e-9)


@given(texts_with_unknowns, st.booleans())
def test_characters_sum_to_the_total(text, eos):
    found = score(text, eos=eos)
    parts = char_logprobs(Scorer(ENGINE, VOCABULARY, eos=eos), text)
    assert found.logprob == pytest.approx(math.fsum(parts), abs=1e-12)
    assert found.n_scored == len(parts) == len(text) + eos
    assert found.n_chars == len(text)
    assert found.n_bytes == len(text.encode())
    assert found.n_unknown == text.count("?") + text.count("é")


@pytest.mark.parametrize("length", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_no_seam_between_chunks(length):
    rng = np.random.default_rng(length)
    text = "".join(rng.choice(list("abcde\n"), length))
    for eos in (False, True):
        found = char_logprobs(Scorer(ENGINE, VOCABULARY, eos=eos), text)
        np.testing.assert_allclose(found, naive_logprobs(text, eos=eos), rtol=0, atol=1e-9)


def test_unknown_characters_are_named_and_charged_as_unk():
    found = score("a?b?é")
    assert found.unknown == (Unknown("?", 1, 2), Unknown("é", 4))
    assert found.n_unknown == 3
    first = log_softmax(ENGINE.run(np.array([EOS_ID]), ENGINE.initial_state()))[0, UNK_ID]
    assert logprob("?") == pytest.approx(first, abs=1e-12)


def test_units():
    found = score("ab€")
    assert bits(math.log(8)) == pytest.approx(3)
    assert found.log2prob == pytest.approx(found.logprob / math.log(2))
    assert found.bits_per_char == pytest.approx(-found.log2prob / 3)
    assert found.bits_per_byte == pytest.approx(-found.log2prob / 5)
    assert found.perplexity_per_char == pytest.approx(math.exp(-found.logprob / 3))


def test_an_empty_text():
    found = score("")
    assert (found.n_scored, found.n_chars, found.logprob) == (0, 0, 0)
    assert math.isnan(found.bits_per_char)
    assert math.isnan(found.bits_per_byte)
    ended = score("", eos=True)
    assert ended.n_scored == 1
    assert ended.bits_per_char == pytest.approx(-ended.log2prob)


@given(st.lists(texts_with_unknowns, min_size=1, max_size=5))
def test_totals_are_sums_over_sums(lines):
    scores = [score(line, eos=True) for line in lines]
    total = Score.total(iter(scores))
    for field in ("n_chars", "n_bytes", "n_scored", "n_unknown"):
        assert getattr(total, field) == sum(getattr(s, field) for s in scores)
    assert total.logprob == pytest.approx(sum(s.logprob for s in scores), abs=1e-9)
    assert total.bits_per_char == pytest.approx(
        -sum(s.log2prob for s in scores) / sum(s.n_scored for s in scores)
    )


def test_a_total_is_not_a_mean_of_means():
    short, long = (score(text) for text in ("a", "e\n" * 30))
    mean = (short.bits_per_char + long.bits_per_char) / 2
    assert abs(Score.total([short, long]).bits_per_char - mean) > 0.01


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=9))
def test_log_softmax_is_stable_and_normalised(logits):
    found = log_softmax(np.array(logits, np.float32))
    assert found.dtype == np.float64
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)
    assert (found <= 0).all()
    differences = np.diff(np.array(logits, np.float32).astype(np.float64))
    np.testing.assert_allclose(np.diff(found), differences, atol=1e-9)


def test_a_certainly_wrong_model_is_still_scored():
    """Perplexity may overflow; that is infinity, not a crash."""
    found = Score(text="a", n_chars=1, n_bytes=1, n_scored=1, n_unknown=0, logprob=-1e4)
    assert found.perplexity_per_char == math.inf
