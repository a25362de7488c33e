"""int8: exact products, the same text with and without numkong, and what it costs."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import reference
import texts

from charrnn.api import load
from charrnn.config import ModelConfig
from charrnn.engine import quantized
from charrnn.engine.cells import Matrix
from charrnn.engine.network import Engine
from charrnn.engine.quantized import QuantizedMatrix, choose_precision, quantize_rows
from charrnn.errors import ConfigError
from charrnn.scoring.batch import score_many
from charrnn.scoring.scorer import Scorer
from charrnn.storage.model_file import load_model, save_model

needs_numkong = pytest.mark.skipif(quantized.numkong is None, reason="numkong is not installed")
BOUNDED = [cell for cell in reference.CELLS if cell != "rnn-relu"]
V, T = 9, 8


@pytest.fixture(params=["numpy", pytest.param("numkong", marks=needs_numkong)])
def by(request, monkeypatch):
    """Who computes the products."""
    if request.param == "numpy":
        monkeypatch.setattr(quantized, "numkong", None)


# the quantiser


def test_a_rounded_weight_is_off_by_half_a_scale_at_most():
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((3, 40, 70)) * 10.0 ** rng.integers(-6, 6, (3, 40, 1))).astype("f4")
    rows[0, 0] = 0
    integers, scales = quantize_rows(rows)
    assert integers.dtype == np.int8
    assert scales.shape == (3, 40, 1)
    assert (np.abs(integers.astype(int)).max(-1) == np.where(rows.any(-1), 127, 0)).all()
    error = np.abs(integers * scales.astype(float) - rows)
    assert (error <= np.abs(rows).max(-1, keepdims=True) / 254 * (1 + 1e-5)).all()
    assert (scales > 0).all()


# products


@pytest.mark.parametrize("columns", [1, 64, 1041, 1101, 4096])
@pytest.mark.parametrize("lines", [1, 3])
def test_the_largest_sums_are_exact(by, columns, lines):
    """All products ±127², but the last may be 1: a large odd sum, which float32 would round."""
    weights = np.full((1, 4, columns), 127, np.int8)
    weights[0, 1] = -127
    weights[0, 2, ::2] = -127
    weights[0, 3, -1] = 1
    states = np.full((lines, columns), 127, np.int8)
    states[:, -1] = 1
    expected = states.astype(np.int64) @ weights[0].astype(np.int64).T
    out = np.empty((1, lines, 4), np.float32)
    matrix = QuantizedMatrix(weights, np.full((1, 4, 1), 127, np.float32))  # a unit of 1
    matrix.bind(states[None] / np.float32(127), out)()
    np.testing.assert_array_equal(out[0], expected.astype(np.float32))
    (factor,) = matrix._factors
    sums = factor.empty((1, lines, 4))
    factor.bind(states.astype(factor.dtype), sums[0])()
    np.testing.assert_array_equal(np.asarray(sums)[0], expected)  # each of its digits


@needs_numkong
@pytest.mark.parametrize("shape", [(1, 12, 7), (3, 33, 1100)])
@pytest.mark.parametrize("lines", [None, 0, 1, 5])
def test_numpy_and_numkong_give_the_same_bits(shape, lines, monkeypatch):
    rng = np.random.default_rng(3)
    integers, scales = quantize_rows(rng.standard_normal(shape).astype(np.float32))
    lead = shape[:1] if lines is None else (shape[0], lines)
    x = rng.uniform(-1, 1, (*lead, shape[2])).astype(np.float32)
    bias = rng.standard_normal(shape[:2]).astype(np.float32)
    found = []
    for module in (quantized.numkong, None):
        monkeypatch.setattr(quantized, "numkong", module)
        matrix, out = QuantizedMatrix(integers, scales), np.zeros((*lead, shape[1]), np.float32)
        matrix.bind(x, out)()
        found.append((out, matrix.apply(x, bias)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    exact = Matrix((integers * scales).astype(np.float32)).apply(x, bias)
    # a state is off by half of 1/127 at most
    most = (np.abs(integers * scales).sum(-1) / 254).max() + 1e-4
    np.testing.assert_allclose(found[0][1], exact, atol=most)


@needs_numkong
@pytest.mark.parametrize(("lines", "threads"), [(2, 2), (7, 3), (1, 2), (2, 3)])
def test_a_product_shared_among_threads_is_the_same(lines, threads, monkeypatch):
    rng = np.random.default_rng(3)
    integers, scales = quantize_rows(rng.standard_normal((2, 40, 30)).astype(np.float32))
    x = rng.uniform(-1, 1, (2, lines, 30)).astype(np.float32)
    alone, shared = (np.empty((2, lines, 40), np.float32) for _ in range(2))
    QuantizedMatrix(integers, scales).bind(x, alone)()
    monkeypatch.setattr(quantized, "SPLIT_WORK", 1)
    monkeypatch.setattr(quantized, "usable_threads", lambda: threads)
    QuantizedMatrix(integers, scales).bind(x, shared)()
    np.testing.assert_array_equal(alone, shared)


# networks


class Rounded:
    """A matrix for the naive transcription, which takes one row times one vector at a time."""

    def __init__(self, rows, largest):
        self.integers = np.rint(rows / largest * 127)
        self.largest = largest

    def __getitem__(self, k):
        return Row(self.integers[k], float(self.largest[k, 0]))


@dataclasses.dataclass
class Row:
    integers: np.ndarray
    largest: float

    def __matmul__(self, x):
        return self.largest / 127**2 * float(self.integers @ np.rint(127 * np.asarray(x)))


def rounded_weights(config, weights):
    """What int8 computes with, for `reference.run`: of the first layer only the state's product."""
    found = dict(weights)
    for k in range(config.num_layers):
        names = [f"layers.{k}.weight_ih", f"layers.{k}.weight_hh"][k == 0 :]
        largest = np.abs(np.hstack([weights[name] for name in names])).max(1, keepdims=True)
        found.update({name: Rounded(weights[name], largest) for name in names})
    return found


