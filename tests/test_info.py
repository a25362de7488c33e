"""`charrnn info` says how a run went: its verdict, and both of its models."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import texts

from charrnn import api
from charrnn.cli.info import info
from charrnn.errors import RunError
from charrnn.storage.model_file import load_model, save_model
from charrnn.training.loss import Measured
from charrnn.training.saving import RunFiles
from charrnn.training.verdict import verdict

SHAPE = {"hidden_size": 16, "embedding_size": 8, "batch_size": 8, "bptt": 16}
OPTIONS = {"dtype": "float32", "device": "cpu", "sample_every": 0}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Return a trainer for a text. The run is `run` in the current directory."""
    monkeypatch.chdir(tmp_path)  # long paths would be folded

    def prepare(text, **options):
        path = Path("text.txt")
        path.write_text(text, encoding="utf-8")
        return api.prepare_training([path], out=Path("run"), **SHAPE, **OPTIONS, **options)

    return prepare


def shown(path):
    """What `info` prints, without its layout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        info(path)
    return " ".join(out.getvalue().split())


def test_the_verdict_of_the_run_is_in_its_model_and_shown(prepare):
    trainer = prepare(texts.english(4000), steps=30)
    verdict = list(trainer.run())[-1].verdict
    assert verdict.startswith("underfit")
    assert load_model(trainer.run_directory.model).training["verdict"] == verdict
    text = shown(trainer.run_directory.path)
    assert f"verdict {verdict}" in text
    assert "of the run" not in text  # the best model is the last


@pytest.fixture
def patient(prepare, monkeypatch):
    """A run whose validation loss rises, so that its last model is not its best."""
    trainer = prepare(texts.english(3000), steps=400, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.625])

    def measure(*, validation, logit_scale=1.0, limit=None):
        return Measured(next(losses) if validation else 1.5, 1.0)

    monkeypatch.setattr(trainer._learner, "measure", measure)
    return trainer, list(trainer.run())[-1]


def test_both_models_of_a_run_are_shown(patient):
    trainer, finished = patient
    run = trainer.run_directory
    best, last = load_model(run.model).training, load_model(run.last).training
    assert best["step"] == finished.best_step < last["step"] == finished.step
    assert best["verdict"] == last["verdict"] == finished.verdict
    text = shown(run.path)
    assert f"last of the run {run.last} step {last['step']}, validation" in text
    assert f"{last['val_loss_nats']:.3f}" in text
    text = shown(run.last)
    assert f"best of the run {run.model} step {best['step']}, validation" in text


def test_a_model_away_from_its_run_is_shown_alone(patient):
    trainer, finished = patient
    away = Path("away.safetensors")
    away.write_bytes(trainer.run_directory.model.read_bytes())
    text = shown(away)
    assert finished.verdict in text
    assert "of the run" not in text


def test_adding_the_verdict_leaves_the_weights_as_they_are(patient, tiny_model):
    trainer, _ = patient
    run = trainer.run_directory
    save_model(run.model, tiny_model)
    RunFiles(run, trainer.corpus, trainer.model, trainer.training).add_verdict("well fit")
    again = load_model(run.model)
    assert again.training == {**tiny_model.training, "verdict": "well fit"}
    for name, array in tiny_model.weights.items():
        assert again.weights[name].tobytes() == array.tobytes()


def test_a_last_model_that_was_overtaken_is_taken_away(prepare):
    """A stop leaves a last model; a better one after --resume is both best and last."""
    trainer = prepare(texts.english(4000), steps=100)
    run = trainer.run_directory
    for event in trainer.run():
        trainer.stop_requested |= getattr(event, "step", 0) >= 50
    save_model(run.last, load_model(run.model))
    list(api.prepare_resume([], out=run.path).run())
    assert load_model(run.model).training["step"] == 100
    assert not run.last.exists()


def test_a_resume_state_without_a_plan_is_refused(prepare, monkeypatch):
    """As an older charrnn wrote it."""
    trainer = prepare(texts.english(4000), steps=100)
    trainer.stop_requested = True
    list(trainer.run())
    resumed = api.prepare_resume([], out=trainer.run_directory.path)
    resumed._resume = json.loads(json.dumps(resumed._resume))
    del resumed._resume["plan"]
    with pytest.raises(RunError, match=r"another charrnn.*plan"):
        list(resumed.run())


def test_a_text_read_less_than_twice_is_underfit():
    row = {"val_loss_nats": 2.0, "epoch": 1.5}
    assert verdict([row], 1.9) == (
        "underfit: the text has been read only 1.5 times; more training would help"
    )
    assert verdict([{**row, "epoch": 2.5}], 1.9).startswith("well fit")


def test_a_run_is_judged_at_its_end_only(prepare):
    trainer = prepare(texts.english(4000), steps=100)
    for event in trainer.run():
        trainer.stop_requested |= getattr(event, "step", 0) >= 50
    assert event.verdict.startswith("the run was stopped before its end")
    path = trainer.run_directory.path
    assert load_model(trainer.run_directory.model).training["verdict"] == event.verdict
    finished = list(api.prepare_resume([], out=path).run())[-1]
    assert finished.verdict.startswith(("underfit", "well fit", "overfit", "leaning"))
    assert load_model(trainer.run_directory.model).training["verdict"] == finished.verdict
