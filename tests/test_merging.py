"""Merged models: an ensemble of all their members, whose logits are the mean."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import reference

from charrnn import api
from charrnn.config import ModelConfig, TextConfig
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, RunError
from charrnn.scoring.scorer import Scorer, score_pieces
from charrnn.storage.merge import merge_models, require_different, split_weights, stack_weights
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
def test_logits_are_the_mean_of_the_models(cell, embedding):
    models = [model_of(seed, cell, embedding=embedding) for seed in range(3)]
    merged = merge_models(models)
    assert merged.config.members == 3
    assert merged.config.hidden_size == 5
    expected = np.mean([logits(model) for model in models], axis=0)
    np.testing.assert_allclose(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - logits(models[0])).max() > 0.1


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("members", [2, 3])
def test_scores_agree_with_the_equations(cell, layers, members):
    """1e-4 nats per 1,000 characters, float32 throughout against float64."""
    merged = merge_models([model_of(seed, cell, layers=layers) for seed in range(members)])
    text = "".join(np.random.default_rng(layers).choice(list("abcd ,"), size=1000))
    found = score_pieces(Scorer(Engine(merged.config, merged.weights), merged.vocabulary), [text])
    weights = {name: array.astype(np.float64) for name, array in merged.weights.items()}
    ids = [EOS_ID, *merged.vocabulary.encode(text)]
    mean, _ = reference.run_ensemble(merged.config, weights, ids[:-1])
    rows = zip(reference.logprobs(mean), ids[1:], strict=True)
    assert found.logprob == pytest.approx(math.fsum(row[i] for row, i in rows), rel=0, abs=1e-4)


def test_members_come_apart_again():
    models = [model_of(seed) for seed in range(3)]
    merged = merge_models([merge_models(models[:2]), models[2]])
    assert merged.config.members == 3
    parts = split_weights(merged.config, merged.weights)
    for model, part in zip(models, parts, strict=True):
        assert part.keys() == model.weights.keys()
        for name, array in part.items():
            np.testing.assert_array_equal(array, model.weights[name])
    (alone,) = split_weights(models[0].config, models[0].weights)
    assert {n: a.shape for n, a in stack_weights([alone]).items()} == (
        models[0].config.weight_shapes()
    )


def test_a_file_is_as_large_as_its_members_together(tmp_path):
    """Four networks of 512 units take about 20 MB."""
    config = ModelConfig(vocab_size=67, hidden_size=512, embedding_size=32, members=4)
    assert 17e6 < 4 * config.num_parameters() < 22e6
    small = merge_models([model_of(seed) for seed in range(4)])
    save_model(tmp_path / "four", small)
    assert 0 <= (tmp_path / "four").stat().st_size - 4 * small.config.num_parameters() < 5000
    assert load_model(tmp_path / "four").config == small.config


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
def test_many_samples_of_several_networks(several_networks, options, charrnn):
    result = charrnn("sample", "-m", several_networks, "--seed", "1", *options)
    assert result.code == 0, result.err
    assert result.out


def test_samples_of_several_networks_do_not_depend_on_the_batch(several_networks):
    model = api.load(several_networks)
    many = model.sample(num=20, seed=5, length=12)
    assert {sample.stop_reason for sample in many} == {"eos", "length"}
    for index, sample in enumerate(many):
        assert model.stream(seed=5, length=12, index=index).sample() == sample


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"cell": "gru"}, r"differ in cell \(lstm and gru\)"),
        ({"layers": 1}, r"differ in layers \(2 and 1\)"),
        ({"hidden": 6}, r"differ in hidden size \(5 and 6\)"),
        ({"embedding": 4}, r"differ in embedding size \(3 and 4\)"),
        ({"embedding": 0}, r"differ in embedding size \(3 and one-hot\)"),
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


def test_there_are_at_most_64_members():
    half = merge_models([model_of(seed, layers=1, hidden=2) for seed in range(32)])
    assert merge_models([half, half]).config.members == 64
    with pytest.raises(ConfigError, match="at most 64 members, and these models have 65"):
        merge_models([half, half, model_of(0, layers=1, hidden=2)])


def test_a_network_is_not_merged_with_itself():
    models = [model_of(seed) for seed in range(3)]
    require_different(models)
    pair = merge_models(models[:2])
    require_different([pair, models[2]])
    for together, message in (
        ([models[0], models[1], models[0]], "models 1 and 3 have the same weights"),
        ([pair, models[2], models[1]], "models 1 and 3 have the same weights"),
        ([models[2], merge_models([models[0]] * 2)], "two members of model 2 have the same"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_different(together)
    require_different([models[0], model_of(0, alphabet="ABCD ,")])


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two models in the files `0` and `1` of the working directory, otherwise empty."""
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


