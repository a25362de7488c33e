"""What a run has shown, and what was measured to help there."""

from __future__ import annotations

from typing import get_args

import pytest
import texts

from charrnn.config import TrainingConfig
from charrnn.display.format import verdict as sentence
from charrnn.events import Advice, Judgement, Verdict
from charrnn.training.loss import Measured
from charrnn.training.verdict import verdict

PLAIN = TrainingConfig(steps=1000)


def judged(losses, train_loss, *, epochs=9.0, steps=1000, n_val=5000, training=PLAIN):
    curve = [
        {"val_loss_nats": loss, "epoch": epochs, "step": steps, "unknown_share": 0.0}
        for loss in losses
    ]
    train = Measured(train_loss, unigram=3.0)
    return verdict(curve, train, training, n_val=n_val, vocab_size=60)


@pytest.mark.parametrize(
    ("case", "judgement", "advice"),
    [
        ({"losses": [None, None], "train_loss": 1.5, "n_val": 0}, "no validation", None),
        ({"losses": [2.0, 1.6], "train_loss": 1.5, "n_val": 3}, "little validation", None),
        ({"losses": [2.0, 1.5, 1.6], "train_loss": 1.2}, "overfits", None),
        ({"losses": [2.0, 1.5, 1.6], "train_loss": 1.0, "epochs": 30.0}, "overfits", "dropout"),
        ({"losses": [2.0, 1.5], "train_loss": 1.0}, "sound", "more training"),
        ({"losses": [2.0, 1.5], "train_loss": 1.2, "epochs": 50.0}, "sound", None),
        ({"losses": [2.0, 1.5], "train_loss": 0.9, "epochs": 50.0}, "sound", "more text"),
        (
            {"losses": [9e3, 1.1e4], "train_loss": 1.2e4, "steps": 20},
            "worse than chance",
            "lower rate",
        ),
        ({"losses": [2.0, 50.0], "train_loss": 2.1}, "worse than chance", "lower rate"),
        ({"losses": [None], "train_loss": 50.0, "n_val": 0}, "worse than chance", "lower rate"),
        ({"losses": [3.1, 3.1], "train_loss": 2.99}, "not learned", None),
        ({"losses": [3.1, 3.1], "train_loss": 2.99, "steps": 40}, "not learned", "more training"),
        ({"losses": [4.2, 4.2], "train_loss": 4.2, "steps": 40}, "not learned", None),
    ],
)
def test_what_a_curve_says(case, judgement, advice):
    found = judged(**case)
    assert (found.judgement, found.advice) == (judgement, advice)


def test_what_was_seen_is_said():
    found = judged([2.0, 1.5, 1.6], 1.0, epochs=30.0)
    assert (found.rise, found.gap, found.epochs) == (pytest.approx(0.1), pytest.approx(0.6), 30.0)
    text = sentence(found)
    assert "after 30 epochs, validation loss was 0.100 nats above its lowest" in text
    assert "0.05 nats below the training loss without dropout (1.500)" in sentence(
        judged([1.45], 1.5)
    )
    assert "was 11000.000 nats/byte, worse than choosing every byte at random (4.09)" in sentence(
        judged([1.1e4], 1.0), "byte"
    )
    assert "of 12 bytes is too short" in sentence(judged([1.4], 1.5, n_val=12), "byte")


def test_dropout_is_not_advised_to_who_has_it():
    training = TrainingConfig(steps=9, dropout=0.25)
    assert judged([1.5, 1.6], 1.0, epochs=30.0, training=training).advice != "dropout"


def test_a_stopped_run_is_judged_at_its_end_only():
    curve = [{"val_loss_nats": 1.5, "epoch": 3.0, "step": 90, "unknown_share": 0.0}]
    found = verdict(curve, Measured(1.4), PLAIN, n_val=5000, vocab_size=60, is_complete=False)
    assert found == Verdict(judgement="interrupted")


def test_every_verdict_is_a_sentence():
    for judgement in get_args(Judgement):
        for advice in (None, *get_args(Advice)):
            text = sentence(Verdict(judgement=judgement, advice=advice))
            assert not set("{}") & set(text)
            assert not text.endswith(".")


def test_a_network_that_its_settings_have_killed_is_no_case_for_more_training(prepare):
    rate = {"learning_rate": 1.0, "weight_decay": 1.0}
    trainer = prepare(texts.english(12_000), steps=250, cell="gru", **rate)
    last = list(trainer.run())[-1]
    assert (last.verdict.judgement, last.verdict.advice) == ("not learned", None)


def test_three_characters_are_too_few_to_judge_by(prepare):
    trainer = prepare(texts.english(3000), steps=30, val_fraction=0.001)
    assert list(trainer.run())[-1].verdict == Verdict(judgement="little validation", n_val=3)


def test_a_validation_text_of_many_unknown_characters_is_not_judged_by():
    rows = [
        {"val_loss_nats": loss, "epoch": 9.0, "step": 900, "unknown_share": 0.3}
        for loss in (2.0, 2.5)
    ]
    train = Measured(1.5, 1.0, unigram=3.0)
    found = verdict(rows, train, TrainingConfig(steps=900), n_val=5000, vocab_size=60)
    assert (found.judgement, found.unknown_share) == ("unknown validation", 0.3)
    assert sentence(found).startswith("30% of the validation text is unknown to the model")
