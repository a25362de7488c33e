"""Weights in fewer bits: how they are stored, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SamplingConfig, StoredPrecision
from charrnn.corpus.corpus import load_corpus
from charrnn.engine.network import Engine
from charrnn.engine.quantized import quantize_rows
from charrnn.errors import CorpusError
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.writer import Request, read_prompt
from charrnn.scoring.compare import added_bits
from charrnn.storage.model_file import SavedModel
from charrnn.storage.runs import RunDirectory

MEASURED_CHARS = 16_384
"""Characters on which the cost of a precision is measured."""
PIECE = 512
"""Characters of a piece of one long text; the pieces are read side by side."""


class Packed(NamedTuple):
    """An array in bytes, little-endian, rows one after the other.

    Attributes:
        dtype: `float32`, `float16`, or `int8`: then a float32 scale of each row comes first, and a
            weight is its integer times the scale of its row.
        data: the bytes.
        rows: `[.., R, C]` has all dimensions but the last multiplied; 1 for a vector.
    """

    dtype: str
    data: bytes
    rows: int


def pack(array: NDArray[np.float32], precision: StoredPrecision, *, is_matrix: bool) -> Packed:
    """Return an array in a precision; vectors, which are few numbers, are never in integers."""
    rows = math.prod(array.shape[:-1])
    if precision == "float32" or (precision == "int8" and not is_matrix):
        return Packed("float32", array.astype("<f4").tobytes(), rows)
    if precision == "float16":
        return Packed("float16", array.astype("<f2").tobytes(), rows)
    integers, scales = quantize_rows(array)
    return Packed("int8", scales.astype("<f4").tobytes() + integers.tobytes(), rows)


def rounded(saved: SavedModel, precision: StoredPrecision) -> dict[str, NDArray[np.float32]]:
    """Return the weights as a reader of the packed arrays finds them."""

    def one(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
        if precision == "float32" or (precision == "int8" and not is_matrix(name)):
            return array
        if precision == "float16":
            return array.astype(np.float16).astype(np.float32)
        integers, scales = quantize_rows(array)
        result: NDArray[np.float32] = integers * scales
        return result

    return {name: one(name, array) for name, array in saved.weights.items()}


def is_matrix(name: str) -> bool:
    """Return whether an array of `ModelConfig.weight_shapes` is a matrix of each member."""
    return "weight" in name


def cost_in_bits(saved: SavedModel, precision: StoredPrecision, texts: Sequence[str]) -> float:
    """Return the bits per event that a precision adds to the loss on some texts."""
    return added_bits(saved, Engine(saved.config, rounded(saved, precision)), texts)


def pieces(saved: SavedModel, text: str) -> list[str]:
    """Return the beginning of a text, cut into texts that the model reads side by side."""
    text = text[:MEASURED_CHARS]
    if saved.text.documents == "line":
        return text.splitlines()
    return [text[k : k + PIECE] for k in range(0, len(text), PIECE)]


def validation_texts(saved: SavedModel, path: Path | None) -> list[str]:
    """Return texts of the validation part of the model's run, if it still has its corpus."""
    folder = None if path is None else RunDirectory(path.parent).corpus
    if folder is None or not folder.is_dir():
        return []
    try:
        corpus = load_corpus(folder)
    except CorpusError:
        return []
    if corpus.vocabulary != saved.vocabulary:
        return []
    return corpus.validation_texts(MEASURED_CHARS, PIECE)


def own_texts(saved: SavedModel) -> list[str]:
    """Return texts that the model itself writes, for want of others; always the same."""
    engine = Engine(saved.config, saved.weights)
    config = SamplingConfig(length=PIECE, seed=0)
    start = read_prompt(engine, np.zeros(0, np.int64))
    requests = [Request(start, "", 1.0, k) for k in range(MEASURED_CHARS // PIECE)]
    samples = sample_batch(engine, saved.vocabulary, requests, config)
    return [sample.text for sample in samples]


def packed_arrays(
    saved: SavedModel, precision: StoredPrecision
) -> Iterator[tuple[str, tuple[int, ...], Packed]]:
    """Yield name, shape and bytes of each array."""
    for name, array in saved.weights.items():
        yield name, array.shape, pack(np.asarray(array), precision, is_matrix=is_matrix(name))


def record(saved: SavedModel) -> dict[str, Any]:
    """Return what a program needs beside the arrays, as JSON: shape, alphabet, kind of text."""
    return {
        "model": saved.config.to_dict(),
        "vocabulary": saved.vocabulary.to_dict(),
        "text": saved.text.to_dict(),
    }
