"""Budgets become plans: evaluations are spread evenly, and cost little beside the training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import texts
from hypothesis import given
from hypothesis import strategies as st

from charrnn import events
from charrnn.config import TrainingConfig
from charrnn.training import budget as budget_module
from charrnn.training.budget import MAX_EVALUATIONS, MIN_EVALUATIONS, Budget, Plan


def steps_evaluated(trainer):
    return [event.step for event in trainer.run() if isinstance(event, events.Evaluated)]


def make_budget(*, n_train=100_000, n_val=10_000, chars_per_step=1000, **training):
    return Budget(
        TrainingConfig(**training),
        n_train=n_train,
        n_val=n_val,
        steps_per_epoch=n_train / chars_per_step,
    )


@dataclasses.dataclass
class FakeClock:
    steps: int
    seconds: float
    chars_per_s: float


# how many, and where


@given(st.integers(1, 500), st.integers(1, 20), st.integers(0, 300))
def test_evaluations_are_spread_evenly_and_the_last_is_at_the_end(steps, evaluations, begin):
    plan = Plan(begin + steps, min(steps, evaluations), begin)
    due = [step for step in range(begin + 1, begin + steps + 1) if plan.evaluates_after(step)]
    assert len(due) == plan.evaluations
    assert due[-1] == plan.total_steps
    gaps = np.diff([begin, *due])
    assert gaps.max() - gaps.min() <= 1


@given(st.integers(1, 10**6), st.integers(0, 10**7), st.integers(1, 10**5))
def test_evaluations_cost_three_percent_at_most(total, n_val, chars_per_step):
    budget = make_budget(n_val=n_val, chars_per_step=chars_per_step, steps=total)
    plan = budget.fixed_plan()
    assert plan.total_steps == total
    fewest, most = min(total, MIN_EVALUATIONS), min(total, MAX_EVALUATIONS)
    assert fewest <= plan.evaluations <= most
    trained = total * chars_per_step

    def share(evaluations):
        return evaluations * n_val / 3 / trained

    rounding = 1 + 1e-9
    assert plan.evaluations == fewest or share(plan.evaluations) <= 0.03 * rounding
    assert plan.evaluations == most or share(plan.evaluations + 1) > 0.03 / rounding


def test_one_rule_for_every_budget():
    """1,000 steps of 1,000 characters pay for nine readings of 10,000 at a third of the price."""
    expected = Plan(1000, 9)
    assert make_budget(steps=1000).fixed_plan() == expected
    assert make_budget(epochs=10).fixed_plan() == expected
    timed = make_budget(time_s=100.0)
    for seconds in (5.0, 20.0):  # whatever the speed of the machine
        clock = FakeClock(steps=100, seconds=seconds, chars_per_s=1e5 / seconds)
        plan, _ = timed.timed_plan(step=100, elapsed_s=50.0, clock=clock)
        assert plan == timed.plan(plan.total_steps)
    assert timed.plan(1000) == expected


# keeping to time


def test_a_time_budget_waits_until_the_speed_is_known():
    budget = make_budget(time_s=100.0)
    assert budget.timed_plan(8, 10.0, FakeClock(5, 5.0, 1000.0)) is None  # too few steps
    assert budget.timed_plan(8, 10.0, FakeClock(6, 3.9, 1000.0)) is None  # too short
    assert budget.timed_plan(8, 51.0, FakeClock(6, 3.9, 1000.0)) is not None  # but time is short
    assert budget.timed_plan(8, 10.0, FakeClock(6, 4.1, 1000.0)) is not None


def test_the_steps_of_a_time_budget_fill_the_time():
    budget = make_budget(time_s=100.0)
    plan, left_s = budget.timed_plan(50, 10.0, FakeClock(50, 5.0, 10_000.0))
    # 90 s, less 3 %; at a third of a step's price the validation text once and 100,000 characters
    # of the training text
    assert left_s == pytest.approx(0.97 * 90 - 110_000 / 3 / 10_000, abs=0.1)
    assert plan.total_steps == 50 + round(left_s / 0.1)


def test_little_time_is_for_training_however_long_the_validation_text():
    """Two seconds left, of which one reading of the validation text takes seven times as much."""
    budget = make_budget(time_s=10.0, n_val=10**6)
    clock = FakeClock(steps=6, seconds=0.12, chars_per_s=50_000.0)
    plan, left_s = budget.timed_plan(6, 8.0, clock)
    assert left_s == pytest.approx(0.47 * 2, abs=0.03)
    assert plan == Plan(6 + round(left_s / 0.02), 1)
    assert budget.plan(10**6).evaluations == MAX_EVALUATIONS
    assert budget.plan(4 * 333).evaluations == 1, "four would cost more than the training"
    assert budget.plan(4 * 4 * 334).evaluations == MIN_EVALUATIONS
    assert budget.corrected_plan(Plan(1000, 1), 100, 8.0, 50_000.0, 7.0) == Plan(150, 1, 100)


def test_a_machine_that_changes_its_speed_changes_the_plan(monkeypatch):
    monkeypatch.setattr("charrnn.training.budget.TRAIN_LOSS_CHARS", 0)
    budget = make_budget(time_s=100.0, n_val=0)

    def corrected(step, elapsed_s, chars_per_s):
        return budget.corrected_plan(Plan(1000, 20), step, elapsed_s, chars_per_s, 0.0)

    assert corrected(500, 50.0, 10_000.0) is None  # as planned
    assert corrected(500, 50.0, 9_850.0) is None  # nearly
    assert corrected(500, 50.0, 5_000.0) == Plan(750, 7, 500)
    assert corrected(500, 50.0, 20_000.0) == Plan(1500, 13, 500)
    assert corrected(500, 200.0, 10_000.0).total_steps == 501  # at once


def test_corrections_do_not_move_the_evaluations_to_come():
    """However often they are asked for, an evaluation comes at its share of the steps."""
    budget = make_budget(time_s=100.0, n_val=0)
    plan, evaluated = Plan(1000, 20), []
    for step in range(1, 2000):
        if step > plan.total_steps:
            break
        if plan.evaluates_after(step):
            evaluated.append(step)
        speed = 10_000.0 * (0.9 if step % 40 < 20 else 1.1)
        if budget.is_to_be_checked(plan, step, 2.0):
            plan = budget.corrected_plan(plan, step, 0.1 * step, speed, 0.0) or plan
    assert np.ptp(np.diff([0, *evaluated])) < 20
    assert evaluated[-1] == pytest.approx(1000, abs=20), "corrected until the end"


def test_time_is_looked_at_after_evaluations_and_at_the_end_in_between():
    timed, plan = make_budget(time_s=100.0), Plan(1000, 20)
    assert timed.is_to_be_checked(plan, 500, 0.0), "an evaluation"
    assert not timed.is_to_be_checked(plan, 501, 50.0)
    assert not timed.is_to_be_checked(plan, 949, 50.0)
    assert timed.is_to_be_checked(plan, 951, 2.0)
    assert not timed.is_to_be_checked(plan, 951, 1.9)
    assert not timed.is_to_be_checked(None, 0, 1e9), "there is no plan yet"
    assert not make_budget(steps=1000).is_to_be_checked(plan, 500, 1e9)


def test_the_evaluations_to_come_have_their_time():
    """Ten of them, 2 s each, and 100,000 characters of the training text at a third of a step."""
    budget = make_budget(time_s=100.0)
    plan = budget.corrected_plan(Plan(1000, 20), 500, 50.0, 10_000.0, 2.0)
    assert plan.total_steps == pytest.approx(500 + (50 - 20 - 100_000 / 3 / 10_000) * 10, abs=1)
    later = budget.corrected_plan(Plan(1000, 20), 900, 80.0, 10_000.0, 2.0)
    assert later.total_steps == pytest.approx(900 + (20 - 2 * 2 - 100_000 / 3 / 10_000) * 10, abs=1)


# whole runs


@pytest.mark.parametrize("how", [{"steps": 40}, {"epochs": 1.28}], ids=["steps", "epochs"])
def test_a_large_validation_text_is_read_seldom(prepare, how):
    found = steps_evaluated(prepare(texts.english(8000), **how, val_fraction=0.5))
    assert len(found) == MIN_EVALUATIONS
    assert np.ptp(np.diff([0, *found])) <= 1, "spread evenly"


def test_a_small_validation_text_is_read_often(prepare):
    found = steps_evaluated(prepare(texts.english(8000), steps=40, val_fraction=0.002))
    assert found == list(range(2, 41, 2))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_short_run_is_evaluated_at_its_end(prepare, steps):
    found = steps_evaluated(prepare(texts.english(8000), steps=steps, val_fraction=0.5))
    assert len(found) == min(steps, MIN_EVALUATIONS)
    assert found[-1] == steps


def test_evaluations_change_nothing_of_what_is_learned(prepare, monkeypatch):
    """They draw no random number that the training draws, and touch no weight."""
    ends = []
    for number in (1, 20):
        monkeypatch.setattr(budget_module, "MIN_EVALUATIONS", number)
        monkeypatch.setattr(budget_module, "MAX_EVALUATIONS", number)
        options = {"steps": 60, "dropout": 0.3, "num_layers": 2, "unknown_rate": 0.05}
        trainer = prepare(texts.english(4000), **options, sample_every=1)
        assert len(steps_evaluated(trainer)) == number
        ends.append(trainer._learner.network.export_weights())
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name], err_msg=name)


def test_the_clock_has_no_say_in_a_budget_of_steps(prepare, monkeypatch):
    """A run of so many steps keeps the same model on a fast machine and on a slow one."""
    expected = steps_evaluated(prepare(texts.english(8000), steps=40, val_fraction=0.01))
    monkeypatch.setattr("charrnn.training.clock.Clock.chars_per_s", 1e-3)
    found = steps_evaluated(prepare(texts.english(8000), steps=40, val_fraction=0.01))
    assert found == expected
    assert MIN_EVALUATIONS < len(found) < MAX_EVALUATIONS


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
def test_a_run_ends_early_when_validation_keeps_rising(losses, ends):
    plan = make_budget(steps=1000).early_end(Plan(1000, 20), 400, losses)
    assert (plan is not None) == ends
    if plan is not None:
        assert plan.total_steps == 460, "0.15 of the steps taken"


def test_a_time_budget_ends_after_the_passes_that_are_of_use():
    budget = make_budget(time_s=100.0, max_epochs=5)  # 100 steps a pass
    clock = FakeClock(steps=1000, seconds=10.0, chars_per_s=100_000.0)
    timed = budget.timed_plan(300, 40.0, clock)
    assert timed is not None
    plan, seconds = timed
    assert plan.total_steps == 500
    assert seconds == pytest.approx(200 * 0.01)
    assert budget.is_cut(plan)
    assert budget.corrected_plan(plan, 400, 50.0, 100_000.0, 0.1) is None, "as many as can be"


def test_without_a_limit_of_passes_time_alone_counts():
    budget = make_budget(time_s=100.0)
    timed = budget.timed_plan(300, 40.0, FakeClock(1000, 10.0, 100_000.0))
    assert timed is not None
    assert timed[0].total_steps > 5000
    assert not budget.is_cut(timed[0])


def test_a_run_about_to_end_is_left_alone():
    assert make_budget(steps=1000).early_end(Plan(1000, 20), 900, [1.0, 2.0, 2.0, 2.0]) is None


def noise(n):
    """Letters by chance: nothing to learn but by heart."""
    return "".join(np.random.default_rng(0).choice(list("abcdefgh \n"), n))


def test_learning_by_heart_is_cut_short_with_the_rate_brought_down(prepare):
    settings = {"hidden_size": 64, "steps": 1200, "learning_rate": 2e-2, "val_fraction": 0.2}
    trainer = prepare(noise(1500), finish_early=True, **settings)
    seen = list(trainer.run())
    notices = [e.text for e in seen if isinstance(e, events.Notice)]
    evaluated = [e for e in seen if isinstance(e, events.Evaluated)]
    assert any("validation loss keeps rising" in text for text in notices)
    assert evaluated[-1].step < 1200
    assert evaluated[-1].step == evaluated[-1].total_steps
    assert evaluated[-1].learning_rate < 0.01 * settings["learning_rate"]


def test_a_budget_that_was_asked_for_is_used_up(prepare):
    settings = {"hidden_size": 64, "steps": 1200, "learning_rate": 2e-2, "val_fraction": 0.2}
    assert steps_evaluated(prepare(noise(1500), **settings))[-1] == 1200
