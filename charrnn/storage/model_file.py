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

Nothing in the file is executed, and a file from a stranger can at worst be refused: names, shapes
and types are compared with the config before an array is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from charrnn.config import ModelConfig, TextConfig
from charrnn.errors import ConfigError, ModelFileError
from charrnn.storage.atomic import atomic_writer
from charrnn.vocab import Vocabulary

FORMAT_VERSION = 1
RECORD_KEY = "charrnn"
STORED_DTYPES = {"F32": "float32", "F16": "float16"}
"""Types that arrays may have in the file: safetensors' name and NumPy's."""

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Everything a model file holds."""

    config: ModelConfig
    vocabulary: Vocabulary
    text: TextConfig = field(default_factory=TextConfig)
    weights: Weights
    """Arrays by name, with the shapes of `config.weight_shapes()`."""
    training: Mapping[str, Any]
    """How it was made: JSON values only."""


def save_model(path: Path, model: SavedModel, *, dtype: str = "float32") -> None:
    """Write a model atomically: a reader sees the old file or the new one, whole.

    The same model gives the same bytes.

    Args:
        path: where to write.
        model: what to write.
        dtype: of the arrays in the file: `float32`, or `float16` for half the size, each weight
            rounded to about three decimal digits.

    Raises:
        ModelFileError: a weight is too large for float16 (65,504 at most).
        StorageError: the file cannot be written.
    """
    assert dtype in STORED_DTYPES.values()
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
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="np") as file:
            record = _record(path, file.metadata())
            config, vocabulary, text = _checked_parts(path, record)
            names = set(file.keys())
            _check(path, config.num_layers <= len(names), "its layers are not all there")
            shapes = config.weight_shapes()
            _check(path, names == set(shapes), "its arrays are not those its config asks for")
            for name, shape in shapes.items():
                part = file.get_slice(name)
                _check(
                    path,
                    tuple(part.get_shape()) == shape and part.get_dtype() in STORED_DTYPES,
                    f"its array {name} should be float32 or float16 of shape {shape}",
                )
            weights = {name: file.get_tensor(name).astype(np.float32) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} is not a charrnn model: it cannot be read as safetensors ({error})"
        ) from error
    for name, array in weights.items():
        _check(
            path, bool(np.isfinite(array).all()), f"its array {name} has values that are no numbers"
        )
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        text=text,
        weights=weights,
        training=record["training"],
    )


def _record(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    _check(path, bool(metadata) and RECORD_KEY in (metadata or {}), "it has no charrnn record")
    assert metadata is not None
    try:
        record = json.loads(metadata[RECORD_KEY])
    except (ValueError, RecursionError):
        record = None
    _check(path, isinstance(record, dict), "its charrnn record is not a JSON object")
    assert isinstance(record, dict)
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has model format {version!r}, and this charrnn reads format "
            f"{FORMAT_VERSION}: use the charrnn that wrote it, or a newer one"
        )
    _check(path, isinstance(record.get("training"), dict), "its training record is missing")
    return record


def _checked_parts(
    path: Path, record: Mapping[str, Any]
) -> tuple[ModelConfig, Vocabulary, TextConfig]:
    try:
        config = ModelConfig.from_dict(record.get("model"))
        vocabulary = Vocabulary.from_dict(record.get("vocabulary"))
        text = TextConfig.from_dict(record.get("text"))
    except ConfigError as error:
        raise ModelFileError(f"{path} is not a sound charrnn model: {error}") from error
    _check(
        path,
        len(vocabulary) == config.vocab_size,
        f"its vocabulary has {len(vocabulary)} ids, its config {config.vocab_size}",
    )
    return config, vocabulary, text


def _check(path: Path, holds: bool, problem: str) -> None:
    if not holds:
        raise ModelFileError(f"{path} is not a sound charrnn model: {problem}")
