"""A model file comes back exactly, and a bad one is refused, never believed and never executed."""

from __future__ import annotations

import ast
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import reference
import safetensors.numpy
from conftest import named_pipes, needs

import charrnn
from charrnn.errors import ModelFileError
from charrnn.storage import model_file
from charrnn.storage.model_file import (
    MAX_TRAINING_BYTES,
    SavedModel,
    load_model,
    read_model_record,
    save_model,
)
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
    refused(path, "not a (sound )?charrnn model")
    with pytest.raises(ModelFileError):
        read_model_record(path)


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
        (lambda a: {"x": np.zeros(1, np.float32)}, "arrays are not those"),
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


@pytest.mark.parametrize("value", [3e38, -3e38, 1e20])
def test_weights_so_large_that_products_overflow(path, value):
    def poison(arrays):
        arrays["output.weight"][..., 2, 1] = value
        return arrays

    rewrite(path, arrays=poison)
    refused(path, "output.weight has values that are no weights")


# files made to hurt


def raw(path, header, data=b""):
    """Write a file of a header, as JSON or as it is, and data."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)


def header_of(path):
    content = path.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n_header]), content[8 + n_header :]


def test_a_file_of_another_writer_may_have_its_arrays_in_any_order(path, saved):
    header, data = header_of(path)
    metadata = header.pop("__metadata__")
    mixed, other = b"", {}
    for name in reversed(sorted(header)):
        begin, end = header[name]["data_offsets"]
        other[name] = {**header[name], "data_offsets": [len(mixed), len(mixed) + end - begin]}
        mixed += data[begin:end]
    raw(path, {"__metadata__": metadata, **other}, mixed)
    for name, array in load_model(path).weights.items():
        np.testing.assert_array_equal(array, saved.weights[name])


@pytest.mark.parametrize(
    "offsets",
    [None, 3, [], [0], [0, 4, 8], ["a", "b"], [None, 1], [1.5, 2.5], [-4, 24], [10**400, 10**400]],
)
def test_offsets_that_are_none(path, offsets):
    header, data = header_of(path)
    header["output.bias"]["data_offsets"] = offsets
    raw(path, header, data)
    refused(path, "output.bias should be|do not fill the file")


@pytest.mark.parametrize("entry", [None, [], "F32", {}, {"dtype": []}, {"dtype": "\x1b]0;x\x07"}])
def test_an_array_that_is_none(path, entry):
    header, data = header_of(path)
    header["output.bias"] = entry
    raw(path, header, data)
    refused(path, "do not fill the file")


def test_arrays_that_share_their_bytes_or_leave_some_out(path):
    header, data = header_of(path)
    moved = json.loads(json.dumps(header))
    moved["layers.0.bias_ih"]["data_offsets"] = header["layers.0.bias_hh"]["data_offsets"]
    raw(path, moved, data)
    refused(path, "do not fill the file")
    raw(path, header, data + bytes(4))
    refused(path, "do not fill the file")


@pytest.mark.parametrize(
    "where",
    ["training", "model", "vocabulary", "text", "format_version", "vocabulary unit", "model cell",
     "model hidden_size", "text normalize", "vocabulary characters", "model \x1b]0;x\x07"],
)  # fmt: skip
def test_a_value_of_a_megabyte_is_not_a_message_of_a_megabyte(path, where):
    rewrite(path, record=update(*where.split(" "), value="\x1b" * 500_000))
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_a_training_record_has_a_largest_size(path, saved):
    many = {str(n): None for n in range(MAX_TRAINING_BYTES // 10)}
    rewrite(path, record=update("training", "config", value=many))
    refused(path, "training record is too long")
    before = path.read_bytes()
    long = SavedModel(
        config=saved.config, vocabulary=saved.vocabulary, weights=saved.weights, training=many
    )
    with pytest.raises(ModelFileError, match="longer than a megabyte"):
        save_model(path, long)
    assert path.read_bytes() == before


def test_a_header_has_a_largest_size(path):
    header, data = header_of(path)
    raw(path, {**header, "__metadata__": {**header["__metadata__"], "x": "a" * 5_000_000}}, data)
    refused(path, "its header is too long")
    raw(path, b"[" * 200_000)
    refused(path, "its header is not JSON")
    raw(path, b"[]")
    refused(path, "its header is not a JSON object")
    path.write_bytes((1 << 60).to_bytes(8, "little"))
    refused(path, "cut short")


@needs("SEEK_HOLE, to see holes", hasattr(os, "SEEK_HOLE"))
def test_a_file_of_holes_does_not_fill_the_memory(path):
    config = reference.make_config("lstm", layers=1, hidden=512, embedding=0, vocab_size=7)
    offset, header = 0, {}
    for name, shape in config.weight_shapes().items():
        size = 4 * int(np.prod(shape))
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    record = json.loads(header_of(path)[0]["__metadata__"]["charrnn"])
    record["model"] = config.to_dict()
    raw(path, {"__metadata__": {"charrnn": json.dumps(record)}, **header})
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + offset)
    if path.stat().st_blocks * 512 > path.stat().st_size // 2:
        pytest.skip("this file system has no holes")
    refused(path, "holes without data")
    path.write_bytes(path.read_bytes())  # all zeros, but they are there
    assert load_model(path).config == config


@named_pipes
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "cannot be read: not an ordinary file")
    refused(Path("/dev/zero"), "cannot be read: not an ordinary file")


def test_a_file_that_may_not_be_read_is_there(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    refused(path, "cannot be read: permission denied")


def test_a_file_that_shrinks_while_it_is_read(path, saved, monkeypatch):
    config = reference.make_config("lstm", hidden=256)  # more than is read at once
    weights = {k: a.astype(np.float32) for k, a in reference.random_weights(config).items()}
    large = SavedModel(
        config=config, vocabulary=saved.vocabulary, weights=weights, training=TRAINING
    )
    save_model(path, large)
    described = model_file._described

    def shrink(path, file):
        found = described(path, file)
        os.truncate(path, path.stat().st_size - 100)
        return found

    monkeypatch.setattr(model_file, "_described", shrink)
    refused(path, "cut short while it was read")


def test_the_record_alone_says_all_but_the_weights(path, saved):
    record = read_model_record(path)
    assert record.config == saved.config
    assert record.vocabulary == saved.vocabulary
    assert record.training == TRAINING


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
        (update("model", "num_layers", value=60), "arrays are not those"),
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
