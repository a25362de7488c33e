"""A text has one score: alone, in a batch, in pieces, in rows; and it is that of the equations."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from score_models import CONFIG, VOCABULARY, WEIGHTS, naive, random_text, scorer

from charrnn.engine.network import Engine, log_softmax, target_logprobs
from charrnn.errors import ConfigError, ModelFileError, UnknownCharacterError
from charrnn.scoring.batch import score_many
from charrnn.scoring.details import char_scores
from charrnn.scoring.rows import score_in_rows
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import CHUNK, Scorer, chunks, score_blocks, score_pieces
from charrnn.vocab import EOS_ID, ByteVocabulary, Unknown, Vocabulary

characters = st.sampled_from("abcde\n ?é")
texts = st.text(characters, max_size=15)


def same(found, expected):
    """All fields equal, probabilities to 1e-9."""
    for field in ("n_chars", "n_bytes", "n_scored", "n_unknown", "n_skipped", "unknown"):
        assert getattr(found, field) == getattr(expected, field), field
    assert found.logprob == pytest.approx(expected.logprob, abs=1e-9)
    assert found.unknown_logprob == pytest.approx(expected.unknown_logprob, abs=1e-9)
    assert found.n_unknown_bytes == expected.n_unknown_bytes


@given(texts, st.booleans(), st.sampled_from(["", "a", "bad\n", "?"]))
def test_against_the_reference(text, eos, context):
    found = score_pieces(scorer(eos=eos, context=context), [text])
    assert found.logprob == pytest.approx(
        math.fsum(naive(text, eos=eos, context=context)), abs=1e-9
    )
    assert found.n_scored == len(text) + eos


@given(texts, texts, st.booleans())
def test_chain_rule_over_any_split(a, b, eos):
    """log P(ab) = log P(a) + log P(b after a), the second with `context`."""
    whole = score_pieces(scorer(eos=eos), [a + b]).logprob
    first = score_pieces(scorer(), [a]).logprob
    second = score_pieces(scorer(eos=eos, context=a), [b]).logprob
    assert whole == pytest.approx(first + second, abs=1e-9)


@given(st.lists(texts, max_size=9), st.booleans(), st.integers(1, 4), st.sampled_from(["", "ab"]))
def test_in_a_batch_as_alone(several, eos, batch_size, context):
    rules = scorer(eos=eos, context=context)
    found = list(score_many(rules, several, batch_size=batch_size))
    assert [one.text for one in found] == several
    for one, text in zip(found, several, strict=True):
        same(one, score_pieces(rules, [text]))


@pytest.mark.parametrize("on_unknown", ["unk", "skip"])
def test_batches_of_long_and_short_texts(on_unknown, monkeypatch):
    """Rows end inside windows and at their edges, groups end, and one text is too long to join."""
    monkeypatch.setattr("charrnn.scoring.batch.LONG", 60)
    monkeypatch.setattr("charrnn.scoring.batch.GROUP_TEXTS", 7)
    several = [random_text(n, n, "abcde\n ?") for n in (0, 15, 16, 17, 32, 33, 1, 61, 60, 5, 5, 80)]
    rules = scorer(eos=True, on_unknown=on_unknown)
    found = list(score_many(rules, iter(several), batch_size=4))
    assert len(found) == len(several)
    for one, text in zip(found, several, strict=True):
        same(one, score_pieces(rules, [text]))


def test_float32_in_a_batch_is_close_enough():
    """At most 1e-4 nats for 1,000 characters."""
    config = reference.make_config("lstm", layers=2, vocab_size=len(VOCABULARY), hidden=64)
    weights = reference.random_weights(config, scale=0.2)
    several = [random_text(1000, k) for k in range(5)]
    fast = Scorer(Engine(config, weights), VOCABULARY)
    exact = Scorer(Engine(config, weights, np.float64), VOCABULARY)
    for one, text in zip(score_many(fast, several), several, strict=True):
        assert abs(one.logprob - score_pieces(fast, [text]).logprob) < 1e-4
        assert abs(one.logprob - score_pieces(exact, [text]).logprob) < 1e-3


@settings(max_examples=20)
@given(st.lists(st.integers(0, 900), max_size=6), st.booleans())
def test_any_chunking_is_the_same_to_the_last_bit(cuts, eos):
    text = random_text(2 * CHUNK + 77, 1, "abcde\n ?")
    edges = sorted({0, len(text), *(3 * cut for cut in cuts if 3 * cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert score_pieces(scorer(eos=eos), pieces) == score_pieces(scorer(eos=eos), [text])
    assert "".join(chunks(pieces, 100)) == text


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
@pytest.mark.parametrize("eos", [False, True])
def test_rows_with_a_full_warmup_are_exact(rows, eos):
    text = random_text(301, 2, "abcde\n ?é")
    found = score_in_rows(scorer(eos=eos), [text[:100], text[100:]], rows=rows, warmup=400)
    same(found.score, score_pieces(scorer(eos=eos), [text]))
    assert found.cost_logprob == pytest.approx(0, abs=1e-9)


def test_rows_with_a_short_warmup_say_what_they_cost():
    text = random_text(600, 4)
    exact = score_pieces(scorer(), [text]).logprob
    for warmup, most in ((0, 5.0), (4, 1.0)):
        found = score_in_rows(scorer(), [text], rows=4, warmup=warmup)
        assert found.score.n_scored == 600
        cost = exact - found.score.logprob
        assert 1e-6 < abs(cost) < most
        assert found.cost_logprob == pytest.approx(cost, abs=1e-9)  # all seams are measured
        assert found.cost_error == 0
    assert score_in_rows(scorer(), [], rows=4, warmup=0).score.n_scored == 0


def test_the_cost_of_many_seams_is_measured_at_some():
    text = random_text(3000, 5)
    found = score_in_rows(scorer(), [text], rows=300, warmup=2)
    cost = score_pieces(scorer(), [text]).logprob - found.score.logprob
    assert found.cost_error > 0
    assert abs(found.cost_logprob - cost) < 4 * found.cost_error
    assert score_in_rows(scorer(), [text[:5]], rows=300, warmup=2).rows == 5


def test_rows_refuse_what_they_cannot_do():
    with pytest.raises(ConfigError, match=r"^rows must be at least 1, got 0$"):
        score_in_rows(scorer(), ["abc"], rows=0, warmup=5)
    with pytest.raises(ConfigError, match=r"^rows must be at most 4,096, got 1000000000$"):
        score_in_rows(scorer(), ["abc"], rows=10**9, warmup=5)
    with pytest.raises(ConfigError, match=r"^warmup must be at least 0, got -1$"):
        score_in_rows(scorer(), ["abc"], rows=3, warmup=-1)
    with pytest.raises(ConfigError, match=r"^rows .*context"):
        score_in_rows(scorer(context="a"), ["abc"], rows=2, warmup=5)


def test_the_probabilities_of_all_documents_sum_to_one():
    """Every string up to length 4, and the mass of longer ones: P(no end in five events)."""
    vocabulary = Vocabulary("ab")
    config = reference.make_config("gru", vocab_size=len(vocabulary), hidden=3)
    engine = Engine(config, reference.random_weights(config, seed=9), np.float64)
    ended, begun = (Scorer(engine, vocabulary, eos=eos) for eos in (True, False))
    alphabet = "ab?"  # the ? stands for all that is unknown
    documents = ["".join(c) for n in range(5) for c in itertools.product(alphabet, repeat=n)]
    mass = math.fsum(math.exp(one.logprob) for one in score_many(ended, documents))
    longer = ["".join(c) for c in itertools.product(alphabet, repeat=5)]
    rest = math.fsum(math.exp(one.logprob) for one in score_many(begun, longer))
    assert 0.5 < mass < 1
    assert mass + rest == pytest.approx(1, abs=1e-12)


def score_of(logprob, **more):
    counts = {"n_chars": 1, "n_bytes": 1, "n_scored": 1, "n_unknown": 0}
    return Score(text="", **{**counts, "logprob": logprob, **more})


def test_totals_of_many_tiny_values_lose_nothing():
    """0.1 has no exact float: a plain running sum of a million is off in the seventh digit."""
    n = 1_000_000
    one = score_of(-0.1, unknown_logprob=-0.1)
    total = Score.total(itertools.repeat(one, n))
    assert total.logprob == total.unknown_logprob == math.fsum(itertools.repeat(-0.1, n))
    assert total.n_scored == n
    tiny, huge = [score_of(-1.0)] * 1000, [score_of(-1e17)]
    assert Score.total([*huge, *tiny]).logprob == -(1e17 + 1000)
    assert Score.total([score_of(-0.3), *huge, score_of(1e17)]).logprob == -0.3


def test_target_logprobs_are_those_of_log_softmax():
    logits = np.random.default_rng(0).normal(0, 30, (3, 4, 7)).astype(np.float32)
    targets = np.random.default_rng(1).integers(7, size=(3, 4))
    found = target_logprobs(logits, targets)
    assert found.dtype == np.float64
    expected = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


# unknown characters


def test_unknown_characters_are_charged_and_reported_apart():
    found = score_pieces(scorer(), ["a?bé?"])
    parts = naive("a?bé?")
    assert found.n_unknown == 3
    assert found.unknown == (Unknown("?", 1, 2), Unknown("é", 3))
    assert found.unknown_logprob == pytest.approx(parts[1] + parts[3] + parts[4], abs=1e-9)
    known = found.known
    assert (known.n_chars, known.n_scored, known.n_bytes, known.n_unknown) == (2, 2, 2, 0)
    assert known.logprob == pytest.approx(parts[0] + parts[2], abs=1e-9)
    assert known.bits_per_char == pytest.approx(-(parts[0] + parts[2]) / 2 / math.log(2))


@given(texts)
def test_skipping_is_scoring_the_rest(text):
    found = score_pieces(scorer(on_unknown="skip", eos=True), [text])
    rest = "".join(c for c in text if c in VOCABULARY.characters)
    alone = score_pieces(scorer(eos=True), [rest])
    assert found.logprob == alone.logprob
    assert (found.n_chars, found.n_bytes) == (len(rest), len(rest))
    assert found.n_skipped == len(text) - len(rest)
    assert [u.character for u in found.unknown] == list(dict.fromkeys(c for c in text if c in "?é"))


def test_refused_characters_are_named_where_they_stand():
    rules = scorer(on_unknown="error")
    far = "a" * (CHUNK + 7) + "é"
    with pytest.raises(UnknownCharacterError, match=rf"'é' \(U\+00E9\) at position {CHUNK + 8:,};"):
        score_pieces(rules, [far])
    with pytest.raises(UnknownCharacterError, match=r"text 2 has .*U\+003F"):
        list(score_many(rules, ["abc", "d?"]))
    with pytest.raises(UnknownCharacterError, match=r"the context has .*U\+003F"):
        scorer(on_unknown="error", context="?")
    with pytest.raises(UnknownCharacterError, match=rf"the context has .*position {CHUNK + 3:,};"):
        scorer(on_unknown="error", context="a" * (CHUNK + 2) + "?")
    with pytest.raises(ConfigError, match=r"^on_unknown must be one of unk, skip, error"):
        scorer(on_unknown="ignore")
    assert score_pieces(rules, ["abc"]).n_unknown == 0


def test_positions_and_blocks_of_a_long_text():
    text = "a" * CHUNK + "b?"
    blocks = list(score_blocks(scorer(eos=True), [text]))
    assert [block.n_scored for block in blocks] == [CHUNK, 2, 1]
    assert blocks[1].unknown == (Unknown("?", CHUNK + 1),)
    same(Score.total(blocks), score_pieces(scorer(eos=True), [text]))


def test_lone_surrogates_and_nuls_have_a_score():
    found = score_pieces(scorer(), ["a\0\udce9b"])
    assert found.n_unknown == 2
    assert [u.character for u in found.unknown] == ["\0", "\udce9"]


def test_a_byte_model_counts_characters_and_bytes():
    vocabulary = ByteVocabulary()
    config = reference.make_config("gru", vocab_size=len(vocabulary), hidden=4)
    weights = reference.random_weights(config)
    rules = Scorer(Engine(config, weights, np.float64), vocabulary, eos=True)
    text = "né中\n"
    (one,) = score_many(rules, [text])
    same(one, score_pieces(rules, [text]))
    assert (one.n_chars, one.n_bytes, one.n_scored, one.n_unknown) == (4, 7, 5, 0)
    ids = [*vocabulary.encode(text).tolist(), EOS_ID]
    rows = reference.logprobs(reference.run(config, weights, [EOS_ID, *ids][:-1])[0])
    expected = math.fsum(row[i] for row, i in zip(rows, ids, strict=True))
    assert one.logprob == pytest.approx(expected, abs=1e-9)


def test_normalised_as_in_training():
    decomposed = "e\N{COMBINING ACUTE ACCENT}"
    config = reference.make_config("gru", vocab_size=4)
    engine = Engine(config, reference.random_weights(config), np.float64)
    rules = Scorer(engine, Vocabulary("eé"), normalize="nfc")
    (batch,) = score_many(rules, [decomposed])
    for found in (batch, score_pieces(rules, list(decomposed))):
        assert (found.n_chars, found.n_unknown) == (1, 0)
        assert found.logprob == pytest.approx(score_pieces(rules, ["é"]).logprob)


def test_memory_does_not_grow_with_the_text():
    def peak(n_pieces):
        tracemalloc.start()
        try:
            score_pieces(scorer(eos=True), ("abcde\n ?" * 64 for _ in range(n_pieces)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)
    assert peak(200) < 1.2 * peak(20)


def test_many_texts_are_not_all_read_before_the_first_is_scored():
    asked = []

    def endless():
        for number in itertools.count():
            asked.append(number)
            yield "ab"

    first = next(score_many(scorer(), endless()))
    assert first.n_chars == 2
    assert len(asked) < 100_000


def test_the_context_is_read_once_and_left_alone():
    rules = scorer(context="abc")
    before = [layer.h.copy() for layer in rules.beginning.state.layers]
    one = score_pieces(rules, ["de"])
    list(score_many(rules, ["a", "bb"]))
    assert score_pieces(rules, ["de"]) == one
    for layer, h in zip(rules.beginning.state.layers, before, strict=True):
        np.testing.assert_array_equal(layer.h, h)


@pytest.mark.parametrize("bias", [np.inf, -np.inf, np.nan])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_logits_that_are_not_finite_are_refused(bias):
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    weights["output.bias"][2:] = bias
    rules = Scorer(Engine(CONFIG, weights), VOCABULARY, eos=True)
    for score in (
        lambda: score_pieces(rules, ["abc"]),
        lambda: score_pieces(rules, [""]),
        lambda: list(score_many(rules, ["abc", "a"])),
        lambda: score_in_rows(rules, ["abc" * 9], rows=3, warmup=2),
        lambda: list(char_scores(rules, ["abc"], alternatives=2)),
    ):
        with pytest.raises(ModelFileError, match="its logits overflow"):
            score()


@pytest.mark.parametrize("size", [1e30, 3e38])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_largest_logits_give_finite_scores(size):
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    weights["output.bias"][2:5] = size
    weights["output.bias"][5:] = -size
    rules = Scorer(Engine(CONFIG, weights), VOCABULARY, eos=True)
    for one in (*score_many(rules, ["abcde", "?", ""]), score_pieces(rules, ["abcde"])):
        assert math.isfinite(one.logprob)
        assert math.isfinite(one.known.logprob)
    assert score_in_rows(rules, ["abc" * 9], rows=3, warmup=2).score.logprob <= 0
    assert all(math.isfinite(one.bits) for one in char_scores(rules, ["abcde"], alternatives=3))


def test_nothing_is_scored_as_nothing():
    rules, ends = scorer(), scorer(eos=True)
    assert list(score_many(rules, [])) == []
    for one in (*score_many(rules, ["", ""]), score_pieces(rules, []), score_pieces(rules, [""])):
        assert (one.logprob, one.n_scored, one.n_bytes) == (0.0, 0, 0)
        assert math.isnan(one.bits_per_char)
    for one in (*score_many(ends, [""]), score_pieces(ends, [])):
        assert one.n_scored == 1
        assert one.logprob < 0
    assert score_in_rows(rules, [], rows=3, warmup=2).score.logprob == 0.0
    assert list(char_scores(rules, [""])) == []
