"""Temperature scaling of the saved model: fitted to the validation text, where that is long."""

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
from charrnn.training import schedule
from charrnn.training.loss import FIT_RANGE, fit_temperature, measure, text_windows
from charrnn.training.prepare import prepare_resume

SETTINGS = {
    "steps": 150,
    "learning_rate": 0.03,
    "weight_decay": 0.0,
    "batch_size": 4,
    "val_fraction": 0.5,
}


@pytest.mark.parametrize("confidence", [0.4, 0.7, 1.0, 1.2, 9.0])
def test_the_temperature_is_that_of_least_loss(confidence):
    """Logits that are too large, right, or too small for the labels drawn from them."""
    rng = np.random.default_rng(3)
    right = 2 * rng.normal(size=(4000, 9))
    shares = np.exp(right) / np.exp(right).sum(1, keepdims=True)
    labels = (rng.random((4000, 1)) > shares.cumsum(1)).sum(1)

    def loss(temperature):
        logits = right / confidence / temperature
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(4000), labels]))

    grid = np.arange(FIT_RANGE[0], FIT_RANGE[1] + 1e-9, 0.001)
    best = grid[np.argmin([loss(1 / inverse) for inverse in grid])]
    assert 1 / fit_temperature(loss) == pytest.approx(best, abs=0.02)
    assert loss(fit_temperature(loss)) <= loss(1 / best) + 2e-4


def test_no_minimum_in_sight():
    assert fit_temperature(lambda temperature: -1 / temperature) == 1
    assert fit_temperature(lambda temperature: -1 / temperature**2) == 1


def run(trainer):
    return list(trainer.run())


@pytest.fixture
def at_the_end_only(monkeypatch):
    """One evaluation, so that no earlier model is kept."""
    monkeypatch.setattr(schedule, "CHEAP", 0.0)
    monkeypatch.setattr(schedule, "QUARTERS", ())


@pytest.fixture
def often(monkeypatch):
    """Twenty evaluations, whatever they cost."""
    monkeypatch.setattr(schedule, "CHEAP", float("inf"))
    return {**SETTINGS, "steps": 600, "val_fraction": 0.8}


def test_a_model_that_overfits_is_made_less_confident(prepare, at_the_end_only, capsys):
    text = texts.markov(4000, seed=1)
    settings = {**SETTINGS, "steps": 300, "val_fraction": 0.8}
    trainer, raw = prepare(text, **settings), prepare(text, calibrate=False, **settings)
    finished, untouched = run(trainer)[-1], run(raw)[-1]
    assert untouched.temperature == 1
    assert 1.02 < finished.temperature < 1 / FIT_RANGE[0]
    assert finished.val_loss < untouched.val_loss - 1e-3
    saved, before = (load_model(t.run_directory.model) for t in (trainer, raw))
    for name, array in before.weights.items():
        divisor = finished.temperature if name.startswith("output.") else 1.0
        np.testing.assert_allclose(saved.weights[name], array / divisor, rtol=1e-6)
    assert saved.training["temperature"] == finished.temperature
    assert saved.training["val_loss_nats"] == finished.val_loss
    assert before.training["temperature"] == 1
    show_info(trainer.run_directory.model, saved, None)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"calibration temperature {finished.temperature:.3f}," in shown
    model = api.load(trainer.run_directory.model)
    held_out = text[800:]
    assert -model.score(held_out, eos=False).logprob / 3200 == pytest.approx(
        finished.val_loss, rel=3e-4
    )
    assert -model.score(text[:800], eos=False).logprob / 800 == pytest.approx(
        finished.train_loss, rel=1e-4
    )


def test_the_best_model_is_judged_calibrated(prepare, often, monkeypatch):
    """A temperature far off at the first evaluations makes a later model the best."""
    text, outcomes = texts.markov(4000, seed=1), []
    for temperatures in ([1.0] * 20, [2.0] * 7 + [1.33] * 13):
        chosen = iter(temperatures)
        monkeypatch.setattr(
            "charrnn.training.loss.fit_temperature", lambda _, chosen=chosen: next(chosen)
        )
        *found, finished = run(prepare(text, **often))
        evaluated = [e for e in found if isinstance(e, events.Evaluated)]
        assert [e.temperature for e in evaluated] == temperatures
        best = min(evaluated, key=lambda e: e.val_loss)
        assert (best.step, best.val_loss) == (finished.best_step, finished.val_loss)
        assert best.temperature == finished.temperature
        outcomes.append(finished)
    raw, calibrated = outcomes
    assert raw.best_step <= 210 < calibrated.best_step


def test_every_model_saved_has_its_own_temperature_and_training_goes_on_without(prepare, often):
    """The best at the first evaluation, the last at a later one; the weights learned are raw."""
    text = texts.markov(4000, seed=1)
    trainer, raw = prepare(text, **often), prepare(text, calibrate=False, **often)
    *_, finished = run(trainer)
    run(raw)
    row = json.loads(trainer.run_directory.metrics.read_text().splitlines()[-1])
    last, before = (load_model(t.run_directory.last) for t in (trainer, raw))
    assert row["temperature"] == last.training["temperature"] != finished.temperature
    for name, array in before.weights.items():
        divisor = row["temperature"] if name.startswith("output.") else 1.0
        np.testing.assert_allclose(last.weights[name], array / divisor, rtol=1e-6)


def test_a_run_stopped_and_resumed_keeps_the_temperatures(prepare):
    text, settings = texts.markov(9000), SETTINGS | {"val_fraction": 0.5}
    *_, expected = run(prepare(text, **settings))
    stopped = prepare(text, **settings)
    for event in stopped.run():
        stopped.stop_requested = stopped.stop_requested or isinstance(event, events.Evaluated)
    assert event.reason == "interrupted"
    saved = load_model(stopped.run_directory.model)
    assert saved.training["temperature"] == event.temperature != 1
    *_, resumed = run(prepare_resume([], out=stopped.run_directory.path))
    assert (resumed.val_loss, resumed.temperature) == (expected.val_loss, expected.temperature)


def test_nothing_is_fitted_to_a_short_validation_text(prepare, monkeypatch):
    def fit(loss_at):
        raise AssertionError("nothing is to be fitted")

    monkeypatch.setattr("charrnn.training.loss.fit_temperature", fit)
    assert run(prepare(texts.markov(3000), **SETTINGS))[-1].temperature == 1
    assert run(prepare(texts.markov(9000), **SETTINGS | {"val_fraction": 0.0}))[-1].val_loss is None
    with pytest.raises(AssertionError, match="nothing is to be fitted"):
        run(prepare(texts.markov(9000), **SETTINGS))


def test_the_temperature_is_fitted_to_the_first_windows_and_all_are_measured_at_it(monkeypatch):
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
        asked.append((loss_at(1.0), loss_at(2.0)))
        return 2.0

    monkeypatch.setattr("charrnn.training.loss.fit_temperature", fit)
    monkeypatch.setattr("charrnn.training.loss.FIT_LOGITS", 1)
    halved = measure(network, text_windows(ids), cpu, "float32", temperature=None)
    [(at_one, at_half)] = asked
    assert at_half < at_one < len(ids), "one window, of the one row that needs no warm-up"
    with torch.no_grad():
        network.output.weight.mul_(0.5)
        network.output.bias.mul_(0.5)
    plain = measure(network, text_windows(ids), cpu, "float32")
    assert (halved.temperature, plain.temperature) == (2, 1)
    assert halved.loss == pytest.approx(plain.loss, rel=1e-6)
    assert plain.loss != pytest.approx(
        measure(network, text_windows(ids[:128]), cpu, "float32").loss
    )
