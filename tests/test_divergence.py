"""A loss that explodes rolls the run back, with a lower learning rate, and not for ever."""

from __future__ import annotations

import math

import pytest
import texts

from charrnn import api, events
from charrnn.errors import DivergenceError
from charrnn.training.divergence import MAX_ROLLBACKS, Caution, has_diverged


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
def trainer(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(texts.english(4000), encoding="utf-8")
    shape = {"hidden_size": 16, "embedding_size": 8, "batch_size": 8, "bptt": 16}
    options = {"steps": 80, "dtype": "float32", "device": "cpu", "sample_every": 0}
    return api.prepare_training([path], out=tmp_path / "run", **shape, **options)


def test_a_run_goes_back_once_and_ends_well(trainer):
    """Evaluated after steps 20, 40, 60 and 80; the loss is no number after step 45."""
    take_step, taken = trainer._learner.take_step, iter(range(1, 1000))

    def take_step_that_fails_once(rate_factor):
        loss, count = take_step(rate_factor)
        if next(taken) == 45:
            trainer._learner.meter.add(loss * math.nan, count)
        return loss, count

    trainer._learner.take_step = take_step_that_fails_once
    found = list(trainer.run())
    (notice,) = [e for e in found if isinstance(e, events.Notice) and "exploded" in e.text]
    assert "near step 48: back to step 40 with the learning rate times 0.3" in notice.text
    assert [e.step for e in found if isinstance(e, events.Evaluated)] == [20, 40, 60, 80]
    rates = {e.step: e.learning_rate for e in found if isinstance(e, events.Evaluated)}
    assert rates[60] < 0.3 * rates[40]
    assert next(taken) == 80 + 8 + 1
    assert found[-1].reason == "complete"
    assert math.isfinite(found[-1].val_loss)
