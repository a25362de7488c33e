"""The bundled model: the golden file of the format, and the model of first use."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import reference
from test_corpora import shakespeare

from charrnn import api
from charrnn.engine.network import Engine
from charrnn.model import CharModel
from charrnn.storage.model_file import load_model, save_model
from charrnn.storage.runs import BUILTIN_MODEL
from charrnn.training.prepare import FINE_TUNING_RATE
from charrnn.vocab import EOS_ID

TRAIN = ("--hidden", 8, "--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu")
MAX_BYTES = 1_500_000
RECORD_BYTES = 50_000
PROMPT = "MY LORD:\nWhat is it?"


@pytest.fixture(scope="module")
def saved():
    return load_model(BUILTIN_MODEL)


# the golden file


def test_the_bytes_are_those_of_the_format(saved):
    """Read without charrnn and without safetensors, by the description of the format."""
    content = BUILTIN_MODEL.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n_header])
    record = json.loads(header.pop("__metadata__")["charrnn"])
    assert record["format_version"] == 1
    assert set(record) == {"format_version", "model", "vocabulary", "text", "training"}
    assert {name: tuple(a["shape"]) for name, a in header.items()} == saved.config.weight_shapes()
    for name, array in header.items():
        assert array["dtype"] == "F16"
        begin, end = (8 + n_header + offset for offset in array["data_offsets"])
        values = np.frombuffer(content[begin:end], "<f2").reshape(array["shape"])
        np.testing.assert_array_equal(values, saved.weights[name])


def test_the_file_is_small_and_has_weights_but_no_text(saved):
    size = BUILTIN_MODEL.stat().st_size
    assert size <= MAX_BYTES
    assert size - 2 * saved.config.num_parameters() < RECORD_BYTES


def test_the_file_says_how_it_was_made(saved):
    training = saved.training
    assert training["corpus"]["name"] == "shakespeare"
    assert training["corpus"]["sha256"] == shakespeare.TEXT_SHA256
    settings = training["config"]
    assert isinstance(settings["seed"], int)
    assert settings["time_s"] is None  # a time would not give the same training again
    assert (settings["epochs"] is None) != (settings["steps"] is None)
    for name in ("batch_size", "bptt", "optimizer", "learning_rate", "dropout"):
        assert settings[name] is not None
    assert training["step"] > 0
    assert training["val_loss_nats"] > 0


def test_half_precision_costs_next_to_nothing(saved):
    storage = saved.training["storage"]
    assert storage["dtype"] == "float16"
    cost = storage["val_loss_nats_float16"] - storage["val_loss_nats_float32"]
    assert abs(cost) < 1e-3
    assert storage["val_loss_nats_float16"] < 2  # it is a model of English, not of noise


def test_the_alphabet_is_that_of_the_plays(saved):
    characters = saved.vocabulary.characters
    assert len(saved.vocabulary) == saved.config.vocab_size
    assert "".join(characters).isascii()
    letters = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert letters | set("\n ,.;:?!'-") <= set(characters)


def test_writing_it_again_gives_the_same_bytes(saved, tmp_path):
    save_model(tmp_path / "again", saved, dtype="float16")
    assert (tmp_path / "again").read_bytes() == BUILTIN_MODEL.read_bytes()


def test_the_engine_computes_what_the_equations_say(saved):
    ids = [EOS_ID, *saved.vocabulary.encode(PROMPT)]
    engine = Engine(saved.config, saved.weights, dtype=np.float64)
    logits = engine.run(ids, engine.initial_state())
    weights = {name: array.astype(np.float64) for name, array in saved.weights.items()}
    expected, _ = reference.run(saved.config, weights, ids)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)
    fast = Engine(saved.config, saved.weights)
    np.testing.assert_allclose(fast.run(ids, fast.initial_state()), expected, atol=1e-3)


def test_the_file_means_what_it_meant_when_it_was_made(saved):
    """Its record has a sentence and its score; gates or ids that change places would change it."""
    check = saved.training["check"]
    score = CharModel(saved).score(check["text"])
    assert score.n_unknown == 0
    assert score.logprob == pytest.approx(check["logprob"], abs=1e-3)


# first use


@pytest.mark.parametrize(
    "command",
    [("sample", "-n", 20, "--seed", 1), ("score", "To be, or not to be"), ("info",)],
    ids=lambda command: command[0],
)
def test_right_after_installation_everything_works(charrnn, tmp_path, command):
    result = charrnn(*command)
    assert result.code == 0, result.err
    assert "model builtin, bundled with charrnn" in result.err
    assert "charrnn train" in result.err
    assert "builtin, bundled" not in result.out
    assert list(tmp_path.iterdir()) == []


def test_what_it_writes_is_the_product_alone(charrnn, saved):
    result = charrnn("sample", "-n", 20, "--seed", 1)
    assert set(result.out) <= set(saved.vocabulary.characters)
    written = CharModel(saved).sample(length=20, seed=1).text
    assert result.out.rstrip("\n") == written.rstrip("\n")
    rows = charrnn("score", "Good morrow", "worrom dooG").out.splitlines()
    assert [row.split("\t")[1] for row in rows] == ["text", "Good morrow", "worrom dooG"]
    good, bad = (float(row.split("\t")[rows[0].split("\t").index("logprob")]) for row in rows[1:3])
    assert good > bad


def test_python_has_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert api.load().path == api.load("builtin").path == BUILTIN_MODEL


def test_the_first_training_run_takes_over(charrnn, text):
    assert charrnn("train", text, "--steps", 2, "-q", *TRAIN).code == 0
    result = charrnn("sample", "-n", 5, "--seed", 1)
    assert os.path.join("runs", "prose") in result.err
    assert "builtin" not in result.err
    named = charrnn("sample", "-n", 20, "--seed", 1, "-m", "builtin")
    assert named.code == 0
    assert "bundled" not in named.err  # who names a model knows which it is
    shutil.rmtree(text.parent / "runs")
    assert named.out == charrnn("sample", "-n", 20, "--seed", 1).out


@pytest.mark.parametrize("name", ["builtin", "builtin/model.safetensors"])
def test_one_called_builtin_is_reached_by_its_path(charrnn, tiny_model_path, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(tiny_model_path, tmp_path / name)
    assert "LSTM 1" in charrnn("info", "-m", "builtin").out
    assert "GRU 2" in charrnn("info", "-m", "./builtin").out
    compared = charrnn("compare", "./builtin", "builtin", "one", "two")
    assert compared.code == 0, compared.err


def test_fine_tuning_begins_from_it(charrnn, saved, tmp_path):
    (tmp_path / "menu.txt").write_text("crème brûlée, 中文\n" * 40, encoding="utf-8")
    small = ("--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu")
    result = charrnn("train", "menu.txt", "--init", "builtin", "--steps", 2, "-q", *small)
    assert result.code == 0, result.err
    tuned = load_model(tmp_path / "runs" / "menu" / "model.safetensors")
    shape = {**saved.config.to_dict(), "vocab_size": saved.config.vocab_size + 5}
    assert tuned.config.to_dict() == shape
    new = set(tuned.vocabulary.characters) - set(saved.vocabulary.characters)
    assert new == set("èûé中文")
    assert (tuned.vocabulary.unit, tuned.text.normalize) == ("char", "none")
    assert tuned.training["config"]["learning_rate"] == FINE_TUNING_RATE
    kept = tuned.vocabulary.encode("e")[0], saved.vocabulary.encode("e")[0]
    moved = tuned.weights["output.weight"][kept[0]] - saved.weights["output.weight"][kept[1]]
    assert np.abs(moved).max() < 0.05  # two small steps away


def test_fine_tuning_refuses_another_shape(charrnn, text):
    result = charrnn("train", text, "--init", "builtin", "--cell", "gru")
    result.assert_one_error(2, "--cell must be lstm, as in the model to begin from")
