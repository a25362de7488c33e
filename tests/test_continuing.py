"""A finished run that is trained further, as the first part of a longer one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import texts

from charrnn import events
from charrnn.errors import ConfigError, RunError
from charrnn.storage.model_file import load_model
from charrnn.training.prepare import prepare_resume
from charrnn.training.schedule import learning_rate_factor

TEXT = texts.english(6000)
KINDS = [
    {},
    {"members": 2, "documents": "line"},
    {"unit": "byte", "cell": "gru", "dropout": 0.2, "recurrent_dropout": 0.1},
]


def finished(trainer):
    *_, last = trainer.run()
    return last


def continued(trainer, **limits):
    return prepare_resume([], out=trainer.run_directory.path, limits=limits)


def metrics_of(trainer):
    return [json.loads(line) for line in trainer.run_directory.metrics.read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS, ids=["text", "documents", "bytes"])
@pytest.mark.parametrize("limits", [{"steps": 60}, {"epochs": 1.5}], ids=["steps", "epochs"])
def test_a_finished_run_is_trained_further(prepare, kind, limits):
    """The learning rate begins where that of the run as long as both is, and ends at nothing."""
    trainer = prepare(TEXT, **kind, **limits)
    first = finished(trainer)
    again = continued(trainer, **limits)
    found = list(again.run())
    assert found[0].resumed_at == first.step
    assert found[-1].reason == next(iter(limits))
    assert found[-1].step == pytest.approx(2 * first.step, abs=4)
    assert found[-1].val_loss < first.val_loss
    rows = metrics_of(again)
    assert rows[: len(rows) // 2][-1]["step"] <= first.step
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    rates = [e.learning_rate for e in found if isinstance(e, events.Progressed)]
    peak = again.training.learning_rate
    assert rates[-1] < 0.01 * peak
    assert max(rates) < 0.55 * peak
    evaluated = [e for e in found if isinstance(e, events.Evaluated)]
    assert all(e.progress > 0.5 for e in evaluated)
    assert load_model(again.run_directory.model).training["step"] == found[-1].best_step


def test_the_rate_begins_where_that_of_a_longer_run_is(prepare):
    trainer = prepare(TEXT, steps=150)
    finished(trainer)
    again = continued(trainer, steps=450)
    rates = []
    take_step = again._learner.take_step
    again._learner.take_step = lambda factor: rates.append(factor) or take_step(factor)
    finished(again)
    expected = [learning_rate_factor(step, step / 600) for step in range(150, 600)]
    np.testing.assert_allclose(rates, expected)


def test_time_is_added_to_the_time_that_was_used(prepare):
    trainer = prepare(TEXT, steps=20)
    first = finished(trainer)
    again = continued(trainer, time_s=2.0)
    assert again.training.steps is None
    last = finished(again)
    assert last.reason == "time"
    assert last.elapsed_s == pytest.approx(first.elapsed_s + 2.0, abs=0.5)


def test_a_continued_run_is_stopped_and_resumed_like_any_other(prepare):
    kind = {"steps": 40, "dropout": 0.2, "members": 2}
    whole, trainer = prepare(TEXT, **kind), prepare(TEXT, **kind)
    for one in (whole, trainer):
        finished(one)
    finished(continued(whole, steps=40))
    stopped = continued(trainer, steps=40)
    take_step = stopped._learner.take_step

    def stopping(factor):
        stopped.stop_requested = stopped._schedule.step == 54
        return take_step(factor)

    stopped._learner.take_step = stopping
    assert finished(stopped).reason == "interrupted"
    with pytest.raises(ConfigError, match="steps is for a finished run"):
        continued(trainer, steps=40)
    assert finished(prepare_resume([], out=trainer.run_directory.path)).step == 80
    models = [one.run_directory.model.read_bytes() for one in (whole, trainer)]
    assert models[0] == models[1]


def test_an_explosion_goes_back_to_the_continued_run(prepare):
    trainer = prepare(TEXT, steps=40)
    finished(trainer)
    again = continued(trainer, steps=40)
    take_step, broken = again._learner.take_step, iter([True])

    def exploding(factor):
        loss, count = take_step(factor)
        return (loss * math.nan if next(broken, False) else loss), count

    again._learner.take_step = exploding
    found = list(again.run())
    assert sum(isinstance(e, events.RolledBack) for e in found) == 1
    assert found[-1].step == 80


def test_the_rising_loss_of_a_warm_start_does_not_end_the_run(prepare):
    """The loss of the finished run is lower than those of the higher rate at first."""
    trainer = prepare(TEXT, steps=40)
    finished(trainer)
    again = continued(trainer, time_s=1000.0)
    assert again._schedule.shorten_if_rising([1.0]) is False
    again._schedule.progress = 0.5
    next(again.run())
    assert again._first_row == len(metrics_of(trainer))
    again.run_directory.release()


def test_what_a_finished_run_is_given_is_checked(prepare):
    trainer = prepare(TEXT, steps=4)
    finished(trainer)
    with pytest.raises(RunError, match="is finished: say how much longer it is to train"):
        prepare_resume([], out=trainer.run_directory.path)
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        continued(trainer, steps=0)
    with pytest.raises(ConfigError, match="time_s must be a number"):
        continued(trainer, time_s="long")
    assert finished(continued(trainer, steps=4)).step == 8
