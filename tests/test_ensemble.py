"""Several networks trained side by side, and saved as one model: the mean of their logits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import reference
import texts
import torch

from charrnn import api, events
from charrnn.cli.app import _run
from charrnn.config import ModelConfig
from charrnn.errors import ConfigError
from charrnn.models.ensemble import Ensemble
from charrnn.models.network import CharNetwork
from charrnn.storage.merge import merge_configs, merge_weights, part_configs, split_weights
from charrnn.storage.model_file import load_model
from charrnn.training import learner as learner_module

SETTINGS = {"members": 3, "steps": 60, "hidden_size": 10, "embedding_size": 4}


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_merged_weights_come_apart_again(cell, embedding, layers):
    """Parts of different widths; their shapes are found in the weights."""
    configs = [
        reference.make_config(
            cell, layers=layers, embedding=embedding and embedding + k, vocab_size=7, hidden=5 + k
        )
        for k in range(3)
    ]
    parts = [reference.random_weights(config, seed=k) for k, config in enumerate(configs)]
    whole = merge_configs(configs)
    merged = merge_weights(whole, parts)
    assert part_configs(whole, merged) == configs
    assert part_configs(configs[0], parts[0]) == configs[:1]
    bias = np.mean([part["output.bias"] for part in parts], axis=0)
    for part, again in zip(parts, split_weights(configs, merged), strict=True):
        assert set(again) == set(part)
        for name, array in part.items():
            expected = bias if name == "output.bias" else array
            np.testing.assert_allclose(again[name], expected, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("layers.0.weight_ih", 0, 5),
        ("layers.0.weight_hh", 0, 9),
        ("layers.1.weight_ih", 9, 0),
        ("layers.1.weight_hh", 9, 0),
    ],
)
def test_one_weight_between_them_makes_them_one_model(name, row, column):
    config = reference.make_config("lstm", layers=2, embedding=3, vocab_size=7, hidden=5)
    whole = merge_configs([config, config])
    merged = merge_weights(whole, [reference.random_weights(config, seed=k) for k in range(2)])
    assert part_configs(whole, merged) == [config, config]
    assert merged[name][row, column] == 0
    merged[name][row, column] = 0.1
    assert part_configs(whole, merged) == [whole]


def test_units_that_only_follow_themselves_are_not_models():
    config = reference.make_config("rnn-relu", layers=1, embedding=0, vocab_size=7, hidden=5)
    weights = reference.random_weights(config, seed=1) | {"layers.0.weight_hh": np.eye(5)}
    assert part_configs(config, weights) == [config]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_together_they_are_the_mean_and_what_is_saved_is_the_same(cell):
    config = ModelConfig(vocab_size=9, cell=cell, hidden_size=6, num_layers=2, embedding_size=3)
    members = [CharNetwork(config).eval() for _ in range(3)]
    ensemble = Ensemble(members)
    merged = CharNetwork(ensemble.config).eval()
    merged.import_weights(ensemble.export_weights())
    ids = torch.randint(9, (4, 11))
    state, own = ensemble.initial_state(4), [m.initial_state(4) for m in members]
    whole = merged.initial_state(4)
    with torch.no_grad():
        for _ in range(2):  # the second window begins with the state of the first
            logits, state = ensemble(ids, state)
            parts = [m(ids, s) for m, s in zip(members, own, strict=True)]
            own = [s for _, s in parts]
            expected, whole = merged(ids, whole)
            mean = torch.stack([part for part, _ in parts]).mean(0)
            torch.testing.assert_close(logits, mean)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert (parts[0][0] - parts[1][0]).abs().max() > 0.01


def losses(found):
    return {e.step: e.val_loss for e in found if isinstance(e, events.Evaluated)}


def test_each_member_learns_as_it_would_alone(prepare):
    """The first member has the seed's first weights, and reads the windows a single one reads."""
    text = texts.english(3000)
    trainer, alone = prepare(text, **SETTINGS), prepare(text, **SETTINGS | {"members": 1})
    list(trainer.run())
    list(alone.run())
    first = trainer._learner.members[0].export_weights()
    for name, array in alone._learner.network.export_weights().items():
        np.testing.assert_allclose(first[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_model_saved_is_the_one_evaluated_and_better_than_its_members_are_on_average(prepare):
    trainer = prepare(texts.english(6000), **SETTINGS | {"steps": 150, "learning_rate": 0.02})
    *_, finished = trainer.run()
    saved = load_model(trainer.run_directory.model)
    assert saved.config.hidden_size == 30
    assert saved.training["config"]["members"] == 3
    model = api.load(trainer.run_directory.model)
    text = model.saved.vocabulary.decode(trainer.corpus.val_ids.tolist())
    assert finished.val_loss == pytest.approx(-model.score(text).logprob / len(text), rel=1e-4)
    learner = trainer._learner
    alone = []
    for member in learner.members:
        learner.network = member
        alone.append(learner.measure(validation=True, logit_scale=None).loss)
    assert finished.val_loss < np.mean(alone) - 0.01
    assert len(set(alone)) == 3


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(prepare):
    text, options = texts.english(4000), SETTINGS | {"recurrent_dropout": 0.2, "dropout": 0.2}
    whole = prepare(text, **options)
    expected = list(whole.run())
    stopped = prepare(text, **options)  # seeds torch
    first = []
    for event in stopped.run():
        first.append(event)
        stopped.stop_requested = len(losses(first)) == 2
    assert first[-1].reason == "interrupted"
    resumed = api.prepare_resume([], out=stopped.run_directory.path)
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
    with pytest.raises(ConfigError, match=f"has members {n}, not 2"):
        prepare("abc" * 1000, init=path, members=2, steps=5, **open_shape)
    second = prepare(texts.english(3000) + "äöü" * 400, init=path, time_s=36_000.0, **open_shape)
    assert (second.training.members, second.model.hidden_size) == (n, 10)
    before, now = load_model(path), second._learner.network
    ids = [second.corpus.vocabulary.encode(c)[0] for c in before.vocabulary.characters]
    weights = now.export_weights()
    np.testing.assert_allclose(weights["output.weight"][ids], before.weights["output.weight"][2:])
    np.testing.assert_array_equal(
        weights["layers.0.weight_hh"], before.weights["layers.0.weight_hh"]
    )


def test_parts_that_are_not_alike_go_on_as_one_network(prepare, tmp_path):
    text, models = texts.english(3000), []
    for hidden in (10, 12):
        trainer = prepare(text, steps=3, hidden_size=hidden, embedding_size=4)
        list(trainer.run())
        models.append(trainer.run_directory.model)
    merged = api.merge(models, out=tmp_path / "merged").path
    second = prepare(text, init=merged, steps=3, hidden_size=None, embedding_size=None)
    assert (second.training.members, second.model.hidden_size) == (1, 22)


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text(texts.english(3000), encoding="utf-8")

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["charrnn", *map(str, arguments)])
        return _run()

    options = ("--steps", 4, "--hidden", 8, "--embedding", 4)
    assert command("train", "t.txt", "--members", 2, *options) == 0
    assert capsys.readouterr().err.startswith("2 networks, each LSTM 1 × 8, embedding 4 · ")
    assert command("info") == 0
    shown = capsys.readouterr().out
    assert "2 networks, each LSTM 1 × 8, embedding 4" in shown
    assert "parameters" in shown
    assert command("sample", "-n", 20) == 0
    assert command("train", "t.txt", "--members", 0, *options) == 2
    assert "members must be at least 1" in capsys.readouterr().err