def test_the_command_saves_a_model_that_is_found_and_shown(parts, charrnn):
    result = charrnn("merge", "0", "1")
    assert result.code == 0, result.err
    assert result.out == ""
    assert result.err.startswith("2 ensemble members, each LSTM 2 × 5, embedding 3; ")
    assert "runs/merged/model.safetensors" in result.err.replace("\\", "/")
    assert f"charrnn score -m {Path('runs', 'merged')} --file" in result.err
    assert "different documents" not in result.err
    merged = load_model(parts / "runs" / "merged" / "model.safetensors")
    assert merged.config.members == 2
    assert [part["step"] for part in merged.training["merged"]] == [10, 11]
    assert merged.training["corpus"]["name"] == "t"
    shown = charrnn("info").out
    for words in ("2 models", "seed 1, step 11", "t, 9 characters"):
        assert words in shown
    scored = charrnn("score", "abc", "--format", "jsonl")
    assert scored.code == 0, scored.err
    record = json.loads(scored.out.splitlines()[0])
    assert record["logprob"] == pytest.approx(api.load("runs/merged").score("abc").logprob)


def test_documents_that_some_have_read_are_told_and_the_texts_listed(parts, charrnn):
    for seed in range(2):
        training = {
            "corpus": {"name": "t", "sha256": "0" * 64, "n_train": seed},
            "config": {"seed": seed},
        }
        text = TextConfig(documents="line")
        save_model(parts / str(seed), model_of(seed, training=training, text=text))
    result = charrnn("merge", "0", "1")
    assert result.code == 0, result.err
    assert "different seeds hold out different documents" in result.err
    assert "--held-out" in charrnn("merge", "--help", COLUMNS="200").out
    for output in ("tsv", "jsonl", "table"):
        assert re.search(r"merged\W+(text)?\W*t\b", charrnn("list", "--format", output).out)
    table = charrnn("list", "--format", "table", COLUMNS="20").out.splitlines()
    assert table[1].startswith(str(Path("runs", "merged")))
    assert all(line == line.rstrip() for line in table)


def test_a_merged_model_is_merged_again(parts, charrnn):
    record = load_model(parts / "0").training
    save_model(parts / "2", model_of(2, training=record))
    api.merge(["0", "1"], out="both")
    result = charrnn("merge", "both", "2", "--out", "all")
    assert result.code == 0, result.err
    assert result.err.startswith("3 ensemble members")
    shown = charrnn("info", "-m", "all").out
    assert "one that was itself merged from 2 models" in shown
    assert "seed 0, step 10" in shown


def test_the_same_weights_for_other_characters_are_not_the_same_model(parts):
    save_model(parts / "2", model_of(0, alphabet="ABCD ,"))
    with pytest.raises(ConfigError, match="alphabets differ"):
        api.merge(["0", "2"])


def test_nothing_is_written_over_and_bad_input_leaves_nothing(parts, charrnn):
    merged = api.merge(["0", "1"], out="both")
    before = merged.path.read_bytes()
    with pytest.raises(RunError, match="already holds a run"):
        api.merge(["1", "0"], out="both")
    assert merged.path.read_bytes() == before
    for arguments, code, message in (
        (["0"], 2, "two models or more"),
        (["0", "nowhere"], 1, "no model at nowhere"),
        (["0", "1", "0"], 2, "models 1 and 3 have the same weights"),
        (["0", "both"], 2, "models 1 and 2 have the same weights"),
        (["0", "1", "--out", ""], 2, "empty"),
        (["0", "1", "--out", "a", "--name", "b"], 2, "give one"),
        ([], 2, "MODEL"),
    ):
        result = charrnn("merge", *arguments)
        assert result.code == code, result.err
        assert message in result.err
    assert sorted(p.name for p in parts.iterdir()) == ["0", "1", "both"]
