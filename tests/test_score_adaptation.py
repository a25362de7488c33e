"""Dynamic evaluation: learns from what it has scored, and from nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch

from charrnn.adaptation import AdaptationConfig, Adapter
from charrnn.engine import Engine
from charrnn.errors import ConfigError
from charrnn.modelfile import SavedModel
from charrnn.network import CharNetwork
from charrnn.scoring import CHUNK, Score, Scorer, score_pieces
from charrnn.vocab import EOS_ID, Vocabulary

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


def test_learning_goes_on_from_text_to_text(saved):
    adapter = Adapter(saved, scorer(saved))
    first, second = (totals(adapter, "fed a cab " * 40)[1] for _ in range(2))
    assert second.logprob > first.logprob


def test_one_update_is_the_formula(saved):
    """θ - step g/√v and back by the decay, with v = g² after one window: a step of ±step."""
    config = AdaptationConfig(step=1e-3, decay=0.25, window=8)
    adapter = Adapter(saved, scorer(saved), config)
    list(adapter.score(["abcdefgh"]))
    for (name, weight), trained in zip(
        adapter._network.named_parameters(), adapter._trained, strict=True
    ):
        speed = 1.0 if name.startswith("layers.") else 4.0
        moved = (weight.detach() - trained).abs()
        moved = moved[moved > 0]
        assert len(moved)
        torch.testing.assert_close(
            moved.median(), torch.tensor(speed * 1e-3 * 0.75), rtol=2e-2, atol=1e-6
        )


def gradients(network, window, state):
    """Gradients of the mean loss of one window of ids, and the state after it."""
    ids = torch.tensor(VOCABULARY.encode(window))
    inputs = torch.cat([torch.tensor([state[1]]), ids[:-1]])
    logits, after = network(inputs[None], state[0])
    loss = torch.nn.functional.cross_entropy(logits[0], ids)
    after = [tuple(part.detach() for part in parts) for parts in after]
    return torch.autograd.grad(loss, list(network.parameters())), (after, int(ids[-1]))


@pytest.mark.parametrize(("replays", "share"), [(1, 0.25), (3, 0.25), (0, 0.0)])
def test_the_window_before_is_read_again(saved, replays, share):
    """The second update is that of both windows, the first of them in its own state again."""
    config = AdaptationConfig(step=1e-2, decay=0, window=8, replays=replays, replay_share=0.25)
    adapter = Adapter(saved, scorer(saved), config)
    list(adapter.score(["abcdefghhgfe bad"]))
    network = CharNetwork(saved.config)
    network.import_weights(saved.weights)
    start = network.initial_state(1), EOS_ID
    first, middle = gradients(network, "abcdefgh", start)
    names = [name for name, _ in network.named_parameters()]
    speeds = [1e-2 * (1.0 if name.startswith("layers.") else 4.0) for name in names]
    with torch.no_grad():
        for weight, g, speed in zip(network.parameters(), first, speeds, strict=True):
            weight -= speed * g / (g.abs() + 1e-8)
    second, _ = gradients(network, "hgfe bad", middle)
    again, _ = gradients(network, "abcdefgh", start)
    with torch.no_grad():
        for weight, g1, g2, g3, speed in zip(
            network.parameters(), first, second, again, speeds, strict=True
        ):
            g = g2 + share * g3
            weight -= speed * g / (((g1**2 + g**2) / 2).sqrt() + 1e-8)
    for ours, theirs in zip(network.parameters(), adapter._network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_old_windows_are_forgotten(saved, monkeypatch):
    monkeypatch.setattr("charrnn.adaptation.MOST_REMEMBERED", 5)
    adapter = Adapter(saved, scorer(saved), AdaptationConfig(window=4))
    list(adapter.score(["abcd" * 50 + "ab"]))
    assert len(adapter._past._windows) == 5
    assert adapter._past.draw(3).inputs_RT.shape == (3, 4)
    assert adapter._past.draw(9).inputs_RT.shape == (5, 4)


def test_empty_texts(saved):
    assert list(Adapter(saved, scorer(saved)).score([])) == []
    ((static, adapted),) = Adapter(saved, scorer(saved, eos=True)).score([""])
    assert static.n_scored == adapted.n_scored == 1
    assert adapted.logprob == pytest.approx(static.logprob, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": 0},
        {"step": math.nan},
        {"decay": -0.1},
        {"decay": 2},
        {"window": 0},
        {"replays": -1},
        {"replay_share": -1},
        {"replay_share": math.nan},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match="adaptation"):
        AdaptationConfig(**wrong)
