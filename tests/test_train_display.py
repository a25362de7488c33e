"""What a training run says, line by line, where stderr is no terminal."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from charrnn import events
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.display.train import TrainingDisplay

STARTED = events.Started(
    model=ModelConfig(vocab_size=67, hidden_size=128, embedding_size=32, members=2),
    training=TrainingConfig(time_s=90.0, epochs=50),
    n_train=9_000,
    n_val=1_000,
    batch_size=16,
    bptt=64,
    device="cpu",
    dtype="float32",
    run=Path("runs/play"),
    resumed_at=0,
    late_s=0.0,
    encodings=("UTF-8",),
    newlines=("\n",),
    n_duplicates=0,
    looks_like_list=False,
)
EVALUATED = events.Evaluated(
    progress=0.5,
    step=1200,
    epoch=3.42,
    elapsed_s=65.0,
    train_loss=1.512,
    val_loss=1.6,
    temperature=1.05,
    learning_rate=0.006,
    chars_per_s=100_000.0,
    is_best=True,
)
FINISHED = events.Finished(
    reason="time",
    model_path=Path("runs/play/model.safetensors"),
    run=Path("runs/play"),
    step=40,
    epochs=3.0,
    elapsed_s=91.0,
    best_step=30,
    val_loss=2.0,
    temperature=1.07,
    train_loss=1.5,
    verdict=events.Verdict(judgement="few epochs", amount=1.5),
    padding_share=0.0,
)
RUN = str(Path("runs/play"))


def shown(*given, quiet=False):
    """Return the lines that events leave in a pipe."""
    stream = io.StringIO()
    with TrainingDisplay(quiet=quiet, console=Console(file=stream, highlight=False)) as display:
        for event in given:
            display.show(event)
    return stream.getvalue().splitlines()


def changed(event, **values):
    return dataclasses.replace(event, **values)


def test_the_beginning_says_what_is_trained_and_how_long_it_may_take():
    choice, run = shown(STARTED)
    for part in (
        "2 ensemble members, each LSTM 1 × 128",
        f"{STARTED.model.num_parameters() / 1000:.0f}k parameters",
        "9.00k + 1.00k",
        "16 rows × 64",
        "cpu float32",
    ):
        assert part in choice
    assert run == f"run {RUN}, at most 1m 30s or 50 epochs"


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"training": TrainingConfig(steps=4000)}, ", at most 4,000 steps"),
        ({"training": TrainingConfig(epochs=0.5, steps=40)}, ", at most 0.5 epochs or 40 steps"),
        ({"resumed_at": 1234}, ", resumed at step 1,234, at most 1m 30s or 50 epochs"),
        ({"late_s": 30.0}, ", at most 2m 00s or 50 epochs"),
    ],
)
def test_the_limits_of_a_run(change, end):
    assert shown(changed(STARTED, **change))[1] == f"run {RUN}{end}"


def test_an_evaluation_is_a_line_that_begins_with_the_progress():
    (line,) = shown(EVALUATED)
    assert line == (
        " 50%  epoch 3.42  step 1,200  1m 05s  train 1.512 (2.18 bits)  val 1.600 (2.31 bits)  "
        "lr 0.006  100k char/s  best"
    )
    (line,) = shown(changed(EVALUATED, progress=1.0, train_loss=None, val_loss=None, is_best=False))
    assert line == "100%  epoch 3.42  step 1,200  1m 05s  lr 0.006  100k char/s"


def test_the_bar_of_a_terminal_shows_the_progress():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, highlight=False)
    with TrainingDisplay(console=console) as display:
        display.show(EVALUATED)
        display.show(
            events.Progressed(
                progress=0.56, step=1300, train_loss=1.5, learning_rate=0.005,
                chars_per_s=1e5, eta_s=61.0,
            )
        )  # fmt: skip
        (task,) = display._progress.tasks
        assert (task.completed, task.total) == (0.56, 1.0)
        assert task.description.startswith(" 56% · 1m 01s left · train 1.500 (2.16 bits) · val 1.6")


def test_the_end_says_how_good_the_model_is_and_what_to_type():
    done, best, command = shown(FINISHED)
    assert done == (
        "Done after 1m 31s and 3 epochs: validation 2.000 (2.89 bits) per character at step 30; "
        "the model underfits: it has read the text only 1.5 times; more training would help."
    )
    assert best.endswith("; now type:")
    assert command == f"  charrnn sample -m {RUN} --temp 0.8"


@pytest.mark.parametrize(
    ("reason", "begin"),
    [
        ("epochs", "Done"),
        ("steps", "Done"),
        ("rising loss", "Ended early"),
        ("interrupted", "Interrupted"),
    ],
)
def test_how_a_run_may_end(reason, begin):
    assert shown(changed(FINISHED, reason=reason))[0].startswith(f"{begin} after 1m 31s")


def test_an_interrupted_run_says_how_to_continue():
    *_, last = shown(changed(FINISHED, reason="interrupted"))
    assert last == f"To continue where it stopped: charrnn train --resume --out {RUN}"


def test_padding_is_explained_where_there_is_much():
    assert len(shown(changed(FINISHED, padding_share=0.004))) == 3
    _, padding, *_ = shown(changed(FINISHED, padding_share=0.25))
    assert padding.startswith("25.0% of the computation was padding: windows extend beyond")


@pytest.mark.parametrize(
    ("event", "warning"),
    [
        (changed(STARTED, batch_size=3, bptt=9), "short: 3 rows of 9 characters instead of 16 of"),
        (changed(STARTED, late_s=12.1), "the run takes 13s longer"),
        (changed(STARTED, encodings=("UTF-8", "cp1252")), "the text was read as cp1252"),
        (changed(STARTED, newlines=("\n", "\r\n")), r"line ends \r\n became \n"),
        (changed(STARTED, n_val=0), "nothing is held out for validation"),
        (changed(STARTED, n_duplicates=1234), "1,234 validation documents are in the training"),
        (changed(STARTED, looks_like_list=True), "with --documents line the model learns"),
        (events.LossRises(step=1200), "keeps rising at step 1,200: the run ends soon"),
        (
            events.RolledBack(exploded_at=48, step=40, rate_scale=0.3),
            "near step 48: back to step 40 with the learning rate times 0.3",
        ),
        (events.Stopping(), "stopping: the model is measured and saved first"),
    ],
)
def test_quiet_is_for_warnings_only(event, warning):
    (line,) = shown(event, quiet=True)
    assert warning in line
    assert shown(event)[-1] == line


def test_quiet_is_quiet_otherwise():
    assert shown(STARTED, EVALUATED, events.Sampled(text="abc"), FINISHED, quiet=True) == []
