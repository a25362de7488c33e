"""Progress drives the learning rate, the evaluations and the end, under every limit."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import texts
from hypothesis import given
from hypothesis import strategies as st

from charrnn import events
from charrnn.config import TrainingConfig
from charrnn.training import schedule as schedule_module
from charrnn.training.prepare import prepare_resume
from charrnn.training.schedule import Clock, Schedule, learning_rate_factor
from charrnn.training.sizing import Speed


def make(*, n_train=100_000, n_val=10_000, **limits):
    return Schedule(TrainingConfig(**limits), n_train=n_train, n_val=n_val)


@pytest.fixture(scope="module", autouse=True)
def ends_at_once():
    """A process that takes no time to start and to end, in all tests but one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_module, "EXIT_S", 0.0)
        yield


class FakeClock(Clock):
    """Says how long the closing takes."""

    def __init__(self, closing_s=0.0):
        super().__init__()
        self.seconds = closing_s

    def closing_s(self, n_val, n_train):
        return self.seconds


def follow(schedule, *, epoch_of=lambda step: 0.0, seconds_of=lambda step: 0.0, closing_s=0.0):
    """Yield the schedule after each of its steps."""
    clock = FakeClock(closing_s)
    while not schedule.is_complete:
        step = schedule.step + 1
        schedule.advance(epoch_of(step), seconds_of(step), clock)
        yield schedule


def ticks(schedule, chars_per_step=1000, **of):
    """Return the steps after which an evaluation is due."""
    return [s.step for s in follow(schedule, **of) if s.evaluation_is_due(s.step * chars_per_step)]


# progress


@pytest.mark.parametrize(
    ("limits", "steps", "reason"),
    [
        ({"steps": 40}, 40, "steps"),
        ({"epochs": 3}, 300, "epochs"),
        ({"time_s": 50}, 500, "time"),
        ({"steps": 400, "epochs": 3}, 300, "epochs"),
        ({"steps": 200, "epochs": 3}, 200, "steps"),
        ({"steps": 400, "epochs": 3, "time_s": 20}, 200, "time"),
        ({"time_s": 50, "epochs": 0.5}, 50, "epochs"),
    ],
)
def test_the_first_limit_reached_ends_the_run(limits, steps, reason):
    schedule = make(**limits)
    rises = [
        s.progress
        for s in follow(schedule, epoch_of=lambda n: n / 100, seconds_of=lambda n: n / 10)
    ]
    assert (schedule.step, schedule.reason) == (steps, reason)
    np.testing.assert_allclose(rises, np.arange(1, steps + 1) / steps)


def test_time_is_counted_from_the_first_step_and_includes_what_comes_after_the_last():
    schedule = make(time_s=100)
    schedule.preparation_s = 10.0
    found = [s.progress for s in follow(schedule, seconds_of=lambda n: 10.0 + n, closing_s=20.0)]
    np.testing.assert_allclose(found, np.arange(1, 71) / 70)
    assert schedule.late_s == 0


def test_a_time_limit_includes_the_end_of_the_process(monkeypatch):
    monkeypatch.setattr(schedule_module, "EXIT_S", 2.0)
    monkeypatch.setattr(schedule_module, "EXIT_SHARE", 0.01)
    for limit, steps in ((100, 99), (1000, 998)):
        assert len(list(follow(make(time_s=limit), seconds_of=float))) == steps


def test_training_gets_half_of_the_time_however_long_the_preparation_took():
    schedule = make(time_s=100)
    schedule.preparation_s = 400.0
    assert schedule.late_s == 350
    assert len(list(follow(schedule, seconds_of=lambda n: 400.0 + n))) == 50


def test_training_gets_half_of_its_time_however_long_the_closing_takes():
    assert len(list(follow(make(time_s=100), seconds_of=float, closing_s=1e9))) == 50


def test_progress_never_goes_back():
    """Here because the closing turns out to take longer than was thought."""
    schedule, clock = make(time_s=100), FakeClock(20.0)
    found = []
    for step in range(1, 81):
        clock.seconds = 20.0 if step <= 40 else 0.0
        schedule.advance(0.0, float(step), clock)
        found.append(schedule.progress)
    assert found[39] == 0.5
    assert found[40:50] == [0.5] * 10
    assert found[79] == 0.8