@pytest.mark.parametrize("cell", BOUNDED)
@pytest.mark.parametrize(("layers", "embedding", "members"), [(1, 0, 1), (2, 4, 1), (2, 0, 3)])
def test_the_engine_computes_the_equations_with_rounded_factors(cell, layers, embedding, members):
    config = reference.make_config(cell, layers=layers, embedding=embedding, members=members)
    weights = reference.random_weights(config, seed=7)
    ids = np.random.default_rng(5).integers(config.vocab_size, size=(3, T))
    parts = [(one, rounded_weights(one, w)) for one, w in reference.members(config, weights)]
    expected = np.array([sum(reference.run(*p, row)[0] for p in parts) / members for row in ids])
    exact = np.array([reference.run_ensemble(config, weights, row)[0] for row in ids])
    engine = Engine(config, weights, precision="int8")
    many, one = engine.initial_state(3), engine.initial_state()
    window = engine.run(ids, engine.initial_state(3))
    np.testing.assert_allclose(window, expected, atol=2e-5)
    assert 1e-4 < np.abs(window - exact).max() < 0.1
    for t in range(T):
        np.testing.assert_allclose(engine.step(ids[:, t], many), expected[:, t], atol=2e-5)
        np.testing.assert_allclose(engine.step(ids[1, t], one), expected[1, t], atol=2e-5)


def test_a_large_output_matrix_is_in_integers_and_a_small_one_is_not():
    for vocab_size, kind in ((70, Matrix), (5000, QuantizedMatrix)):
        config = ModelConfig(vocab_size=vocab_size, hidden_size=64)
        weights = {name: np.zeros(s, "f4") for name, s in config.weight_shapes().items()}
        assert type(Engine(config, weights, precision="int8")._output) is kind


@pytest.mark.parametrize("members", [1, 2])
def test_a_batch_may_become_empty(by, members):
    config = reference.make_config("gru", layers=2, members=members)
    engine = Engine(config, reference.random_weights(config), precision="int8")
    state = engine.copy_state(engine.initial_state(3), np.array([], np.int64))
    assert engine.step(np.array([], np.int64), state).shape == (0, config.vocab_size)
    assert engine.run(np.zeros((0, 4), np.int64), state).shape == (0, 4, config.vocab_size)


# texts


