"""Several networks trained side by side as one ensemble: the mean of their logits."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import reference
import texts
import torch

from charrnn import api, events
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError
from charrnn.models.network import CharNetwork, Ensemble
from charrnn.storage.model_file import load_model
from charrnn.training import learner as learner_module
from charrnn.training.prepare import prepare_resume

SETTINGS = {"members": 3, "steps": 60, "hidden_size": 10, "embedding_size": 4}


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("members", [1, 3])
def test_what_is_evaluated_is_what_is_saved(cell, members):
    """Also in the second window, which begins with the state of the first."""
    config = reference.make_config(cell, layers=2, embedding=3, hidden=6, members=members)
    one = replace(config, members=1)
    ensemble = Ensemble([CharNetwork(one) for _ in range(members)]).eval()
    assert ensemble.config == config
    weights = ensemble.export_weights()
    assert {name: array.shape for name, array in weights.items()} == config.weight_shapes()
    engine = Engine(config, weights)
    ids = torch.randint(7, (4, 11))
    state, saved = ensemble.initial_state(4), engine.initial_state(4)
    own = [member.initial_state(4) for member in ensemble.members]
    with torch.no_grad():
        for _ in range(2):
            logits, state = ensemble(ids, state)
            parts = [m(ids, s) for m, s in zip(ensemble.members, own, strict=True)]
            own = [s for _, s in parts]
            torch.testing.assert_close(logits, torch.stack([part for part, _ in parts]).mean(0))
            expected = engine.run(ids.numpy(), saved)
            np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-5)
    if members > 1:
        assert (parts[0][0] - parts[1][0]).abs().max() > 0.01


def losses(found):
    return {e.step: e.val_loss for e in found if isinstance(e, events.Evaluated)}


def test_each_member_learns_as_it_would_alone(prepare):
    """The first member has the seed's first weights, and reads the windows a single one reads."""
    text = texts.english(3000)
    trainer, alone = prepare(text, **SETTINGS), prepare(text, **SETTINGS | {"members": 1})
    list(trainer.run())
    list(alone.run())
    first = trainer._learner.network.members[0].export_weights()
    for name, array in alone._learner.network.export_weights().items():
        np.testing.assert_allclose(first[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_model_saved_is_the_one_evaluated_and_better_than_its_members_are_on_average(prepare):
    trainer = prepare(texts.english(6000), **SETTINGS | {"steps": 150, "learning_rate": 0.02})
    *_, finished = trainer.run()
    saved = load_model(trainer.run_directory.model)
    assert (saved.config.hidden_size, saved.config.members) == (10, 3)
    model = api.load(trainer.run_directory.model)
    text = model.saved.vocabulary.decode(trainer.corpus.val_ids.tolist())
    assert finished.val_loss == pytest.approx(-model.score(text).logprob / len(text), rel=1e-4)
    learner = trainer._learner
    alone = []
    for member in learner.network.members:
        learner.network = Ensemble([member])
        alone.append(learner.measure(validation=True, temperature=None).loss)
    assert finished.val_loss < np.mean(alone) - 0.01
    assert len(set(alone)) == 3


def test_a_stopped_run_continues_as_if_it_had_not_stopped(prepare):
    text, options = texts.english(4000), SETTINGS | {"recurrent_dropout": 0.2, "dropout": 0.2}
    whole = prepare(text, **options)
    expected = list(whole.run())
    stopped = prepare(text, **options)  # seeds torch
    first = []
    for event in stopped.run():
        first.append(event)
        stopped.stop_requested = len(losses(first)) == 2
    assert first[-1].reason == "interrupted"
    resumed = prepare_resume([], out=stopped.run_directory.path)
    rest = list(resumed.run())
    assert rest[0].resumed_at == first[-1].step < 60
    assert {**losses(first), **losses(rest)} == losses(expected)
    one, other = (load_model(t.run_directory.model).weights for t in (whole, resumed))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_side_by_side_is_as_one_after_the_other(prepare, monkeypatch):
    """Each member has random numbers of its own, so it does not matter who comes first."""
    text, options = texts.english(4000), SETTINGS | {"recurrent_dropout": 0.2, "dropout": 0.2}
    places = []

    def window_loss(*arguments):
        places.append(threading.current_thread().name)
        return measured(*arguments)

    measured = learner_module.window_loss
    monkeypatch.setattr(learner_module, "window_loss", window_loss)
    weights = []
    for threads, expected in ((1, {"MainThread"}), (2, {"member_0", "member_1"})):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        places.clear()
        trainer = prepare(text, **options)
        list(trainer.run())
        assert set(places) == expected
        weights.append(load_model(trainer.run_directory.model).weights)
    for name, array in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], array, err_msg=name)


@pytest.mark.parametrize("n", [1, 3])
def test_a_model_to_begin_from_keeps_its_members(prepare, n):
    first = prepare(texts.english(3000), **SETTINGS | {"members": n})
    list(first.run())
    path, open_shape = first.run_directory.model, {"hidden_size": None, "embedding_size": None}
    with pytest.raises(ConfigError, match=f"members must be {n}, as in the model to begin from"):
        prepare("abc" * 1000, init=path, members=2, steps=5, **open_shape)
    second = prepare(texts.english(3000) + "äöü" * 400, init=path, time_s=36_000.0, **open_shape)
    assert (second.model.members, second.model.hidden_size) == (n, 10)
    before, now = load_model(path), second._learner.network
    ids = [second.corpus.vocabulary.encode(c)[0] for c in before.vocabulary.characters]
    weights = now.export_weights()
    np.testing.assert_allclose(
        weights["output.weight"][..., ids, :], before.weights["output.weight"][..., 2:, :]
    )
    np.testing.assert_array_equal(
        weights["layers.0.weight_hh"], before.weights["layers.0.weight_hh"]
    )


def test_on_the_command_line(charrnn, tmp_path):
    (tmp_path / "t.txt").write_text(texts.english(3000), encoding="utf-8")
    options = ("--steps", 4, "--hidden", 8, "--embedding", 4)
    trained = charrnn("train", "t.txt", "--members", 2, *options)
    assert trained.code == 0, trained.err
    assert "2 ensemble members, each LSTM 1 × 8, embedding 4" in trained.err
    shown = charrnn("info").out
    assert "2 ensemble members, each LSTM 1 × 8, embedding 4" in shown
    assert charrnn("sample", "-n", 20).code == 0
    refused = charrnn("train", "t.txt", "--members", 0, *options)
    refused.assert_one_error(2, "--members must be at least 1")