# the learning rate


def test_the_learning_rate_rises_once_and_falls_once_to_nearly_nothing():
    for n in (1, 5, 60, 1000, 5000):
        rates = [learning_rate_factor(step, step / n) for step in range(n)]
        peak = int(np.argmax(rates))
        assert (np.diff(rates[: peak + 1]) > 0).all()
        assert (np.diff(rates[peak:]) < 0).all()
        if n >= 60:
            assert 0.05 * n <= peak <= 0.1 * n or 80 <= peak <= 99
            assert rates[peak] > 0.96
            assert rates[-1] < 0.003
    assert learning_rate_factor(10**6, 1.0) == schedule_module.FINAL_RATE


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_the_learning_rate_never_rises_again(step, one, other):
    low, high = sorted((one, other))
    if step >= schedule_module.WARMUP_STEPS:
        assert learning_rate_factor(step, low) >= learning_rate_factor(step + 1, high)


# evaluations


def test_evaluations_that_cost_nothing_are_at_every_point_of_the_grid():
    assert ticks(make(steps=400, n_val=0)) == list(range(20, 401, 20))
    assert ticks(make(steps=30, n_val=0))[-3:] == [27, 29, 30]
    assert ticks(make(steps=3, n_val=0)) == [1, 2, 3]


def test_evaluations_that_are_dear_are_at_the_quarters():
    assert ticks(make(steps=400, n_val=10**9)) == [100, 200, 300, 400]


def test_evaluations_that_are_dear_are_fewer_under_a_time_limit():
    """Each costs 100,000 characters, and a quarter of the characters is due for all of them."""
    dear = {"n_val": 300_000, "time_s": 40}
    assert ticks(make(**dear), seconds_of=lambda n: n / 10) == [400]
    assert ticks(make(**dear), 4001, seconds_of=lambda n: n / 10) == [100, 200, 300, 400]
    assert ticks(make(**dear), 2001, seconds_of=lambda n: n / 10) == [200, 400]


@given(
    st.integers(1, 2000),
    st.integers(0, 10**7),
    st.integers(1, 10**5),
    st.booleans(),
)
def test_evaluations_are_on_the_grid_and_cost_little(total, n_val, chars_per_step, is_timed):
    limits = {"time_s": float(total)} if is_timed else {"steps": total}
    found = ticks(make(n_val=n_val, **limits), chars_per_step, seconds_of=float)
    assert found[-1] == total
    points = {math.ceil(k * total / 20 - 1e-9): k for k in range(1, 21)}
    assert set(found) <= set(points)
    quarters = {step for step, k in points.items() if k % 5 == 0}
    if not is_timed:
        assert quarters - {0} <= set(found) or total < 20
    for number, step in enumerate(found[:-1], 1):
        cost = number * n_val / 3
        allowed = math.inf if not is_timed else 0.25
        share = 0.03 if step not in quarters and total >= 20 else allowed
        assert cost <= share * step * chars_per_step * (1 + 1e-9) or total < 20


def test_the_clock_has_no_say_in_the_evaluations_of_a_run_limited_by_steps():
    slow = ticks(make(steps=1000), seconds_of=lambda n: 1e6 * n, closing_s=1e9)
    assert slow == ticks(make(steps=1000), seconds_of=lambda n: 1e-6 * n)
    assert 4 < len(slow) < 20


# the early end


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ([2.0, 1.5, 1.6, 1.6, 1.6], True),
        ([2.0, 1.5, 1.6, 1.6], False),  # two in a row are chance
        ([2.0, 1.5, 1.6, 1.51, 1.6], False),  # within a hundredth of the best
        ([2.0, 1.9, 1.8, 1.7, 1.6], False),
        ([], False),
    ],
)
def test_validation_keeps_rising(losses, ends):
    schedule = make(time_s=100)
    next(follow(schedule, seconds_of=lambda n: 40.0))
    assert schedule.shorten_if_rising(losses) is ends
    assert schedule.shorten_if_rising(losses) is False, "once is enough"


def test_only_a_time_limit_is_shortened():
    schedule = make(steps=100, epochs=9)
    next(follow(schedule))
    assert not schedule.shorten_if_rising([1.0, 2.0, 2.0, 2.0])


