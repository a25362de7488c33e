"""What a training run says, line by line, where stderr is no terminal."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
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
    unit="char",
    files_read=1,
    files_left_out=0,
    n_copies=0,
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
    bits_per_char=2.3083,
    unknown_share=0.0,
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
    bits_per_char=2.8854,
    temperature=1.07,
    train_loss=1.5,
    verdict=events.Verdict(judgement="sound", advice="more training", epochs=3.0, gap=0.05),
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
        "alphabet of 65 characters",
        "9.00k characters to train on and 1.00k to validate on · 16 rows",
        "16 rows × 64",
        "cpu float32",
    ):
        assert part in choice
    assert run == f"run {RUN}, at most 1m 30s or 50 epochs"
    assert "9.00k characters to train on · 16 rows" in shown(changed(STARTED, n_val=0))[0]


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"training": TrainingConfig(steps=4000)}, ", at most 4,000 steps"),
        ({"training": TrainingConfig(epochs=0.5, steps=40)}, ", at most 0.5 epochs or 40 steps"),
        (
            {"resumed_at": 1234, "resumed_s": 30.0, "resumed_epochs": 10.0},
            ", resumed at step 1,234, at most 1m 00s more (1m 30s in all) or 40 epochs more (50 in "
            "all)",
        ),
        (
            {"resumed_at": 40, "training": TrainingConfig(steps=41)},
            ", resumed at step 40, at most 1 step more (41 in all)",
        ),
        ({"late_s": 30.0}, ", at most 2m 00s or 50 epochs"),
    ],
)
def test_the_limits_of_a_run(change, end):
    assert shown(changed(STARTED, **change))[1] == f"run {RUN}{end}"


def test_an_evaluation_is_a_line_that_begins_with_the_progress():
    (line,) = shown(EVALUATED)
    assert line == (
        " 50%  epoch 3.42  step 1,200  1m 05s  train 1.512  val 1.600 nats/char (2.31 bits/char)  "
        "lr 0.006  100k char/s  best"
    )
    (line,) = shown(changed(EVALUATED, val_loss=None, bits_per_char=2.1814, is_best=False))
    assert "  train 1.512 nats/char (2.18 bits/char)  lr" in line
    (line,) = shown(changed(EVALUATED, progress=1.0, train_loss=None, val_loss=None, is_best=False))
    assert line == "100%  epoch 3.42  step 1,200  1m 05s  lr 0.006  100k char/s"
    (line,) = shown(changed(EVALUATED, chars_per_s=0.0))
    assert line.endswith("  lr 0.006  best"), "a speed that is not known is not shown"


def test_every_figure_of_a_byte_model_names_its_unit():
    started = changed(STARTED, unit="byte")
    verdict = events.Verdict(judgement="little validation", n_val=40)
    finished = changed(FINISHED, bits_per_char=4.81, verdict=verdict)
    lines = shown(started, changed(EVALUATED, bits_per_char=3.85), finished)
    assert "alphabet of 65 bytes · 9.00k bytes to train on and 1.00k to validate on" in lines[0]
    assert "val 1.600 nats/byte (2.31 bits/byte, 3.85 bits/char)  lr 0.006  100k byte/s" in lines[2]
    assert (
        "validation 2.000 nats/byte (2.89 bits/byte, 4.81 bits/char) at step 30; the validation "
        "text of 40 bytes" in lines[3]
    )


def on_terminal(width, *given):
    """Return the lines that events leave on a terminal of such a width that has no panel."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, color_system="standard", width=width, highlight=False
    )
    display = TrainingDisplay(console=console)
    for event in given:
        display.show(event)
    return ANSI.sub("", stream.getvalue()).splitlines()


ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, " 50%  1m 05s  train 1.512  val 1.600 nats/char (2.31 bits/char)  best"),
        (60, " 50%  1m 05s  val 1.600 nats/char  best"),
        (30, " 50%  val 1.600 nats/char"),
    ],
)
def test_an_evaluation_stays_in_one_line_of_a_terminal(width, shown):
    (line,) = on_terminal(width, EVALUATED)
    assert line == shown


