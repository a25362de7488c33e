"""Settings check themselves and survive a dict exactly."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from charrnn.config import CorpusConfig, ModelConfig, SamplingConfig, TrainingConfig, fresh_seed
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
    (ModelConfig, "members", [0, -1, 65]),
    (TrainingConfig, "time_s", [0, -1.0, NAN, INF]),
    (TrainingConfig, "epochs", [0, -0.5, NAN, INF]),
    (TrainingConfig, "steps", [0, -1, NAN]),
    (TrainingConfig, "batch_size", [0, -1]),
    (TrainingConfig, "bptt", [0, -1]),
    (TrainingConfig, "optimizer", ["sgd", ""]),
    (TrainingConfig, "learning_rate", [0, -1e-3, NAN, INF]),
    (TrainingConfig, "weight_decay", [-0.1, NAN, INF]),
    (TrainingConfig, "clip_norm", [-1, NAN, INF]),
    (TrainingConfig, "clip_value", [-1, NAN, INF]),
    (TrainingConfig, "dropout", [-0.1, 1, 1.5, NAN]),
    (TrainingConfig, "recurrent_dropout", [-0.1, 1, 1.5, NAN]),
    (TrainingConfig, "unknown_rate", [-0.1, 1, NAN]),
    (TrainingConfig, "sample_every", [-1]),
    (TrainingConfig, "seed", [-1, 2**64]),
    (TrainingConfig, "device", ["tpu", "cuda:x", ""]),
    (TrainingConfig, "dtype", ["float64", "", "bf16"]),
    (CorpusConfig, "documents", ["page", ""]),
    (CorpusConfig, "unit", ["word"]),
    (CorpusConfig, "normalize", ["nfd"]),
    (CorpusConfig, "errors", ["ignore"]),
    (CorpusConfig, "min_count", [0]),
    (CorpusConfig, "val_fraction", [1, -0.1, NAN]),
    (CorpusConfig, "encoding", ["klingon", "rot13", "a\0b"]),
    (SamplingConfig, "temperature", [-0.1, NAN, INF]),
    (SamplingConfig, "top_k", [-1]),
    (SamplingConfig, "top_p", [0, 1.5, NAN]),
    (SamplingConfig, "min_p", [-0.5, 1.5, NAN]),
    (SamplingConfig, "length", [0, -3]),
    (SamplingConfig, "min_length", [-1, 1001]),
    (SamplingConfig, "stop", [("a", ""), ""]),
    (SamplingConfig, "seed", [-1]),
]


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
    assert caught.value.field == field
    assert message == f"{field} {caught.value.problem}"
    assert "\n" not in message
    assert len(message) < 160
    if field != "stop":  # an empty text needs no showing
        shown = repr(value) if len(str(value)) < 60 else f"{str(value)[:60]}…"
        assert shown in message
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CharRNNError)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (ModelConfig, {"vocab_size": 3, "hidden_size": 1, "num_layers": 1, "embedding_size": 0}),
        (TrainingConfig, {"dropout": 0.0, "steps": 1, "bptt": 1, "batch_size": 1, "clip_norm": 0}),
        (TrainingConfig, {"dropout": 0.999, "time_s": 0.001, "seed": 2**64 - 1}),
        (TrainingConfig, {"time_s": 1, "epochs": 1, "steps": 1}),
        (SamplingConfig, {"temperature": 0, "length": 1, "seed": 0, "top_p": 1, "min_p": 0}),
    ],
)
def test_the_edges_of_the_ranges_are_allowed(config, values):
    made = config(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize("cell", ["lstm", "peephole-lstm", "gru", "gru-simple"])
def test_relu_belongs_to_the_rnn(cell):
    with pytest.raises(ConfigError, match=r"^nonlinearity relu belongs to the rnn cell, not to "):
        ModelConfig(vocab_size=9, cell=cell, nonlinearity="relu")
    assert ModelConfig(vocab_size=9, cell="rnn", nonlinearity="relu").nonlinearity == "relu"


EXAMPLES = [
    ModelConfig(vocab_size=9),
    ModelConfig(vocab_size=9, cell="rnn", nonlinearity="relu", num_layers=3, embedding_size=4),
    TrainingConfig(),
    TrainingConfig(time_s=2.5, dropout=0.3, learning_rate=1e-4, seed=11, device="cpu"),
    ModelConfig(vocab_size=9, members=3),
    TrainingConfig(epochs=3),
    SamplingConfig(temperature=0.5, length=20, seed=4),
]


@pytest.mark.parametrize("config", EXAMPLES, ids=repr)
def test_dict_round_trip(config):
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("config", EXAMPLES[:6], ids=repr)
def test_json_round_trip_of_what_files_hold(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", EXAMPLES[:6], ids=repr)
def test_a_dict_must_have_exactly_the_fields(config):
    record = config.to_dict()
    for name in record.keys() - {"members"}:  # a single network's record has none
        less = {key: value for key, value in record.items() if key != name}
        with pytest.raises(ConfigError, match=f"lacks the field '{name}'"):
            type(config).from_dict(less)
    with pytest.raises(ConfigError, match="has an unknown field 'surprise'"):
        type(config).from_dict({**record, "surprise": 1})


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_a_record_must_be_a_dict(record):
    with pytest.raises(ConfigError, match="the ModelConfig record is not a dictionary"):
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
        (TrainingConfig, "calibrate", 1),
        (SamplingConfig, "logprobs", "yes"),
        (SamplingConfig, "stop", None),
        (SamplingConfig, "stop", 7),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(config, field, value):
    base = ModelConfig(vocab_size=9) if config is ModelConfig else config()
    with pytest.raises(ConfigError, match=f"^{field} must be ") as caught:
        config(**{**base.to_dict(), field: value})
    assert str(caught.value).endswith(f"got {value!r}")
    with pytest.raises(ConfigError, match=f"^{field} must be "):
        config.from_dict({**base.to_dict(), field: value})


def test_numbers_of_numpy_are_numbers():
    config = ModelConfig(vocab_size=np.int64(9), hidden_size=np.uint8(7))
    assert json.dumps(config.to_dict())
    assert config == ModelConfig(vocab_size=9, hidden_size=7)
    assert TrainingConfig(dropout=np.float32(0.5)).dropout == 0.5
    with pytest.raises(ConfigError, match=r"^steps must be a whole number"):
        TrainingConfig(steps=np.float64(2))


def test_one_stop_text_is_a_tuple_of_one():
    assert SamplingConfig(stop="END").stop == ("END",)
    assert SamplingConfig(stop=["a", "b"]).stop == ("a", "b")
    with pytest.raises(ConfigError, match=r"^stop must be texts, got"):
        SamplingConfig(stop=["a", 1])
    assert CorpusConfig(glob="*.md").glob == ("*.md",)


def test_a_fresh_seed_is_short_and_another_one_each_time():
    seeds = {fresh_seed() for _ in range(20)}
    assert len(seeds) > 1
    assert max(seeds) < 10**9


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


def test_the_shapes_of_the_cells():
    """Gate blocks of each, and peepholes of one."""
    for cell, rows in (("lstm", 16), ("peephole-lstm", 16), ("gru-simple", 8), ("rnn", 4)):
        shapes = ModelConfig(vocab_size=9, cell=cell, hidden_size=4).weight_shapes()
        assert shapes["layers.0.weight_hh"] == (rows, 4)
        assert shapes["layers.0.bias_ih"] == (rows,)
        assert shapes.get("layers.0.peephole") == ((12,) if cell == "peephole-lstm" else None)


def test_the_arrays_of_an_ensemble_have_an_axis_of_members():
    config = ModelConfig(vocab_size=9, cell="gru", hidden_size=4)
    several = dataclasses.replace(config, members=3)
    assert several.weight_shapes() == {n: (3, *s) for n, s in config.weight_shapes().items()}
    assert several.num_parameters() == 3 * config.num_parameters()
    assert "members" not in config.to_dict()
    assert several.to_dict()["members"] == 3