def test_what_remains_of_a_rising_run_is_over_in_a_few_steps():
    schedule = make(time_s=1000)
    run = follow(schedule, seconds_of=float)
    for _ in range(400):
        next(run)
    assert schedule.progress == 0.4
    assert schedule.shorten_if_rising([1.0, 2.0, 2.0, 2.0])
    rest = [s.progress for s in run]
    np.testing.assert_allclose(rest, 0.4 + 0.6 * np.arange(1, 61) / 60)
    assert schedule.reason == "rising loss"


def test_a_rising_run_that_is_about_to_end_does_not_become_longer():
    schedule = make(time_s=1000)
    run = follow(schedule, seconds_of=float)
    for _ in range(950):
        next(run)
    assert schedule.shorten_if_rising([1.0, 2.0, 2.0, 2.0])
    assert len(list(run)) == 50
    assert schedule.reason == "time"


# saved and restored


@given(st.integers(1, 150), st.booleans())
def test_a_schedule_continues_from_its_state(n, is_shortened):
    whole = make(time_s=200, epochs=3)
    of = {"epoch_of": lambda s: s / 60, "seconds_of": float}
    run = follow(whole, **of)
    for _ in range(n):
        next(run)
        whole.evaluation_is_due(whole.step * 10**6)
    if is_shortened:
        whole.shorten_if_rising([1.0, 2.0, 2.0, 2.0])
    again = make(time_s=200, epochs=3)
    again.load(whole.state())
    assert again.state() == whole.state()
    assert ticks(again, **of) == ticks(whole, **of)
    assert again.state() == whole.state()