def test_lines_are_broken_between_words_on_a_terminal_and_nowhere_else():
    event = changed(FINISHED, run=Path("runs") / ("a-long-name-" * 5))
    lines = on_terminal(40, event)
    commands = [line for line in lines if "charrnn " in line]
    assert all(len(line) <= 40 for line in lines if line not in commands)
    whole = [line[line.index("charrnn ") :] for line in shown(event) if "charrnn " in line]
    assert [line.strip() for line in commands] == whole
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(shown(event)).split())


def test_the_end_says_how_good_the_model_is_and_what_to_type():
    done, best, command, again = shown(FINISHED)
    assert done == (
        "Done after 1m 31s and 3 epochs: validation 2.000 nats/char (2.89 bits/char) at step 30; "
        "after 3 epochs, validation loss was 0.05 nats above the training loss, and at its lowest; "
        "more training would help."
    )
    assert best.endswith("; now type:")
    assert command == f"  charrnn sample -m {RUN} --temp 0.8"
    assert again == (
        f"To train it for another 1m 31s: charrnn train --resume --out {RUN} --time 91s"
    )


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"reason": "steps"}, "40 steps: ... --steps 40"),
        ({"reason": "epochs", "epochs": 3.004}, "3 epochs: ... --epochs 3"),
    ],
)
def test_more_training_is_of_the_kind_that_there_was(change, option):
    more, option = option.split("...")
    last = shown(changed(FINISHED, **change))[-1]
    assert last.startswith(f"To train it for another {more}")
    assert last.endswith(option)


def test_commands_can_be_pasted():
    *_, sample, again = shown(changed(FINISHED, run=Path("runs/two words")))
    assert "-m 'runs/two words' --temp" in sample
    assert "--out 'runs/two words' --time" in again


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


@pytest.mark.parametrize("quiet", [False, True])
def test_the_end_of_a_resumed_run_says_what_that_has_brought(quiet):
    resumed = changed(STARTED, resumed_at=30)
    done, *rest = shown(resumed, FINISHED, quiet=quiet)[0 if quiet else 2 :]
    assert done.startswith("Done after 1m 31s and 3 epochs in all: validation")
    assert rest[0] == (
        "The model did not improve after it was resumed at step 30: the best one, from step 30, is "
        "kept."
    )
    improved = shown(resumed, changed(FINISHED, best_step=31), quiet=quiet)
    assert not any("improve" in line for line in improved)
    assert any("Nothing was trained" in line for line in shown(resumed, changed(FINISHED, step=30)))
    stopped = changed(FINISHED, step=30, reason="interrupted")
    assert not any("Nothing was trained" in line for line in shown(resumed, stopped))
    assert "in all" not in shown(STARTED, FINISHED, quiet=quiet)[-2]


def test_the_hint_at_documents_is_there_at_the_end_too():
    hint = "looks like a list of short lines: with --documents line"
    lines = shown(changed(STARTED, looks_like_list=True), EVALUATED, FINISHED)
    assert [hint in line for line in lines] == [
        False, False, True, False, False, True, False, False, False
    ]  # fmt: skip


@pytest.mark.parametrize("width", [None, 20, 80])
def test_a_long_sample_is_cut(width):
    event = events.Sampled(text="\n".join(["name of one"] * 30))
    lines = shown(event) if width is None else on_terminal(width, event)
    assert lines == ["    name of one"] * 3 + ["    name of one …"]
    assert shown(events.Sampled(text="a b " * 60)) == ["    " + ("a b " * 60)]
    lines = on_terminal(20, events.Sampled(text="some words" + " some words" * 2))
    assert lines == ["    some words", "    some words", "    some words"]


UNKNOWN = changed(EVALUATED, unknown_share=0.0312)
DONE_LINES = shown(FINISHED)[0], f"The best model is {FINISHED.model_path}."


