"""The one-file model: safetensors with a JSON record in its header.

The header's metadata has one entry, `charrnn`, a JSON object:

    format_version  1
    model           the ModelConfig
    vocabulary      the Vocabulary's record
    text            the TextConfig
    training        what it was trained on, how, and its loss (free-form, informative)

The arrays are those of `ModelConfig.weight_shapes`: an ensemble's have a leading axis of its
members, those of a single network do not. They are float32, as training writes them, or float16, in
half the bytes, as in the bundled model; a loaded model is float32. Both types belong to format 1.

Nothing in the file is executed, and a file from a stranger can at worst be refused: lengths, names,
shapes and types are compared with the config and with the size of the file before an array is read.
The file is read, never mapped, so that nobody can take it away from under a running command.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig, TextConfig, shown
from charrnn.errors import ConfigError, ModelFileError
from charrnn.storage.atomic import atomic_writer
from charrnn.storage.reading import METADATA, header_record, open_ordinary, read_header, reason
from charrnn.vocab import Vocabulary

FORMAT_VERSION = 1
RECORD_KEY = "charrnn"
STORED_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
"""Types that arrays may have in the file: safetensors' name and NumPy's."""
MAX_TRAINING_BYTES = 1 << 20
"""Of the training record as JSON; that of a run has some kilobytes."""
MAX_WEIGHT = 1e15
"""Larger weights would overflow float32 in one product with an embedding and one with a layer."""
MAX_PROBLEM = 200
"""Characters of what a message quotes from a file."""

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What a model file says beside its weights."""

    config: ModelConfig
    vocabulary: Vocabulary
    text: TextConfig = field(default_factory=TextConfig)
    training: Mapping[str, Any]
    """How it was made: JSON values only."""


@dataclass(frozen=True, kw_only=True)
class SavedModel(ModelRecord):
    """Everything a model file holds."""

    weights: Weights
    """Arrays by name, with the shapes of `config.weight_shapes()`."""


def require_one_way(saved: SavedModel, task: str = "write from left to right") -> None:
    """Refuse a model that cannot write.

    Args:
        saved: the model.
        task: what it cannot do.

    Raises:
        ConfigError: it is bidirectional.
    """
    if saved.config.bidirectional:
        raise ConfigError(
            "the model is bidirectional, and predicts each character from both sides, so it cannot "
            f"{task}: fill gaps with it (charrnn fill), or train one without "
            "--bidirectional"
        )


def require_both_sides(saved: SavedModel) -> None:
    """Refuse a model that cannot fill gaps.

    Raises:
        ConfigError: it reads from left to right only.
    """
    if not saved.config.bidirectional:
        raise ConfigError(
            "the model reads from left to right only, and a gap is filled from both sides: "
            "train one with --bidirectional"
        )


def save_model(path: Path, model: SavedModel, *, dtype: str = "float32") -> None:
    """Write a model atomically: a reader sees the old file or the new one, whole.

    The same model gives the same bytes.

    Args:
        path: where to write.
        model: what to write.
        dtype: of the arrays in the file: `float32`, or `float16` for half the size, each weight
            rounded to about three decimal digits.

    Raises:
        ModelFileError: a weight is too large for float16 (65,504 at most), or the training record
            for any model.
        StorageError: the file cannot be written.
    """
    import safetensors.numpy  # reading does without it

    assert np.dtype(dtype) in STORED_DTYPES.values()
    shapes = model.config.weight_shapes()
    assert {name: w.shape for name, w in model.weights.items()} == shapes
    assert len(model.vocabulary) == model.config.vocab_size
    record = {
        "format_version": FORMAT_VERSION,
        "model": model.config.to_dict(),
        "vocabulary": model.vocabulary.to_dict(),
        "text": model.text.to_dict(),
        "training": dict(model.training),
    }
    if len(json.dumps(record["training"])) > MAX_TRAINING_BYTES:
        raise ModelFileError(
            f"{path} is not written: its training record is longer than a megabyte"
        )
    try:
        with np.errstate(over="raise"):
            arrays = {name: np.ascontiguousarray(model.weights[name], dtype) for name in shapes}
    except FloatingPointError:
        raise ModelFileError(
            f"{path} is not written: a weight is too large for {dtype}, store the model as float32"
        ) from None
    metadata = {RECORD_KEY: json.dumps(record, sort_keys=True)}
    with atomic_writer(path) as file:
        file.write(safetensors.numpy.save(arrays, metadata))