# the clock


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves: `now[0]`, in seconds."""
    moment = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


def test_the_clock_measures_steps_and_pauses_apart(now):
    clock = Clock()
    assert clock.closing_s(1000, 500) == 0, "nothing is known yet"
    for _ in range(3):  # allocate and compile
        now[0] += 100
        clock.step(64)
    for _ in range(10):
        now[0] += 0.1
        clock.step(50)
    assert clock.chars_per_s == pytest.approx(500)
    assert clock.closing_s(3000, 1500) == pytest.approx(1500 / 500), "reading costs a third"
    with clock.pause():
        with clock.reading(3000):
            now[0] += 4
        now[0] += 1
    now[0] += 0.1
    clock.step(50)
    assert clock.chars_per_s == pytest.approx(500)
    assert clock.closing_s(3000, 1500) == pytest.approx(5 + 2)


# whole runs


def steps_evaluated(trainer):
    return [event.step for event in trainer.run() if isinstance(event, events.Evaluated)]


@pytest.mark.parametrize("how", [{"steps": 40}, {"epochs": 1.28}], ids=["steps", "epochs"])
def test_a_large_validation_text_is_read_seldom(prepare, how):
    found = steps_evaluated(prepare(texts.english(8000), **how, val_fraction=0.5))
    assert len(found) == 4
    assert np.ptp(np.diff([0, *found])) <= 1, "spread evenly"


def test_a_small_validation_text_is_read_often(prepare):
    found = steps_evaluated(prepare(texts.english(8000), steps=40, val_fraction=0.002))
    assert found == list(range(2, 41, 2))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_short_run_is_evaluated_at_its_end(prepare, steps):
    found = steps_evaluated(prepare(texts.english(8000), steps=steps, val_fraction=0.5))
    assert found[-1] == steps


def test_evaluations_change_nothing_of_what_is_learned(prepare, monkeypatch):
    """They draw no random number that the training draws, and touch no weight."""
    ends = []
    for cheap, number in ((0.0, 4), (math.inf, 20)):
        monkeypatch.setattr(schedule_module, "CHEAP", cheap)
        options = {"steps": 60, "dropout": 0.3, "num_layers": 2, "unknown_rate": 0.05}
        trainer = prepare(texts.english(4000), **options, sample_every=1)
        assert len(steps_evaluated(trainer)) == number
        ends.append(trainer._learner.network.export_weights())
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name], err_msg=name)


def noise(n):
    """Letters by chance: they can only be memorised."""
    return "".join(np.random.default_rng(0).choice(list("abcdefgh \n"), n))


@pytest.fixture
def ticking(now, monkeypatch):
    """Each step takes 0.1 s, reading 10,000 characters a second 0.1 ms each; nothing else."""

    def ticking(trainer):
        learner = trainer._learner
        take_step, measure = learner.take_step, learner.measure

        def slow_step(rate_factor):
            now[0] += 0.1
            return take_step(rate_factor)

        def slow_measure(**how):
            corpus = trainer.corpus
            n = corpus.n_val if how["validation"] else min(corpus.n_train, how["limit"])
            now[0] += n / 10_000
            return measure(**how)

        monkeypatch.setattr(learner, "take_step", slow_step)
        monkeypatch.setattr(learner, "measure", slow_measure)
        return trainer

    monkeypatch.setattr(
        "charrnn.training.sizing.measure_speed", lambda device, dtype: Speed(1e5, 1e5)
    )
    return ticking


@pytest.mark.parametrize("late_s", [0.0, 8.0])
def test_a_time_limit_includes_the_closing(prepare, ticking, now, late_s):
    """Of 4,000 characters, read once more after the last step, a tenth twice: 0.4 s in all."""
    started = now[0]
    now[0] += late_s
    trainer = ticking(prepare(texts.english(4000), time_s=20.0, epochs=1e6, started=started))
    found = list(trainer.run())
    finished = found[-1]
    assert finished.reason == "time"
    assert finished.elapsed_s == pytest.approx(20.0, abs=0.15)
    assert now[0] - started == finished.elapsed_s
    assert finished.step == pytest.approx((20.0 - late_s) / 0.1 - 6, abs=4)
    evaluated = [e for e in found if isinstance(e, events.Evaluated)]
    assert evaluated[-1].step == finished.step
    assert evaluated[-1].learning_rate < 0.01 * max(e.learning_rate for e in evaluated)


def test_a_run_whose_preparation_takes_too_long_says_so(prepare, ticking, now):
    started = now[0]
    now[0] += 1000
    found = list(ticking(prepare(texts.english(4000), time_s=20.0, started=started)).run())
    assert found[0].late_s == 990
    assert found[-1].elapsed_s == pytest.approx(1010, abs=0.15)


def test_a_time_limit_counts_on_after_a_stop(prepare, ticking, now):
    started = now[0]
    trainer = ticking(prepare(texts.english(4000), time_s=20.0, epochs=1e6, started=started))
    for event in trainer.run():
        trainer.stop_requested |= isinstance(event, events.Evaluated) and event.progress >= 0.5
    stopped_s = event.elapsed_s
    assert event.reason == "interrupted"
    now[0] += 10_000  # the night
    resumed = ticking(prepare_resume([], out=trainer.run_directory.path, started=now[0]))
    finished = list(resumed.run())[-1]
    assert finished.reason == "time"
    assert stopped_s < finished.elapsed_s == pytest.approx(20.0, abs=0.5)


def test_overfitting_is_cut_short_with_the_rate_brought_down(prepare, ticking):
    settings = {"hidden_size": 64, "learning_rate": 2e-2, "val_fraction": 0.2}
    trainer = ticking(prepare(noise(1500), time_s=120.0, epochs=1e6, **settings))
    seen = list(trainer.run())
    (rising,) = [e for e in seen if isinstance(e, events.LossRises)]
    evaluated = [e for e in seen if isinstance(e, events.Evaluated)]
    assert seen[-1].reason == "rising loss"
    assert seen[-1].step == evaluated[-1].step == rising.step + math.ceil(0.15 * rising.step)
    assert evaluated[-1].progress == 1
    assert evaluated[-1].learning_rate < 0.01 * settings["learning_rate"]
    rates = [e.learning_rate for e in seen if isinstance(e, events.Progressed)]
    falling = rates[int(np.argmax(rates)) :]
    assert len(falling) > 50
    assert all(one >= two for one, two in itertools.pairwise(falling))


def test_a_limit_that_was_asked_for_is_used_up(prepare):
    settings = {"hidden_size": 64, "steps": 1200, "learning_rate": 2e-2, "val_fraction": 0.2}
    assert steps_evaluated(prepare(noise(1500), **settings))[-1] == 1200