@pytest.mark.parametrize(
    ("event", "warning"),
    [
        (changed(STARTED, late_s=12.1), "the run takes 13s longer"),
        (changed(STARTED, n_val=0), "nothing is held out for validation"),
        (changed(STARTED, n_duplicates=1234), "1,234 validation documents are in the training"),
        (UNKNOWN, "3% of the validation text is characters that the training text lacks"),
        (
            events.RolledBack(exploded_at=48, step=40, rate_scale=0.3),
            "near step 48: back to step 40 with 0.3 times the learning rate",
        ),
    ],
)
def test_warnings_are_yellow_and_in_quiet_runs_too(event, warning):
    (line,) = shown(event, quiet=True)
    assert warning in line
    assert shown(event)[-1] == line
    assert "\x1b[33m" in coloured(event)


@pytest.mark.parametrize(
    ("event", "note"),
    [
        (
            changed(STARTED, batch_size=3, bptt=9),
            "short: the batch is 3 × 9 characters instead of 16 × 64",
        ),
        (changed(STARTED, encodings=("UTF-8", "cp1252")), "the text was read as cp1252"),
        (changed(STARTED, newlines=("\n", "\r\n")), r"line ends \r\n became \n"),
        (changed(STARTED, looks_like_list=True), "with --documents line the model learns"),
        (changed(STARTED, files_read=1200, files_left_out=3), "1,200 files read, 3 left out"),
        (changed(STARTED, files_read=2), "2 files read"),
        (changed(STARTED, files_left_out=2), "1 file read, 2 left out"),
        (
            changed(STARTED, files_left_out=2, left_out=("a\x1b.csv",)),
            "1 file read, 2 left out (a␛.csv, …)",
        ),
        (
            changed(STARTED, n_copies=1, copies=("b.txt",)),
            "one has the same text as another file (b.txt)",
        ),
        (
            changed(STARTED, name_taken=Path("runs/first")),
            f"{Path('runs/first')} exists: this run is {RUN}",
        ),
        (changed(STARTED, n_copies=1), "one has the same text as another file"),
        (changed(STARTED, n_copies=1200), "1,200 have the same text as another file"),
        (events.LossRises(step=1200), "keeps rising at step 1,200: the run ends soon"),
        (events.Stopping(), "measured and saved first (Ctrl-C again stops at once)"),
        (events.Stopping(processes=2), "saved first (torchrun gives it 30 seconds)"),
    ],
)
def test_what_is_as_it_should_be_is_no_warning(event, note):
    assert note in shown(event)[-1]
    assert shown(event, quiet=True) == []
    assert "\x1b[33m" not in coloured(event)


def test_a_lower_learning_rate_is_named():
    started = changed(STARTED, training=TrainingConfig(steps=9, learning_rate=100))
    event = events.RolledBack(exploded_at=48, step=40, rate_scale_before=0.3, rate_scale=0.09)
    assert shown(started, event)[-1].endswith("with a learning rate of 9 instead of 30")


def coloured(event):
    """What an event leaves on a terminal that has colours."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, color_system="standard", width=200, highlight=False
    )
    display = TrainingDisplay(console=console)
    display.show(event)
    return stream.getvalue()


def test_a_share_of_unknown_characters_is_said_once():
    assert len(shown(UNKNOWN, UNKNOWN)) == 3
    assert len(shown(changed(EVALUATED, unknown_share=0.009))) == 1


def test_quiet_runs_show_their_result_and_nothing_else():
    found = shown(STARTED, EVALUATED, events.Sampled(text="abc"), FINISHED, quiet=True)
    assert found == list(DONE_LINES)


def test_a_sample_does_nothing_to_a_terminal_but_show():
    sample = events.Sampled(text="a\x1b]0;title\x07b\nc")
    assert "\x1b]0" not in coloured(sample)
    assert coloured(sample).count("\n") == 2


def test_a_pipe_has_lines_whatever_is_forced(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with TrainingDisplay() as display:
        for event in (STARTED, EVALUATED, events.Sampled(text="abc")):
            display.show(event)
    found = stream.getvalue()
    assert "\x1b[32m" in found
    assert not re.search(r"\x1b\[[^m]*[^0-9;m]", found), "nothing moves the cursor"
    assert ANSI.sub("", found).splitlines()[-1] == "    abc"


def test_a_terminal_that_can_nothing_has_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    with TrainingDisplay() as display:
        display.working("reading the text")
        display.show(EVALUATED)
    assert stream.getvalue() == f"{on_terminal(80, EVALUATED)[0]}\n"
