"""`make pretrained` at the smallest scale: what it writes, and when it refuses to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import texts

from charrnn.api import load

SCRIPT = Path(__file__).resolve().parents[1] / "corpora" / "pretrained.py"
SMALL = ("--hidden", 8, "--embedding", 4, "--steps", 3, "--seed", 7)


@pytest.fixture
def make(tmp_path):
    """Run the script on a text of 3,000 characters."""
    (tmp_path / "plays.txt").write_text(texts.english(3000), encoding="utf-8")

    def make(*options):
        given = ("--text", "plays.txt", "--out", "made", *options)
        command = [sys.executable, str(SCRIPT), *map(str, given)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return make


def test_the_file_is_complete_and_the_same_every_time(make, tmp_path):
    done = make(*SMALL)
    assert done.returncode == 0, done.stderr
    model = load(tmp_path / "made")
    assert (model.saved.config.hidden_size, model.saved.config.embedding_size) == (8, 4)
    training = model.saved.training
    assert (training["config"]["seed"], training["config"]["steps"]) == (7, 3)
    storage = training["storage"]
    assert storage["val_loss_nats_float32"] == pytest.approx(training["val_loss_nats"], abs=0.02)
    assert f"{storage['val_loss_nats_float16']:.5f} in float16" in done.stdout
    check = training["check"]
    assert model.score(check["text"]).logprob == pytest.approx(check["logprob"], abs=1e-4)

    assert make(*SMALL).returncode == 0
    again = load(tmp_path / "made").saved
    for name, array in model.saved.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "plays.txt"]


def test_a_model_too_large_for_the_package_is_refused_before_training(make, tmp_path):
    (tmp_path / "made").write_bytes(b"the old one")
    done = make("--hidden", 500)
    assert done.returncode == 1
    assert "may have 1,500,000: choose a smaller --hidden" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "made").read_bytes() == b"the old one"


def test_a_text_that_is_not_there(make):
    done = make("--text", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pretrained: ")
    assert "nothing" in done.stderr
