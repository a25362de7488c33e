"""Temperature scaling of the finished model: one factor of its logits, and only where it helps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference
import texts
import torch

from charrnn import api, events
from charrnn.display.info import show_info
from charrnn.models.network import CharNetwork
from charrnn.storage.model_file import load_model
from charrnn.training import calibration
from charrnn.training.calibration import fit_scale
from charrnn.training.loss import measure, text_windows

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
    assert before.training["logit_scale"] == 1
    show_info(trainer.run_directory.model, saved)
    assert f"logits times {finished.logit_scale:.3g}" in " ".join(capsys.readouterr().out.split())
    model = api.load(trainer.run_directory.model)
    held_out = text[800:]
    assert -model.score(held_out, eos=False).logprob / 3200 == pytest.approx(
        finished.val_loss, rel=3e-4
    )
    assert -model.score(text[:800], eos=False).logprob / 800 == pytest.approx(
        finished.train_loss, rel=1e-4
    )


def test_the_model_judged_best_is_so_with_its_logits_scaled(prepare, monkeypatch):
    """A factor far off at the first evaluations makes a later model the best."""
    monkeypatch.setattr("charrnn.training.budget.MIN_EVALUATIONS", 12)
    text, often = texts.markov(4000, seed=1), {**SETTINGS, "steps": 600, "val_fraction": 0.8}
    outcomes = []
    for factors in ([1.0] * 12, [0.5] * 4 + [0.75] * 8):
        given = iter(factors)
        monkeypatch.setattr("charrnn.training.loss.fit_scale", lambda _, given=given: next(given))
        *found, finished = run(prepare(text, **often))
        evaluated = [e for e in found if isinstance(e, events.Evaluated)]
        assert [e.logit_scale for e in evaluated] == factors
        best = min(evaluated, key=lambda e: e.val_loss)
        assert (best.step, best.val_loss) == (finished.best_step, finished.val_loss)
        assert best.logit_scale == finished.logit_scale
        outcomes.append(finished)
    raw, scaled = outcomes
    assert raw.best_step <= 200 < scaled.best_step


def test_every_model_saved_has_its_own_factor_and_training_goes_on_without(prepare, monkeypatch):
    """The best at the first evaluation, the last at a later one; the weights learned are raw."""
    monkeypatch.setattr("charrnn.training.budget.MIN_EVALUATIONS", 12)
    text, often = texts.markov(4000, seed=1), {**SETTINGS, "steps": 600, "val_fraction": 0.8}
    trainer, raw = prepare(text, **often), prepare(text, calibrate=False, **often)
    *_, finished = run(trainer)
    run(raw)
    row = json.loads(trainer.run_directory.metrics.read_text().splitlines()[-1])
    last, before = (load_model(t.run_directory.last) for t in (trainer, raw))
    assert row["logit_scale"] == last.training["logit_scale"] != finished.logit_scale
    for name, array in before.weights.items():
        factor = row["logit_scale"] if name.startswith("output.") else 1.0
        np.testing.assert_allclose(last.weights[name], array * factor, rtol=1e-6)


def test_a_run_stopped_and_resumed_keeps_the_factors(prepare):
    text, settings = texts.markov(9000), SETTINGS | {"val_fraction": 0.5}
    through = prepare(text, **settings)
    *_, expected = run(through)
    stopped = prepare(text, **settings)
    for event in stopped.run():
        stopped.stop_requested = stopped.stop_requested or isinstance(event, events.Evaluated)
    assert event.reason == "interrupted"
    saved = load_model(stopped.run_directory.model)
    assert saved.training["logit_scale"] == event.logit_scale != 1
    *_, resumed = run(api.prepare_resume([], out=stopped.run_directory.path))
    assert (resumed.val_loss, resumed.logit_scale) == (expected.val_loss, expected.logit_scale)


def test_nothing_is_fitted_to_a_short_validation_text(prepare, monkeypatch):
    def fit(loss_at):
        raise AssertionError("nothing is to be fitted")

    monkeypatch.setattr("charrnn.training.loss.fit_scale", fit)
    assert run(prepare(texts.markov(3000), **SETTINGS))[-1].logit_scale == 1
    assert run(prepare(texts.markov(9000), **SETTINGS | {"val_fraction": 0.0}))[-1].val_loss is None
    with pytest.raises(AssertionError, match="nothing is to be fitted"):
        run(prepare(texts.markov(9000), **SETTINGS))


def test_the_factor_is_fitted_to_the_first_windows_and_all_are_measured_with_it(monkeypatch):
    rng = np.random.default_rng(5)
    ids = rng.integers(2, 9, 20_000).astype(np.uint8)
    config = reference.make_config("lstm", layers=1, embedding=4, vocab_size=9, hidden=6)
    torch.manual_seed(2)
    network = CharNetwork(config)
    with torch.no_grad():
        network.output.weight.mul_(10)
    cpu = torch.device("cpu")
    asked = []

    def fit(loss_at):
        asked.append((loss_at(1.0), loss_at(0.5)))
        return 0.5

    monkeypatch.setattr("charrnn.training.loss.fit_scale", fit)
    monkeypatch.setattr("charrnn.training.loss.MOST_LOGITS", 1)
    halved = measure(network, text_windows(ids), cpu, "float32", logit_scale=None)
    [(at_one, at_half)] = asked
    assert at_half < at_one < len(ids), "one window, of the one lane that needs no warm-up"
    with torch.no_grad():
        network.output.weight.mul_(0.5)
        network.output.bias.mul_(0.5)
    plain = measure(network, text_windows(ids), cpu, "float32")
    assert (halved.logit_scale, plain.logit_scale) == (0.5, 1)
    assert halved.loss == pytest.approx(plain.loss, rel=1e-6)
    assert plain.loss != pytest.approx(
        measure(network, text_windows(ids[:128]), cpu, "float32").loss
    )