@needs_numkong
def test_a_seed_gives_the_same_text_without_numkong(tiny_model, tmp_path, monkeypatch):
    """In this process, alone and in a batch; and in one that cannot import it."""
    path = tmp_path / "model.safetensors"
    save_model(path, tiny_model)
    how = {"precision": "int8", "seed": 5, "length": 80, "logprobs": True}
    found = []
    for module in (quantized.numkong, None):
        monkeypatch.setattr(quantized, "numkong", module)
        model = load(path)
        found.append([model.sample("a", **how), *model.sample("a", num=7, **how)])
    assert found[0] == found[1]
    assert (
        found[0][0].logprobs != load(path).sample("a", **{**how, "precision": "float32"}).logprobs
    )
    program = (
        "import sys; sys.modules['numkong'] = None; from charrnn.api import load; import json;"
        f"print(json.dumps(load({str(path)!r}).sample('a', **{how!r}).text))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) == found[0][0].text


def test_scores_are_those_of_float32(tiny_model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, tiny_model)
    one, other = load(path), load(path)
    other.sample(precision="int8", length=5)
    assert one.score("a bad cab").logprob == other.score("a bad cab").logprob


# the choice


LARGE = ModelConfig(vocab_size=V, hidden_size=192)
RELU = ModelConfig(vocab_size=V, cell="rnn", nonlinearity="relu", hidden_size=999)


@pytest.mark.parametrize(
    ("config", "wanted", "cost", "with_numkong", "without"),
    [
        (LARGE, "auto", 0.001, "int8", "float32"),
        (LARGE, "auto", -0.001, "int8", "float32"),
        (LARGE, "auto", 0.0021, "float32", "float32"),
        (LARGE, "auto", math.nan, "float32", "float32"),
        (LARGE, "auto", None, "float32", "float32"),
        (LARGE, "int8", None, "int8", "int8"),
        (LARGE, "float32", 0.001, "float32", "float32"),
        (dataclasses.replace(LARGE, hidden_size=64), "auto", 0.001, "float32", "float32"),
        (dataclasses.replace(LARGE, hidden_size=64), "int8", 0.9, "int8", "int8"),
        (RELU, "auto", 0.0, "float32", "float32"),
    ],
)
def test_auto_is_int8_where_it_is_fast_and_cheap(
    config, wanted, cost, with_numkong, without, monkeypatch
):
    for module, right in ((object(), with_numkong), (None, without)):
        monkeypatch.setattr(quantized, "numkong", module)
        assert choose_precision(config, wanted, cost) == right


@pytest.mark.parametrize("cost", ["much", True, None, [0.0]])
def test_a_strange_record_is_none(tiny_model, cost, tmp_path):
    saved = dataclasses.replace(tiny_model, training={quantized.INT8_COST: cost})
    save_model(tmp_path / "model.safetensors", saved)
    assert load(tmp_path / "model.safetensors").used_precision() == "float32"


def test_int8_is_refused_for_relu():
    with pytest.raises(ConfigError, match="relu network"):
        choose_precision(RELU, "int8", None)


# the record


def test_training_records_what_int8_costs(prepare, tmp_path):
    trainer = prepare(texts.english(12_000), hidden_size=192, steps=2, batch_size=4)
    list(trainer.run())
    saved = load_model(trainer.run_directory.model)
    val = trainer.corpus.vocabulary.decode(trainer.corpus.val_ids)
    pieces = [val[k : k + 128] for k in range(0, len(val), 128)]
    bits = []
    for precision in ("float32", "int8"):
        engine = Engine(saved.config, saved.weights, precision=precision)
        scores = list(score_many(Scorer(engine, saved.vocabulary), pieces))
        bits.append(-math.fsum(s.logprob for s in scores) / math.log(2) / len(val))
    assert 500 < len(val) < 2048
    cost = saved.training[quantized.INT8_COST]
    assert cost == pytest.approx(bits[1] - bits[0], abs=1e-6)
    assert cost != 0


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 64},
        {"hidden_size": 192, "val_fraction": 0.0},
        {"hidden_size": 400, "cell": "rnn", "nonlinearity": "relu"},
        {"hidden_size": 192, "bidirectional": True},
    ],
)
def test_nothing_is_recorded_where_int8_is_never_chosen(prepare, settings):
    trainer = prepare(texts.english(2_000), steps=1, batch_size=2, **settings)
    list(trainer.run())
    assert quantized.INT8_COST not in load_model(trainer.run_directory.model).training


@pytest.fixture
def open_model(tiny_model, tmp_path, monkeypatch):
    """A model, in the current folder, of which `auto` means int8 where numkong is."""
    monkeypatch.setattr(quantized, "SMALLEST", 0)
    saved = dataclasses.replace(tiny_model, training={quantized.INT8_COST: 0.0001})
    save_model(tmp_path / "m.safetensors", saved)


@pytest.mark.parametrize(
    ("given", "named", "added"),
    [
        ((), "float32", ["--precision", "float32"]),
        (("--precision", "auto"), "float32", ["--precision", "float32"]),
        (("--precision=auto",), "float32", ["--precision", "float32"]),
        (("--precision", "int8"), "int8", ["--precision", "int8"]),
    ],
)
def test_the_seed_line_says_the_precision(open_model, charrnn, given, named, added, monkeypatch):
    monkeypatch.setattr(quantized, "numkong", None)
    run = ("sample", "m.safetensors", "-n", 60, "--seed", 4)
    monkeypatch.setattr(sys, "argv", ["charrnn", *map(str, run), *given])
    drawn = charrnn(*run, *given)
    first, command = drawn.err.splitlines()[0].split("; to repeat: ")
    assert first == f"seed 4 in {named}"
    words = command.split()
    assert words.count("--precision") == 1
    assert words[words.index("--precision") :][:2] == added
    assert "--precision=auto" not in words
    assert charrnn(*words[1:]).out == drawn.out


def test_the_seed_line_of_other_models_is_short(tiny_model_path, charrnn):
    assert charrnn("sample", "-m", tiny_model_path, "--seed", 4).err.startswith("seed 4; ")


def test_info_tells_what_int8_costs(open_model, charrnn):
    told = charrnn("info", "-m", "m.safetensors").out
    assert "int8           adds 0.00010 bits/char on the validation text" in told
