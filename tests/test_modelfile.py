"""A model file comes back exactly, and a bad one is refused, never believed and never executed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import reference
import safetensors.numpy

import charrnn
from charrnn.errors import ModelFileError
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.vocab import Vocabulary

TRAINING = {"corpus": {"name": "né"}, "val_loss_nats": 1.25, "curve": [1, 2.5, None]}


@pytest.fixture(params=[1, 2], ids=["one network", "two members"])
def saved(request):
    config = reference.make_config("lstm", layers=2, embedding=3, members=request.param)
    weights = reference.random_weights(config)
    return SavedModel(
        config=config,
        vocabulary=Vocabulary("ab\né😀"),
        weights={name: array.astype(np.float32) for name, array in weights.items()},
        training=TRAINING,
    )


@pytest.fixture
def path(tmp_path, saved):
    path = tmp_path / "model.safetensors"
    save_model(path, saved)
    return path


def test_round_trip(path, saved):
    again = load_model(path)
    assert again.config == saved.config
    assert again.vocabulary == saved.vocabulary
    assert again.training == TRAINING
    assert list(again.weights) == list(saved.config.weight_shapes())
    for name, array in again.weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, saved.weights[name])


def test_saving_is_deterministic(path, saved, tmp_path):
    save_model(tmp_path / "again", saved)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_half_precision_is_read_as_single(path, saved):
    rewrite(path, arrays=lambda arrays: {k: a.astype(np.float16) for k, a in arrays.items()})
    for name, array in load_model(path).weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, saved.weights[name].astype(np.float16))


def test_a_model_can_be_stored_in_half_precision(path, saved, tmp_path):
    half = tmp_path / "half"
    save_model(half, saved, dtype="float16")
    with safetensors.safe_open(half, framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    again = load_model(half)
    for name, array in again.weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, saved.weights[name].astype(np.float16))
    assert (again.config, again.training) == (saved.config, saved.training)
    save_model(tmp_path / "again", again, dtype="float16")  # what is rounded stays as it is
    assert (tmp_path / "again").read_bytes() == half.read_bytes()


def test_a_weight_too_large_for_half_precision_is_not_written_as_infinity(path, saved):
    before = path.read_bytes()
    saved.weights["output.bias"][..., 1] = 70_000
    with pytest.raises(ModelFileError, match=r"too large for float16.*as float32"):
        save_model(path, saved, dtype="float16")
    assert path.read_bytes() == before
    save_model(path, saved)
    assert (load_model(path).weights["output.bias"][..., 1] == 70_000).all()


def rewrite(path, *, arrays=lambda arrays: arrays, record=lambda record: None, metadata=None):
    """Write the file again with other arrays, or another record."""
    content = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="np") as file:
        contents = json.loads(file.metadata()["charrnn"])
    record(contents)
    if metadata is None:
        metadata = {"charrnn": json.dumps(contents)}
    safetensors.numpy.save_file(arrays(content), path, metadata=metadata)


def update(*keys, value):
    """A change of one entry of the record."""

    def change(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"once upon a time there was a text\n" * 20, b"\x80\x04K\x01.", b"\0" * 4096],
)
def test_not_a_model(path, content):
    path.write_bytes(content)
    refused(path, "not a charrnn model")


@pytest.mark.parametrize("keep", [4, 8, 100, -1])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "not a charrnn model")


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing", "there is no model file")
    refused(tmp_path, "there is no model file")


def transposed(arrays):
    return {
        **arrays,
        "output.weight": np.ascontiguousarray(arrays["output.weight"].swapaxes(-1, -2)),
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (transposed, "output.weight should be"),
        (
            lambda a: {**a, "output.bias": a["output.bias"][..., :-1].copy()},
            "output.bias should be",
        ),
        (lambda a: {**a, "output.bias": a["output.bias"][None]}, "output.bias should be"),
        (lambda a: {k: v for k, v in a.items() if k != "layers.1.bias_hh"}, "arrays are not those"),
        (lambda a: {**a, "extra": np.zeros(1, np.float32)}, "arrays are not those"),
        (lambda a: {"x": np.zeros(1, np.float32)}, "layers are not all there"),
        (lambda a: {k: v.astype(np.float64) for k, v in a.items()}, "float32 or float16"),
        (lambda a: {k: v.astype(np.int32) for k, v in a.items()}, "float32 or float16"),
    ],
    ids=["transposed", "short", "rank", "missing", "extra", "alone", "float64", "int32"],
)
def test_arrays_that_contradict_the_config(path, arrays, message):
    rewrite(path, arrays=arrays)
    refused(path, message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(path, value):
    def poison(arrays):
        arrays["layers.0.weight_hh"][..., 2, 1] = value
        return arrays

    rewrite(path, arrays=poison)
    refused(path, "layers.0.weight_hh has values that are no numbers")


@pytest.mark.parametrize("version", [2, 0, "1", None, 99])
def test_another_format_version(path, version):
    rewrite(path, record=update("format_version", value=version))
    refused(path, f"model format {version!r}.*newer")


def test_no_format_version(path):
    rewrite(path, record=lambda record: record.pop("format_version"))
    refused(path, "model format None")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (update("vocabulary", "characters", value="abc"), "vocabulary has 5 ids, its config 7"),
        (update("vocabulary", "characters", value="ba"), "sorted"),
        (update("vocabulary", value=None), "vocabulary"),
        (update("model", "vocab_size", value=8), "vocabulary has 7 ids, its config 8"),
        (update("model", "num_layers", value=3), "arrays"),
        (update("model", "num_layers", value=0), "num_layers must be at least 1"),
        (update("model", "num_layers", value=10**12), "num_layers must be at most"),
        (update("model", "num_layers", value=60), "layers are not all there"),
        (update("model", "hidden_size", value=10**9), "hidden_size must be at most"),
        (update("model", "hidden_size", value=10**400), "hidden_size must be at most"),
        (update("model", "members", value=3), "should be"),
        (update("model", "members", value=65), "members must be at most 64"),
        (update("model", "hidden_size", value=2**16), "should be"),
        (update("model", "hidden_size", value=5.0), "hidden_size"),
        (update("model", "hidden_size", value="5"), "hidden_size"),
        (update("model", "embedding_size", value=0), "arrays"),
        (update("model", "cell", value="gru"), "should be"),
        (update("model", "cell", value="transformer"), "cell"),
        (update("model", "surprise", value=1), "surprise"),
        (update("model", value=[]), "not a dictionary"),
        (update("training", value=None), "training record"),
    ],
)
def test_a_record_that_contradicts_itself(path, change, message):
    rewrite(path, record=change)
    refused(path, message)


@pytest.mark.parametrize(
    "metadata",
    [
        {"other": "1"},
        {"charrnn": "not JSON"},
        {"charrnn": "[]"},
        {"charrnn": "null"},
        {"charrnn": "[" * 100_000},
        {"charrnn": "1" * 5000},
    ],
    ids=["none", "text", "list", "null", "deep", "long number"],
)
def test_a_record_that_is_none(path, metadata):
    rewrite(path, metadata=metadata)
    refused(path, "record")


def test_an_ordinary_safetensors_file(path):
    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, path)
    refused(path, "no charrnn record")


def test_an_interrupted_save_keeps_the_old_model(path, saved, monkeypatch):
    before = path.read_bytes()

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, saved)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def test_nothing_in_the_package_can_unpickle():
    package = Path(charrnn.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in ("torch.load", "torch.save", "np.load"), path
                continue
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
                continue
            else:
                continue
            assert not names & EXECUTING, path
