"""Temperature scaling of the finished model: one factor of its logits, and only where it helps."""

from __future__ import annotations

import numpy as np
import pytest
import texts

from charrnn import api, events
from charrnn.display.info import show_info
from charrnn.modelfile import load_model
from charrnn.training import calibration
from charrnn.training.calibration import fit_scale

SETTINGS = {
    "steps": 150,
    "learning_rate": 0.03,
    "weight_decay": 0.0,
    "batch_size": 4,
    "val_fraction": 0.5,
}


@pytest.mark.parametrize("confidence", [0.4, 0.7, 1.0, 1.2, 9.0])
def test_the_factor_is_that_of_least_loss(confidence):
    """Logits that are too large, right, or too small for the labels drawn from them."""
    rng = np.random.default_rng(3)
    right = 2 * rng.normal(size=(4000, 9))
    shares = np.exp(right) / np.exp(right).sum(1, keepdims=True)
    labels = (rng.random((4000, 1)) > shares.cumsum(1)).sum(1)

    def loss(scale):
        logits = scale * right / confidence
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(4000), labels]))

    grid = np.arange(calibration.LEAST, calibration.LARGEST + 1e-9, 0.001)
    best = grid[np.argmin([loss(scale) for scale in grid])]
    assert fit_scale(loss) == pytest.approx(best, abs=0.02)
    assert loss(fit_scale(loss)) <= loss(best) + 2e-4


def test_no_minimum_in_sight():
    assert fit_scale(lambda scale: -scale) == 1
    assert fit_scale(lambda scale: -(scale**2)) == 1


def run(trainer):
    return list(trainer.run())


def test_a_model_that_knows_its_text_by_heart_is_made_less_sure(prepare, monkeypatch, capsys):
    monkeypatch.setattr("charrnn.training.budget.MIN_EVALUATIONS", 1)
    monkeypatch.setattr("charrnn.training.budget.MAX_EVALUATIONS", 1)  # no earlier model is kept
    text = texts.markov(4000, seed=1)
    often = {**SETTINGS, "steps": 300, "val_fraction": 0.8}
    trainer = prepare(text, **often)
    finished = run(trainer)[-1]
    raw = prepare(text, calibrate=False, **often)
    untouched = run(raw)[-1]
    assert untouched.logit_scale == 1
    assert calibration.LEAST < finished.logit_scale < 0.98
    assert finished.val_loss < untouched.val_loss - 1e-3
    saved, before = (load_model(t.run_directory.model) for t in (trainer, raw))
    for name, array in before.weights.items():
        factor = finished.logit_scale if name.startswith("output.") else 1.0
        np.testing.assert_allclose(saved.weights[name], array * factor, rtol=1e-6)
    assert saved.training["logit_scale"] == finished.logit_scale
    assert saved.training["val_loss_nats"] == finished.val_loss
    assert "logit_scale" not in before.training
    show_info(trainer.run_directory.model, saved)
    assert f"logits times {finished.logit_scale:.3g}" in " ".join(capsys.readouterr().out.split())
    model = api.load(trainer.run_directory.model)
    held_out = text[800:]
    assert -model.score(held_out, eos=False).logprob / 3200 == pytest.approx(
        finished.val_loss, abs=2e-3
    )


def test_short_validation_texts_and_interrupted_runs_are_left_alone(prepare, monkeypatch):
    def fit(loss_at):
        raise AssertionError("nothing is to be fitted")

    monkeypatch.setattr("charrnn.training.trainer.fit_scale", fit)
    assert run(prepare(texts.markov(3000), **SETTINGS))[-1].logit_scale == 1
    assert run(prepare(texts.markov(9000), **SETTINGS | {"val_fraction": 0.0}))[-1].val_loss is None
    trainer = prepare(texts.markov(9000), **SETTINGS)
    for event in trainer.run():
        trainer.stop_requested = trainer.stop_requested or isinstance(event, events.Evaluated)
    assert event.reason == "interrupted"
    assert event.logit_scale == 1


def test_a_factor_that_does_not_help_is_not_used(prepare, monkeypatch):
    monkeypatch.setattr("charrnn.training.trainer.fit_scale", lambda loss_at: 0.1)
    trainer = prepare(texts.markov(5000), **SETTINGS)
    found = run(trainer)
    evaluated = [e.val_loss for e in found if isinstance(e, events.Evaluated)]
    assert (found[-1].val_loss, found[-1].logit_scale) == (min(evaluated), 1)
    assert "logit_scale" not in load_model(trainer.run_directory.model).training
