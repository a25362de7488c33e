"""A loss that explodes rolls the run back, with a lower learning rate, and not for ever."""

from __future__ import annotations

import dataclasses
import math

import pytest
import texts
import torch

from charrnn import events
from charrnn.errors import DivergenceError
from charrnn.training.divergence import CHECK_EVERY, MAX_ROLLBACKS, Caution, has_diverged


def test_what_counts_as_an_explosion():
    chance = math.log(50)
    assert not has_diverged(None, 1000, 50)
    assert not has_diverged(1.4 * chance, 1000, 50)
    assert has_diverged(1.6 * chance, 1000, 50)
    assert not has_diverged(1.6 * chance, 99, 50)  # the first steps may be wild
    assert has_diverged(math.nan, 1, 50)
    assert has_diverged(math.inf, 1, 50)


def test_caution_grows_and_ends(tmp_path):
    caution = Caution()
    for k in range(1, MAX_ROLLBACKS + 1):
        caution = caution.after_explosion(tmp_path / "model")
        assert caution.rollbacks == k
        assert caution.rate_scale == pytest.approx(0.3**k)
    with pytest.raises(DivergenceError, match=r"4 times.*no model was saved"):
        caution.after_explosion(tmp_path / "model")
    (tmp_path / "model").touch()
    with pytest.raises(DivergenceError, match="the best model so far is"):
        caution.after_explosion(tmp_path / "model")


@pytest.fixture
def losing(prepare):
    """Return a trainer whose mean loss in a step is made up: by the number of the step taken."""

    def losing(loss_of, **options):
        trainer = prepare(texts.english(4000), **options)
        take_step, taken = trainer._learner.take_step, iter(range(1, 10_000))

        def take(rate_factor):
            loss, count = take_step(rate_factor)
            made_up = loss_of(next(taken))
            return (loss if made_up is None else torch.full_like(loss, made_up * count)), count

        trainer._learner.take_step = take
        return trainer, taken

    return losing


def of_type(found, kind):
    return [event for event in found if isinstance(event, kind)]


def test_a_run_goes_back_once_and_ends_well(losing):
    """Evaluated after steps 20, 40, 60 and 80; the loss is no number in step 45."""
    trainer, taken = losing(lambda step: math.nan if step == 45 else None, steps=80)
    found = list(trainer.run())
    (back,) = of_type(found, events.RolledBack)
    assert (back.exploded_at, back.step, back.rate_scale) == (48, 40, 0.3)
    evaluated = of_type(found, events.Evaluated)
    assert [e.step for e in evaluated] == [20, 40, 60, 80]
    rates = {e.step: e.learning_rate for e in evaluated}
    assert rates[60] < 0.3 * rates[40]
    assert next(taken) == 80 + 8 + 1
    assert found[-1].reason == "steps"
    assert math.isfinite(found[-1].val_loss)


def test_a_spike_at_the_beginning_does_not_end_a_healthy_run(losing):
    """The mean since the last evaluation would be that of an explosion up to step 400."""
    trainer, _ = losing(lambda step: 1000.0 if 10 <= step <= 30 else 1.0, steps=800)
    found = list(trainer.run())
    assert not of_type(found, events.RolledBack)
    assert of_type(found, events.Evaluated)[0].train_loss > 0
    assert found[-1].step == 800


def test_an_explosion_is_seen_within_some_steps_however_good_the_run_was(losing):
    trainer, _ = losing(lambda step: 1000.0 if 300 <= step <= 303 else 1.0, steps=800)
    (back,) = of_type(trainer.run(), events.RolledBack)
    assert back.step == 280
    assert 300 <= back.exploded_at < 300 + CHECK_EVERY


def test_a_validation_loss_that_is_no_number_rolls_back(prepare, monkeypatch):
    trainer = prepare(texts.english(4000), steps=80)
    measure, calls = trainer._learner.measure, iter(range(100))

    def broken_once(**how):
        measured = measure(**how)
        return dataclasses.replace(measured, loss=math.nan) if next(calls) == 3 else measured

    monkeypatch.setattr(trainer._learner, "measure", broken_once)
    found = list(trainer.run())
    (back,) = of_type(found, events.RolledBack)
    assert (back.exploded_at, back.step) == (80, 60), "even at the end"
    assert [e.step for e in of_type(found, events.Evaluated)] == [20, 40, 60, 80]
