"""What all tests share: one thread, hypothesis without a clock, one tiny model, small runs."""

# ruff: noqa: E402  (threads are limited before NumPy and torch are imported)

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # subprocesses inherit it

from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, settings

from charrnn import api
from charrnn.config import ModelConfig
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import EOS_ID, Vocabulary

settings.register_profile(
    "charrnn",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("charrnn")

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyzé—ж中"
"""Of the tiny model: letters, and characters that ASCII and Windows code pages lack."""


@pytest.fixture(scope="session")
def tiny_model() -> SavedModel:
    """A model with random weights: it writes gibberish, but exactly."""
    vocabulary = Vocabulary(CHARACTERS)
    config = ModelConfig(
        vocab_size=len(vocabulary), cell="gru", hidden_size=12, num_layers=2, embedding_size=6
    )
    weights = reference.random_weights(config, seed=1)
    weights["output.bias"][EOS_ID] = -100.0  # it never ends by itself
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        weights={name: array.astype(np.float32) for name, array in weights.items()},
        training={},
    )


@pytest.fixture(scope="session")
def tiny_model_path(tiny_model: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, tiny_model)
    return path


@pytest.fixture
def prepare(tmp_path):
    """Write a text and return a trainer for it, small; each run in a directory of its own."""
    numbers = iter(range(100))
    small = {
        "hidden_size": 24,
        "embedding_size": 8,
        "batch_size": 8,
        "bptt": 16,
        "dtype": "float32",
        "device": "cpu",
        "sample_every": 0,
    }

    def prepare(text, **options):
        path = tmp_path / "text.txt"
        path.write_text(text, encoding="utf-8")
        out = options.pop("out", tmp_path / f"run{next(numbers)}")
        return api.prepare_training([path], out=out, **{**small, **options})

    return prepare
