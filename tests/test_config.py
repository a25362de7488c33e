"""Settings check themselves and survive a dict exactly."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.errors import CharRNNError, ConfigError

NAN, INF = math.nan, math.inf

MODEL = {"vocab_size": 50}
OUT_OF_RANGE = [
    (ModelConfig, "vocab_size", [2, 0, -1, NAN, INF, -(10**400)]),
    (ModelConfig, "cell", ["LSTM", "", "transformer"]),
    (ModelConfig, "nonlinearity", ["sigmoid", ""]),
    (ModelConfig, "hidden_size", [0, -5, NAN, INF]),
    (ModelConfig, "num_layers", [0, -1, NAN, 65, 100_000]),
    (ModelConfig, "embedding_size", [-1, NAN]),
    (TrainingConfig, "time_s", [0, -1.0, NAN, INF]),
    (TrainingConfig, "epochs", [0, -0.5, NAN, INF]),
    (TrainingConfig, "steps", [0, -1, NAN]),
    (TrainingConfig, "batch_size", [0, -1]),
    (TrainingConfig, "bptt", [0, -1]),
    (TrainingConfig, "learning_rate", [0, -1e-3, NAN, INF]),
    (TrainingConfig, "weight_decay", [-0.1, NAN, INF]),
    (TrainingConfig, "clip_norm", [-1, NAN, INF]),
    (TrainingConfig, "clip_value", [-1, NAN, INF]),
    (TrainingConfig, "dropout", [-0.1, 1, 1.5, NAN]),
    (TrainingConfig, "recurrent_dropout", [-0.1, 1, 1.5, NAN]),
    (TrainingConfig, "unknown_rate", [-0.1, 1, NAN]),
    (TrainingConfig, "patience", [-1]),
    (TrainingConfig, "sample_every", [-1]),
    (TrainingConfig, "seed", [-1, 2**64]),
    (TrainingConfig, "dtype", ["float64", "", "bf16"]),
    (SamplingConfig, "temperature", [-0.1, NAN, INF]),
    (SamplingConfig, "length", [0, -3]),
    (SamplingConfig, "seed", [-1]),
]
SPOKEN = {"time_s": "time", "batch_size": "batch"}
"""Fields that messages call by their option."""


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        pytest.param(config, field, value, id=f"{field}={str(value)[:9]}")
        for config, field, values in OUT_OF_RANGE
        for value in values
    ],
)
def test_a_value_out_of_range_is_named(config, field, value):
    base = MODEL if config is ModelConfig else {}
    with pytest.raises(ConfigError) as caught:
        config(**{**base, field: value})
    message = str(caught.value)
    assert SPOKEN.get(field, field).replace("_", " ") in message
    assert str(value) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, (ValueError, CharRNNError))


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (ModelConfig, {"vocab_size": 3, "hidden_size": 1, "num_layers": 1, "embedding_size": 0}),
        (TrainingConfig, {"dropout": 0.0, "steps": 1, "bptt": 1, "batch_size": 1, "clip_norm": 0}),
        (TrainingConfig, {"dropout": 0.999, "time_s": 0.001, "seed": 2**64 - 1}),
        (SamplingConfig, {"temperature": 0, "length": 1, "seed": 0}),
    ],
)
def test_the_edges_of_the_ranges_are_allowed(config, values):
    made = config(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize(
    "budgets",
    [{"time_s": 1, "epochs": 1}, {"time_s": 1, "steps": 1}, {"epochs": 1, "steps": 1}],
)
def test_there_is_one_budget(budgets):
    with pytest.raises(ConfigError, match="budget"):
        TrainingConfig(**budgets)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_relu_belongs_to_the_rnn(cell):
    with pytest.raises(ConfigError, match="nonlinearity relu"):
        ModelConfig(vocab_size=9, cell=cell, nonlinearity="relu")
    assert ModelConfig(vocab_size=9, cell="rnn", nonlinearity="relu").nonlinearity == "relu"


EXAMPLES = [
    ModelConfig(vocab_size=9),
    ModelConfig(vocab_size=9, cell="rnn", nonlinearity="relu", num_layers=3, embedding_size=4),
    TrainingConfig(),
    TrainingConfig(time_s=2.5, dropout=0.3, learning_rate=1e-4, seed=11, device="cpu"),
    TrainingConfig(epochs=3),
    SamplingConfig(temperature=0.5, length=20, seed=4),
]


@pytest.mark.parametrize("config", EXAMPLES, ids=repr)
def test_dict_round_trip(config):
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("config", EXAMPLES[:5], ids=repr)
def test_json_round_trip_of_what_files_hold(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", EXAMPLES[:5], ids=repr)
def test_a_dict_must_have_exactly_the_fields(config):
    record = config.to_dict()
    for name in record:
        less = {key: value for key, value in record.items() if key != name}
        with pytest.raises(ConfigError, match=name):
            type(config).from_dict(less)
    with pytest.raises(ConfigError, match="surprise"):
        type(config).from_dict({**record, "surprise": 1})


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_a_record_must_be_a_dict(record):
    with pytest.raises(ConfigError, match="ModelConfig"):
        ModelConfig.from_dict(record)


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (ModelConfig, "hidden_size", 8.0),
        (ModelConfig, "hidden_size", "8"),
        (ModelConfig, "hidden_size", True),
        (ModelConfig, "hidden_size", None),
        (ModelConfig, "cell", None),
        (ModelConfig, "cell", ["lstm"]),
        (TrainingConfig, "steps", 2.0),
        (TrainingConfig, "dropout", "0.1"),
        (TrainingConfig, "dropout", False),
        (TrainingConfig, "device", None),
    ],
)
def test_a_record_of_the_wrong_type_is_refused(config, field, value):
    base = ModelConfig(vocab_size=9) if config is ModelConfig else TrainingConfig()
    with pytest.raises(ConfigError, match=field):
        config.from_dict({**base.to_dict(), field: value})


def test_whole_numbers_pass_as_floats():
    record = {**TrainingConfig().to_dict(), "dropout": 0, "time_s": 60}
    assert TrainingConfig.from_dict(record).time_s == 60


def test_configs_are_frozen_and_keyword_only():
    config = ModelConfig(vocab_size=9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3
    with pytest.raises(TypeError):
        ModelConfig(9)


def test_the_shapes_of_a_model():
    config = ModelConfig(vocab_size=9, cell="gru", hidden_size=4, num_layers=2, embedding_size=3)
    assert config.weight_shapes() == {
        "embedding.weight": (9, 3),
        "layers.0.weight_ih": (12, 3),
        "layers.0.weight_hh": (12, 4),
        "layers.0.bias_ih": (12,),
        "layers.0.bias_hh": (12,),
        "layers.1.weight_ih": (12, 4),
        "layers.1.weight_hh": (12, 4),
        "layers.1.bias_ih": (12,),
        "layers.1.bias_hh": (12,),
        "output.weight": (9, 4),
        "output.bias": (9,),
    }
    assert config.num_parameters() == 27 + (36 + 48 + 24) + (48 + 48 + 24) + 45
    onehot = ModelConfig(vocab_size=9, hidden_size=4)
    assert "embedding.weight" not in onehot.weight_shapes()
    assert onehot.weight_shapes()["layers.0.weight_ih"] == (16, 9)


def test_members_have_a_limit():
    assert TrainingConfig(steps=1, members=64).members == 64
    with pytest.raises(ConfigError, match="members must be at most 64, got 65"):
        TrainingConfig(steps=1, members=65)
