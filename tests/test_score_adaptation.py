"""Dynamic evaluation: learns from what it has scored, and from nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch

from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, ModelFileError
from charrnn.scoring.adaptation import AdaptationConfig, Adapter
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import CHUNK, Scorer, score_pieces
from charrnn.storage.merge import merge_models, split_weights
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import Vocabulary

VOCABULARY = Vocabulary("abcdefgh ")


@pytest.fixture(scope="module", params=["lstm", "gru"])
def saved(request):
    config = reference.make_config(
        request.param, layers=2, embedding=4, vocab_size=len(VOCABULARY), hidden=16
    )
    weights = reference.random_weights(config, scale=0.3)
    return SavedModel(
        config=config,
        vocabulary=VOCABULARY,
        weights={name: array.astype(np.float32) for name, array in weights.items()},
        training={},
    )


def scorer(saved, **rules):
    return Scorer(Engine(saved.config, saved.weights), saved.vocabulary, **rules)


def totals(adapter, text):
    blocks = list(adapter.score([text]))
    return Score.total(a for a, _ in blocks), Score.total(b for _, b in blocks)


def test_a_repeated_pattern_is_learned_and_the_model_is_not_changed(saved):
    before = {name: array.copy() for name, array in saved.weights.items()}
    rules = scorer(saved, eos=True)
    static, adapted = totals(Adapter(saved, rules), "a bad cabbage ade " * 200)
    assert adapted.logprob > static.logprob + 300
    assert (adapted.n_scored, adapted.n_chars) == (static.n_scored, static.n_chars)
    expected = score_pieces(rules, ["a bad cabbage ade " * 200])
    assert static.logprob == pytest.approx(expected.logprob, abs=1e-9)
    for name, array in saved.weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_what_comes_later_has_no_influence(saved):
    """A block has the same score whatever follows, and the first window is not yet adapted."""
    rules, block = scorer(saved), "a bad cabbage ade fed " * 50
    followed = [next(Adapter(saved, rules).score([block[:CHUNK] + c * 99])) for c in "ah"]
    assert followed[0] == followed[1]
    window = block[: AdaptationConfig().window]
    ((static, adapted),) = Adapter(saved, rules).score([window])
    assert adapted.logprob == pytest.approx(static.logprob, abs=1e-4)


def test_without_a_step_it_is_the_static_model(saved):
    """Also after a context, with unknown characters, and with the end."""
    rules = scorer(saved, context="abc", eos=True)
    adapter = Adapter(saved, rules, AdaptationConfig(step=1e-30))
    static, adapted = totals(adapter, "bad? cabbage" * 9)
    assert adapted.logprob == pytest.approx(static.logprob, abs=1e-4)
    assert adapted.unknown_logprob == pytest.approx(static.unknown_logprob, abs=1e-4)
    assert adapted.n_unknown == static.n_unknown == 9


def test_learning_continues_from_text_to_text(saved):
    adapter = Adapter(saved, scorer(saved))
    first, second = (totals(adapter, "fed a cab " * 40)[1] for _ in range(2))
    assert second.logprob > first.logprob


def test_one_update_is_the_formula(saved):
    """θ - step g/√v and back by the decay, with v = g² after one window: a step of ±step."""
    config = AdaptationConfig(step=1e-3, decay=0.25, window=8)
    adapter = Adapter(saved, scorer(saved), config)
    list(adapter.score(["abcdefgh"]))
    (member,) = adapter._members
    for (name, weight), trained in zip(
        adapter._network.members[0].named_parameters(), member.trained, strict=True
    ):
        speed = 1.0 if name.startswith("layers.") else 4.0
        moved = (weight.detach() - trained).abs()
        moved = moved[moved > 0]
        assert len(moved)
        torch.testing.assert_close(
            moved.median(), torch.tensor(speed * 1e-3 * 0.75), rtol=2e-2, atol=1e-6
        )


def test_an_ensemble_of_copies_follows_the_text_as_one_does_alone(saved):
    """No member learns faster or slower for the others."""
    merged = merge_models([saved] * 3)
    text = "a bad cabbage ade, fed a cab " * 30
    alone, together = (Adapter(model, scorer(model)) for model in (saved, merged))
    static, adapted = totals(alone, text)
    assert adapted.logprob > static.logprob + 20
    assert totals(together, text)[1].logprob == pytest.approx(adapted.logprob, rel=1e-3)
    moved = alone._network.export_weights()
    for part in split_weights(merged.config, together._network.export_weights()):
        for name, array in part.items():
            np.testing.assert_allclose(array, moved[name], atol=2e-3, err_msg=name)


def test_different_members_begin_each_in_a_state_of_its_own(saved):
    """After a context; nothing is learned, so that the two scores are of the same weights."""
    weights = [reference.random_weights(saved.config, scale=0.5, seed=k) for k in range(3)]
    merged = merge_models([replace(saved, weights=one) for one in weights])
    rules = scorer(merged, context="a bad cab ")
    static, adapted = totals(Adapter(merged, rules, AdaptationConfig(step=1e-12)), "fed a cab")
    assert adapted.logprob == pytest.approx(static.logprob, rel=1e-5)


def test_empty_texts(saved):
    assert list(Adapter(saved, scorer(saved)).score([])) == []
    ((static, adapted),) = Adapter(saved, scorer(saved, eos=True)).score([""])
    assert static.n_scored == adapted.n_scored == 1
    assert adapted.logprob == pytest.approx(static.logprob, abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 0), ("step", math.nan), ("step", 1e6), ("step", True), ("decay", -0.1),
        ("decay", 2), ("window", 0), ("window", 2.5), ("window", 10**12),
    ],
)  # fmt: skip
def test_settings_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"^{field} must be .*, got ") as caught:
        AdaptationConfig(**{field: value})
    assert caught.value.field == field


def test_a_model_that_learns_until_it_overflows_says_so(saved):
    adapter = Adapter(saved, scorer(saved), AdaptationConfig(step=100))
    for member in adapter._members:
        member.steps = [1e38 for _ in member.steps]
    with pytest.raises(ModelFileError, match="numbers overflowed: score it without"):
        totals(adapter, "a bad cabbage " * 50)
