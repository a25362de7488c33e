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
    model=ModelConfig(vocab_size=67, hidden_size=128, embedding_size=32),
    training=TrainingConfig(time_s=90.0, members=2),
    n_parameters=190_000,
    n_train=9_000,
    n_val=1_000,
    device="cpu",
    dtype="float32",
    run=Path("runs/play"),
    resumed_at=0,
)
FINISHED = events.Finished(
    reason="complete",
    model_path=Path("runs/play/model.safetensors"),
    run=Path("runs/play"),
    step=40,
    elapsed_s=91.0,
    best_step=30,
    val_loss=2.0,
    logit_scale=0.93,
    train_loss=1.5,
    verdict="well fit: so it is",
    padding_share=0.0,
)


def shown(*given, quiet=False):
    """Return the lines that events leave in a pipe."""
    stream = io.StringIO()
    with TrainingDisplay(quiet=quiet, console=Console(file=stream, highlight=False)) as display:
        for event in given:
            display.show(event)
    return stream.getvalue().splitlines()


def test_the_beginning_says_what_is_trained_and_how_long_it_may_take():
    choice, run = shown(STARTED)
    for part in (
        "2 networks, each LSTM 1 × 128",
        "190k parameters",
        "9.00k + 1.00k",
        "cpu float32",
    ):
        assert part in choice
    assert run == "run runs/play, 1m 30s at most".replace("runs/play", str(Path("runs/play")))


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"training": TrainingConfig(steps=40)}, "play"),
        ({"resumed_at": 1234}, "play, resumed at step 1,234"),
    ],
)
def test_a_run_without_a_limit_of_time_or_with_a_part_of_it_behind(change, end):
    assert shown(dataclasses.replace(STARTED, **change))[1].endswith(end)


def test_the_end_says_how_good_the_model_is_and_what_to_type():
    done, best, command = shown(FINISHED)
    assert done == (
        "Done after 1m 31s: validation 2.000 (2.89 bits) per character at step 30; well fit: so it "
        "is."
    )
    assert best.endswith("; now type:")
    assert command == f"  charrnn sample -m {Path('runs/play')} --temp 0.8"


def test_an_interrupted_run_says_how_to_go_on():
    *_, last = shown(dataclasses.replace(FINISHED, reason="interrupted"))
    assert last.endswith(f"charrnn train --resume --out {Path('runs/play')}")


def test_padding_is_explained_where_there_is_much():
    assert len(shown(dataclasses.replace(FINISHED, padding_share=0.004))) == 3
    _, padding, *_ = shown(dataclasses.replace(FINISHED, padding_share=0.25))
    assert padding.startswith("25.0% of the computation was padding: windows go beyond")


def test_quiet_is_for_warnings_only():
    assert shown(STARTED, FINISHED, quiet=True) == []
    assert shown(events.Notice(text="look"), quiet=True) == ["look"]