def load_model(path: Path) -> SavedModel:
    """Read and check a model file.

    Raises:
        ModelFileError: the file is missing, is not a charrnn model, or contradicts itself.
    """
    with _opened(path) as file:
        record, layout = _described(path, file)
        found = {name: _array(path, file, name, dtype, shape) for name, dtype, shape in layout}
    return SavedModel(
        config=record.config,
        vocabulary=record.vocabulary,
        text=record.text,
        weights={name: found[name] for name in record.config.weight_shapes()},
        training=record.training,
    )


def read_model_record(path: Path) -> ModelRecord:
    """Read what a model file says, and check all but the values of its weights.

    Raises:
        ModelFileError: the file is missing, is not a charrnn model, or contradicts itself.
    """
    with _opened(path) as file:
        return _described(path, file)[0]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_ordinary(path) as file:
            yield file
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ModelFileError(f"there is no model file {path}") from error
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read: {reason(error)}") from error


Layout = list[tuple[str, np.dtype[Any], tuple[int, ...]]]
"""Name, type and shape of the arrays, in the order they have in the file."""


def _described(path: Path, file: BinaryIO) -> tuple[ModelRecord, Layout]:
    """Return what the header says; the file is left where the arrays begin."""
    try:
        header = read_header(file)
        values = header_record(header, RECORD_KEY)
    except ValueError as error:
        raise ModelFileError(f"{path} is not a charrnn model: {error}") from error
    if values.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has model format {shown(values.get('format_version'))}, and this charrnn "
            f"reads format {FORMAT_VERSION}: use the charrnn that wrote it, or a newer one"
        )
    record = _checked_record(path, values)
    return record, _checked_layout(path, header, record.config)


def _checked_record(path: Path, values: Mapping[str, Any]) -> ModelRecord:
    training = values.get("training")
    _check(path, isinstance(training, dict), "its training record is missing")
    try:
        is_short = len(json.dumps(training)) <= MAX_TRAINING_BYTES
    except (RecursionError, ValueError):
        is_short = False
    _check(path, is_short, "its training record is too long or too deep")
    try:
        config = ModelConfig.from_dict(values.get("model"))
        vocabulary = Vocabulary.from_dict(values.get("vocabulary"))
        text = TextConfig.from_dict(values.get("text"))
    except ConfigError as error:
        problem = str(error)
        _check(path, False, problem[:MAX_PROBLEM] + "…" * (len(problem) > MAX_PROBLEM))
    _check(
        path,
        len(vocabulary) == config.vocab_size,
        f"its vocabulary has {len(vocabulary)} ids, its config {config.vocab_size}",
    )
    assert isinstance(training, dict)
    return ModelRecord(config=config, vocabulary=vocabulary, text=text, training=training)


def _checked_layout(path: Path, header: Mapping[str, Any], config: ModelConfig) -> Layout:
    """Compare the arrays with the config."""
    shapes = config.weight_shapes()
    names = header.keys() - {METADATA}
    _check(path, names == shapes.keys(), "its arrays are not those its config asks for")
    found = []
    for name, shape in shapes.items():
        try:
            entry = header[name]
            dtype = STORED_DTYPES[entry["dtype"]]
            begin, end = entry["data_offsets"]
            is_sound = entry["shape"] == list(shape) and (
                end - begin == math.prod(shape) * dtype.itemsize
            )
        except (LookupError, TypeError, ValueError):
            is_sound = False
        _check(path, is_sound, f"its array {name} should be float32 or float16 of shape {shape}")
        found.append((begin, (name, dtype, shape)))
    found.sort(key=lambda one: one[0])
    return [one for _, one in found]


def _array(
    path: Path, file: BinaryIO, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Read and check the next array."""
    stored = np.empty(shape, dtype)
    n_read = file.readinto(stored.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
    _check(path, n_read == stored.nbytes, "it was cut short while it was read")
    largest = float(max(stored.max(), -stored.min()))
    _check(path, math.isfinite(largest), f"its array {name} has values that are no numbers")
    _check(path, largest <= MAX_WEIGHT, f"its array {name} has values that are no weights")
    return stored.astype(np.float32, copy=False)


def _check(path: Path, holds: bool, problem: str) -> None:
    if not holds:
        raise ModelFileError(f"{path} is not a sound charrnn model: {problem}")
