"""Merged models: the logits of one are the mean of the logits of all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference

import charrnn
from charrnn.cli.app import _run
from charrnn.config import TextConfig
from charrnn.engine.matrix import BlockMatrix, Matrix, recurrent_matrix
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, RunError
from charrnn.storage.merge import merge_models
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.vocab import BYTES, EOS_ID, ByteVocabulary, Vocabulary

TEXT = "abc cab, bad dab"


def model_of(seed, cell="lstm", layers=2, embedding=3, hidden=5, alphabet="abcd ,", **parts):
    vocabulary = ByteVocabulary() if alphabet == BYTES else Vocabulary(alphabet)
    config = reference.make_config(
        cell, layers=layers, embedding=embedding, vocab_size=len(vocabulary), hidden=hidden
    )
    weights = reference.random_weights(config, seed=seed)
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    training = parts.pop("training", {})
    return SavedModel(
        config=config, vocabulary=vocabulary, weights=weights, training=training, **parts
    )


def logits(model, text=TEXT):
    engine = Engine(model.config, model.weights)
    return engine.run(model.vocabulary.encode(text), engine.initial_state())


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("embedding", [0, 3])
def test_logits_are_the_mean_of_the_parts(cell, embedding):
    """Parts of different widths, three of them, so that no block can be taken for another."""
    models = [
        model_of(seed, cell, embedding=embedding and embedding + seed, hidden=4 + seed)
        for seed in range(3)
    ]
    merged = merge_models(models)
    assert merged.config.hidden_size == 4 + 5 + 6
    assert merged.config.embedding_size == (3 + 4 + 5 if embedding else 0)
    expected = np.mean([logits(model) for model in models], axis=0)
    np.testing.assert_allclose(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - logits(models[0])).max() > 0.1


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_engine_leaves_out_the_zeros(cell, layers, monkeypatch):
    """Step and window, one stream and many, as with the zeros."""
    models = [model_of(seed, cell, layers=layers, hidden=32 + 7 * seed) for seed in range(3)]
    merged = merge_models(models)
    for array in merged.weights.values():  # larger weights would saturate the gates
        array *= 0.2
    for narrowest, kind in ((32, BlockMatrix), (999, Matrix)):
        monkeypatch.setattr("charrnn.engine.matrix.NARROWEST_BLOCK", narrowest)
        engine = Engine(merged.config, merged.weights)
        assert all(isinstance(layer.recurrent, kind) for layer in engine.layers)
        ids = np.array([[2, 3, 4, 5, 6], [6, 5, 4, 3, 2], [2, 2, 3, 3, 1]])
        one, many = engine.initial_state(), engine.initial_state(3)
        stepped = [engine.step(i, one).copy() for i in ids[0]]
        in_batch = [engine.step(column, many).copy() for column in ids.T]
        window = engine.run(ids, engine.initial_state(3))
        outcome = np.array(stepped), np.array(in_batch), window
        if kind is BlockMatrix:
            without = outcome
    for ours, dense in zip(without, outcome, strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=1e-6)


def test_blocks_are_found_where_they_are():
    rng = np.random.default_rng(0)
    square = np.zeros((2, 100, 100), np.float32)
    square[:, :40, :40] = rng.normal(size=(2, 40, 40))
    square[:, 40:, 40:] = rng.normal(size=(2, 60, 60))
    rows = square.reshape(200, 100)
    assert isinstance(recurrent_matrix(rows), BlockMatrix)
    for row, column in ((0, 99), (10, 50), (150, 3), (39, 40), (140, 39)):
        other = rows.copy()
        other[row, column] = 1e-9
        assert isinstance(recurrent_matrix(other), Matrix), "one weight joins them"
    for whole in (np.zeros((64, 64)), np.eye(64), rng.normal(size=(64, 64))):
        assert isinstance(recurrent_matrix(whole), Matrix)


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("embedding", [0, 3])
def test_a_batch_may_become_empty(cell, layers, members, embedding):
    """Blocks of 32 units and more are multiplied apart; a state without rows is a state, too."""
    models = [
        model_of(seed, cell, layers=layers, hidden=32, embedding=embedding)
        for seed in range(members)
    ]
    model = merge_models(models) if members > 1 else models[0]
    engine = Engine(model.config, model.weights)
    state = engine.initial_state(2)
    engine.step(np.array([2, 3]), state)
    empty = engine.copy_state(state, np.array([], dtype=np.intp))
    nothing = np.zeros(0, dtype=np.int64)
    assert engine.step(nothing, empty).shape == (0, model.config.vocab_size)
    window = engine.run(np.zeros((0, 3), dtype=np.int64), empty)
    assert window.shape == (0, 3, model.config.vocab_size)


@pytest.fixture
def several_networks(tmp_path):
    """A model of four networks that ends its texts often, as the default trains for names."""
    models = [model_of(seed, layers=1, hidden=32) for seed in range(4)]
    for model in models:
        for name, array in model.weights.items():
            array *= 0.2
            if name == "output.bias":
                array[EOS_ID] = 0.5
    path = tmp_path / "several.safetensors"
    save_model(path, merge_models(models))
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["--num", "50"],
        ["--num", "3", "--length", "1"],
        ["--temp", "0.5,1.0"],
        ["--num", "7", "--greedy"],
        ["--num", "4", "--format", "jsonl", "--logprobs"],
        ["--num", "4", "--stop", "a", "--no-repeat", "2"],
        ["--num", "4", "--min-length", "5", "--length", "5"],
    ],
)
def test_many_samples_of_several_networks(several_networks, options, monkeypatch, capsys):
    arguments = ["sample", "-m", str(several_networks), "--seed", "1", *options]
    assert command(monkeypatch, *arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_samples_of_several_networks_do_not_depend_on_the_batch(several_networks):
    model = charrnn.load(several_networks)
    many = model.sample(num=20, seed=5, length=12)
    assert {sample.stop_reason for sample in many} == {"eos", "length"}
    for index, sample in enumerate(many):
        assert model.stream(seed=5, length=12, index=index).sample() == sample


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"cell": "gru"}, r"differ in cell \(lstm and gru\)"),
        ({"layers": 1}, r"differ in layers \(2 and 1\)"),
        ({"embedding": 0}, r"differ in embedding \(a vector and one-hot\)"),
        ({"text": TextConfig(documents="line")}, r"differ in documents \(none and line\)"),
        ({"text": TextConfig(normalize="nfc")}, r"differ in normalization \(none and nfc\)"),
        ({"alphabet": "abcd ."}, "alphabets differ"),
        ({"alphabet": BYTES}, r"differ in unit \(char and byte\)"),
    ],
)
def test_models_that_do_not_fit_together(other, reason):
    with pytest.raises(ConfigError, match=f"models 1 and 3 cannot be merged: .*{reason}"):
        merge_models([model_of(0), model_of(1), model_of(2, **other)])
    rnn = model_of(0, "rnn-tanh"), model_of(1, "rnn-relu")
    with pytest.raises(ConfigError, match="nonlinearity"):
        merge_models(rnn)
    with pytest.raises(ConfigError, match="two models or more"):
        merge_models([model_of(0)])


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two models in the files `0` and `1` of an otherwise empty directory."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        training = {
            "corpus": {"name": "t", "sha256": "0" * 64, "n_chars": 9},
            "config": {"seed": seed},
            "step": 10 + seed,
            "val_loss_nats": 1.5,
            "curve": [],
        }
        save_model(tmp_path / str(seed), model_of(seed, training=training))
    return tmp_path


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["charrnn", *arguments])
    return _run()


def test_the_command_saves_a_model_that_is_found_and_shown(parts, monkeypatch, capsys):
    assert command(monkeypatch, "merge", "0", "1") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("2 networks, each LSTM 2 × 5, embedding 3; ")
    assert "runs/merged/model.safetensors" in err.replace("\\", "/")
    assert f"charrnn score -m {Path('runs', 'merged')} --file" in err
    merged = load_model(parts / "runs" / "merged" / "model.safetensors")
    assert [part["step"] for part in merged.training["merged"]] == [10, 11]
    assert merged.training["corpus"]["name"] == "t"
    assert command(monkeypatch, "info") == 0
    shown = capsys.readouterr().out
    for words in ("2 models", "seed 1, step 11", "t, 9 characters"):
        assert words in shown
    assert command(monkeypatch, "score", "abc", "--format", "jsonl") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert record["logprob"] == pytest.approx(charrnn.load("runs/merged").score("abc").logprob)


def test_a_merged_model_is_merged_again(parts, monkeypatch, capsys):
    record = load_model(parts / "0").training
    save_model(parts / "2", model_of(2, training=record))
    charrnn.merge(["0", "1"], out="both")
    assert command(monkeypatch, "merge", "both", "2", "--out", "all") == 0
    capsys.readouterr()
    assert command(monkeypatch, "info", "-m", "all") == 0
    shown = capsys.readouterr().out
    assert "one that was merged from 2 models itself" in shown
    assert "seed 0, step 10" in shown


def test_the_same_weights_for_other_characters_are_not_the_same_model(parts):
    save_model(parts / "2", model_of(0, alphabet="ABCD ,"))
    with pytest.raises(ConfigError, match="alphabets differ"):
        charrnn.merge(["0", "2"])


def test_nothing_is_written_over_and_bad_input_leaves_nothing(parts, monkeypatch, capsys):
    merged = charrnn.merge(["0", "1"], out="both")
    before = merged.path.read_bytes()
    with pytest.raises(RunError, match="already holds a run"):
        charrnn.merge(["1", "0"], out="both")
    assert merged.path.read_bytes() == before
    for arguments, code, message in (
        (["0"], 2, "two models or more"),
        (["0", "nowhere"], 1, "no model at nowhere"),
        (["0", "1", "0"], 2, "models 1 and 3 are the same"),
        (["0", "1", "--out", ""], 2, "empty"),
        (["0", "1", "--out", "a", "--name", "b"], 2, "give one"),
        ([], 2, "MODEL"),
    ):
        assert command(monkeypatch, "merge", *arguments) == code
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in parts.iterdir()) == ["0", "1", "both"]
