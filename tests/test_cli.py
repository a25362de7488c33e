"""The command line: exit codes, one line for every error, streams, signals and start-up.

Most runs are in process (the fixture `charrnn`); real processes are started where streams, signals
or start-up are the subject.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from typing import get_args

import numpy as np
import pytest
import reference
import texts
from conftest import ACTIVE, COMMENTARY, CRASH, OUTPUT_VARIABLES, Result, bash, full_device, posix

from charrnn import config
from charrnn.cli.app import COMMANDS
from charrnn.display.terminal import wrapped
from charrnn.events import Evaluated
from charrnn.storage.model_file import load_model, save_model
from charrnn.vocab import Vocabulary

EVALUATION = re.compile(r" *\d+%  epoch \S+  step ([\d,]+)")

TRAIN = ("--hidden", "8", "--batch", "4", "--bptt", "8", "--dtype", "float32", "--device", "cpu")


def environment(**changes):
    """Ours, without what would change how programs write."""
    kept = {name: value for name, value in os.environ.items() if name not in OUTPUT_VARIABLES}
    return {**kept, "PYTHONUTF8": "1", **changes}


def start(*arguments, cwd, env=None, code=None, **options):
    """Start the command, or Python code that ends in it, in a process of its own."""
    program = ["-m", "charrnn"] if code is None else ["-c", code]
    command = [sys.executable, *program, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=cwd, env=env or environment(), **{**pipes, **options})


def end(process, before=b"", timeout=120):
    """Wait for a process and return what it left; `before` is what was read from its stderr."""
    out, err = process.communicate(timeout=timeout)
    return Result(process.returncode, (out or b"").decode(), (before + (err or b"")).decode())


# bad input


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["there is no file given"]),
        (b"", ["there is no text in given"]),
        (b"abc\xe9def", ["given is not UTF-8", "0xE9 at offset 3"]),
        ({}, ["directory given has no *.txt"]),
        ({"readme.md": b"text"}, ["directory given has no *.txt"]),
        ({"a.txt": b""}, ["there is no text in given"]),
        ({"a.txt": b"fine", "b.txt": b"\xff"}, ["b.txt is not UTF-8", "offset 0"]),
    ],
    ids=["missing", "empty", "latin-1", "empty folder", "no text", "empty text", "bad folder"],
)
def test_a_corpus_that_cannot_be_used(charrnn, tmp_path, content, fragments):
    given = tmp_path / "given"
    if isinstance(content, dict):
        given.mkdir()
        for name, inner in content.items():
            (given / name).write_bytes(inner)
    elif content is not None:
        given.write_bytes(content)
    result = charrnn("train", "given")
    result.assert_one_error(1, *fragments)
    assert result.out == ""


def test_an_empty_standard_input(charrnn):
    charrnn("train", "-", stdin=b"").assert_one_error(1, "there is no text in standard input")


WRONG_SETTINGS = [
    ("--hidden", "0", "--hidden must be at least 1, got 0"),
    ("--layers", "0", "--layers must be at least 1, got 0"),
    ("--embedding", "-1", "--embedding must be at least 0, got -1"),
    ("--members", "65", "--members must be at most 64, got 65"),
    ("--dropout", "1", "--dropout must be in [0, 1), got 1.0"),
    ("--dropout", "nan", "--dropout must be in [0, 1), got nan"),
    ("--lr", "-1", "--lr must be a positive number, got -1.0"),
    ("--lr", "nan", "--lr must be finite, got nan"),
    ("--epochs", "0", "--epochs must be a positive number, got 0.0"),
    ("--steps", "0", "--steps must be at least 1, got 0"),
    ("--batch", "0", "--batch must be at least 1, got 0"),
    ("--min-count", "0", "--min-count must be at least 1, got 0"),
    ("--val-fraction", "1", "--val-fraction must be in [0, 1), got 1.0"),
    ("--encoding", "klingon", "--encoding 'klingon' is not known: try utf-8"),
    ("--time", "soon", "'--time': 'soon' is not a duration such as 90s, 2m, 1.5h or 1h30m"),
    ("--time", "0s", "--time must be a positive number, got 0.0"),
    ("--nonlinearity", "relu", "--nonlinearity relu belongs to the rnn cell, not to lstm"),
    ("--device", "tpu", "--device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
    ("--seed", "99999999999999999999", "--seed must be at most 18,446,744,073,709,551,615, got"),
    ("--dropout", "0,5", "invalid value for '--dropout': must be a number, with a decimal point"),
    ("--hidden", "many", "invalid value for '--hidden'"),
    ("--colour", "red", "no such option: --colour"),
]


@pytest.mark.parametrize(("option", "value", "message"), WRONG_SETTINGS)
def test_a_setting_out_of_range(charrnn, text, tmp_path, option, value, message):
    """It is called by its option, and nothing is read or written before it is refused."""
    result = charrnn("train", text, option, value)
    result.assert_one_error(2, message)
    assert result.out == ""
    assert not (tmp_path / "runs").exists()
    charrnn("train", "missing", option, value).assert_one_error(2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temp", "-1"), "--temp must be at least 0, got -1.0"),
        (("--temp", "nan"), "--temp must be finite, got nan"),
        (("--temp", "0,5"), "--temp has 0,5, which may mean 0.5 or 0 and 5: write a decimal"),
        (("--temp", "1,5,2"), "or --temp 1 --temp 5 --temp 2"),
        (("--temp", "0.5", "--greedy"), "--greedy is --temp 0: give one of the two"),
        (("--top-p", "0,9"), "invalid value for '--top-p': must be a number, with a decimal point"),
        (("--length", "5", "--length", "6"), "--length is given 2 times: give it once"),
        (("--stream", "--no-stream"), "--stream is given 2 times"),
        (("--new-only",), "--new-only needs --check-novelty"),
        (("--encoding", "klingon"), "--encoding 'klingon' is not known"),
        (("--temp", "warm"), "--temp must be numbers such as 0.8 or 0.5,1.0, got 'warm'"),
        (("--top-k", "-1"), "--top-k must be at least 0, got -1"),
        (("--top-p", "0"), "--top-p must be in (0, 1], got 0"),
        (("--min-p", "2"), "--min-p must be at most 1, got 2.0"),
        (("--no-repeat", "-1"), "--no-repeat must be at least 0, got -1"),
        (("--length", "0"), "--length must be at least 1, got 0"),
        (("--length", "-5"), "--length must be at least 1, got -5"),
        (("-n", "20", "--min-length", "21"), "--min-length must be at most the length, 20; got 21"),
        (("--stop", ""), "--stop must have at least one character"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--num", "0"), "--num must be from 1 to 1,000,000, got 0"),
        (("--num", "100000000"), "--num must be from 1 to 1,000,000, got 100000000"),
        (("--logprobs",), "--logprobs needs --format jsonl"),
        (("--prompt", "a", "--prompts", "x"), "exclude each other"),
        (("--interactive",), "--interactive needs a terminal"),
        (("--nonsense",), "no such option: --nonsense"),
        (("surplus",), "there is no model 'surplus'; a text to continue comes after"),
    ],
)
def test_a_sampling_option_out_of_range(charrnn, arguments, message):
    """It is refused before the model is looked for."""
    result = charrnn("sample", "-m", "missing", *arguments)
    result.assert_one_error(2, message)
    assert result.out == ""


CHOICES = [
    ("train", "--cell", config.Cell),
    ("train", "--nonlinearity", config.Nonlinearity),
    ("train", "--optimizer", config.OptimizerName),
    ("train", "--dtype", config.Precision),
    ("train", "--documents", config.DocumentKind),
    ("train", "--unit", config.Unit),
    ("train", "--normalize", config.Normalization),
    ("train", "--errors", config.DecodingErrors),
    ("sample", "--on-unknown", config.OnUnknown),
    ("score", "--on-unknown", config.OnUnknown),
    ("pairs", "--on-unknown", config.OnUnknown),
    ("compare", "--on-unknown", config.OnUnknown),
]


@pytest.mark.parametrize(("command", "option", "choices"), CHOICES)
def test_choices_are_those_of_the_config(charrnn, command, option, choices):
    given = {"train": ["x"], "pairs": ["x"], "compare": ["x", "y", "z"]}.get(command, [])
    result = charrnn(command, *given, option, "luck")
    listed = ", ".join(map(repr, get_args(choices)))
    result.assert_one_error(2, f"invalid value for '{option}': 'luck' is not one of {listed}")
    shown = charrnn(command, "--help", COLUMNS="200").out
    assert "|".join(get_args(choices)) in shown


def test_the_letters_of_a_choice_may_be_capitals(charrnn, text, tmp_path):
    assert charrnn("train", text, "--steps", 1, "--cell", "GRU", "-o", "out", *TRAIN).code == 0
    assert load_model(tmp_path / "out" / "model.safetensors").config.cell == "gru"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "no corpus given"),
        (("score",), "nothing to score"),
        (("compare", "builtin", "builtin"), "nothing to score"),
        (("pairs",), "missing argument"),
        (("pairs", "file", "runs/x"), "(runs/x): a model is named with -m"),
        (("sample", "once upon"), "there is no model 'once upon'; a text to continue comes after"),
        (("info", "a", "-m", "b"), "a model is named twice"),
        (("merge", "-m", "a"), "no such option: -m: a model is named without it here"),
        (("train", "x", "--glob"), "option '--glob' requires an argument"),
        (("compare", "builtin"), "missing argument"),
        (("wright",), "no such command 'wright'"),
        (("trian",), "did you mean 'train'?"),
    ],
)
def test_wrong_usage_exits_with_2(charrnn, arguments, message):
    result = charrnn(*arguments)
    result.assert_one_error(2)
    assert message in result.err.lower()
    assert result.out == ""


@pytest.mark.parametrize(
    "arguments", [("",), ("prose.txt", "--out", ""), ("prose.txt", "--held-out", "")]
)
def test_an_empty_path_is_not_the_directory_here(charrnn, text, tmp_path, arguments):
    charrnn("train", *arguments, "--steps", 1, *TRAIN).assert_one_error(2, "empty")
    charrnn("sample", "-m", "").assert_one_error(2, "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["prose.txt"]


@pytest.mark.parametrize("command", [("sample",), ("score", "abc"), ("info",)])
def test_no_model_at_all(charrnn, tmp_path, monkeypatch, command):
    """Nothing trained, and the bundled model was taken out of the installation."""
    monkeypatch.setattr("charrnn.storage.runs.BUILTIN_MODEL", tmp_path / "lost")
    charrnn(*command).assert_one_error(1, "train one first: charrnn train")


@pytest.mark.parametrize("command", [("sample",), ("score", "abc"), ("info",)])
def test_a_file_that_is_not_a_model(charrnn, text, tmp_path, command):
    charrnn(*command, "-m", text).assert_one_error(1, "prose.txt is not a charrnn model")
    charrnn(*command, "-m", "nothing").assert_one_error(1, "there is no model at nothing")


def test_unknown_characters_in_a_prompt_are_named(charrnn, tiny_model_path):
    result = charrnn("sample", "-m", tiny_model_path, "--prompt", "a€b\t€")
    result.assert_one_error(1, "'€' (U+20AC) first at position 2 (×2)", "(U+0009) at position 4")
    assert result.out == ""


def test_nothing_to_resume(charrnn, text):
    charrnn("train", "--resume").assert_one_error(1, "nothing to resume")
    charrnn("train", "--resume", "--name", "lost").assert_one_error(1, "there is no run in")
    charrnn("train", text, "--resume").assert_one_error(1, "no unfinished run of the text in")


@posix
def test_closed_streams(charrnn, tiny_model_path, text, tmp_path):
    """Nothing is written where a stream was, and nothing is lost without a word."""

    def without(number, *arguments):
        return end(start(*arguments, cwd=tmp_path, preexec_fn=lambda: os.close(number)))

    model = ("-m", tiny_model_path)
    (tmp_path / "pairs").write_text("a\tb\n")
    for command in (
        ("sample", *model), ("score", "abc", *model), ("info", *model), ("pairs", "pairs", *model),
        ("compare", tiny_model_path, "builtin", "abc"),
    ):  # fmt: skip
        without(1, *command).assert_one_error(1, "standard output is closed")
    result = without(2, "sample", *model, "--seed", 1)
    assert (result.code, result.err) == (0, "")
    assert result.out == charrnn("sample", *model, "--seed", 1).out
    lost = without(2, "sample", "-m", "nothing")
    assert (lost.code, lost.out) == (1, ""), "what goes to stderr never goes to stdout"
    without(0, "sample", *model, "--interactive").assert_one_error(2, "a terminal")
    result = without(0, "sample", *model, "--prompt-file", "-")
    result.assert_one_error(1, "standard input is closed")
    for number in (0, 1):
        out = tmp_path / f"without-{number}"
        result = without(number, "train", text, "--steps", 2, "--out", out, *TRAIN)
        assert result.code == 0, result.err
        assert load_model(out / "model.safetensors").training["step"] == 2


@full_device
@pytest.mark.parametrize(
    "command", [("sample", "--length", 40), ("sample", "--no-stream"), ("score", "a"), ("info",)]
)
def test_no_space_for_the_output(tiny_model_path, tmp_path, command):
    with open("/dev/full", "wb") as full:
        result = end(start(*command, "-m", tiny_model_path, cwd=tmp_path, stdout=full))
    result.assert_one_error(1, "no space left on device")


@posix
@pytest.mark.parametrize("size", [1000, 20_000])
def test_no_space(text, tmp_path, size):
    """A limit on the size of files stands for the full disk: of the text, or of the model."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = start(
        "train", text, "--steps", 2, "--out", "out", "--quiet", *TRAIN[2:], "--hidden", 64,
        cwd=tmp_path, preexec_fn=limit,
    )  # fmt: skip
    end(process).assert_one_error(1, "cannot write out/", "file too large")
    assert not (tmp_path / "out").exists()  # a run that could not begin leaves nothing


def test_a_taken_run_directory(charrnn, text, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"precious")
    charrnn("train", text, "--out", "out").assert_one_error(1, "out already holds a run")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")], ids=repr
)
def test_not_enough_memory(charrnn, text, monkeypatch, error):
    def fail(*given, **more):
        raise error

    monkeypatch.setattr("charrnn.training.prepare.prepare_training", fail)
    charrnn("train", text).assert_one_error(1, "not enough memory: try a smaller --hidden")
    monkeypatch.setattr("charrnn.model.CharModel.sample_requests", fail)
    monkeypatch.setattr("charrnn.scoring.batch.score_many", fail)
    for command, hint in ((("sample", "--num", 2), "--num"), (("score", "abc"), "shorter texts")):
        said = charrnn(*command)
        assert said.code == 1
        assert f"not enough memory: try {'a smaller ' * (hint == '--num')}{hint}" in said.err
        assert "--hidden" not in said.err


def test_an_internal_error_is_one_line_too(charrnn, monkeypatch):
    def fail(path, **_):
        raise ValueError("axes\ndon't match")

    monkeypatch.setattr("charrnn.api.load", fail)
    result = charrnn("info")
    assert result.code == 1
    assert result.err == (
        "charrnn: internal error (ValueError: axes don't match); please report it with what "
        "CHARRNN_DEBUG=1 shows\n"
    )
    with pytest.raises(ValueError, match="axes"):
        charrnn("info", CHARRNN_DEBUG="1")


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("command", [("train", "prose.txt"), ("score", "abc", "--adapt")])
def test_torch_may_be_missing(text, tmp_path, command, broken):
    """One sentence, and nothing is left behind."""
    (tmp_path / "modules" / "torch").mkdir(parents=True)
    error = "ImportError('no libtorch', name='torch._C')"
    if not broken:
        error = "ModuleNotFoundError('no module', name='torch')"
    (tmp_path / "modules" / "torch" / "__init__.py").write_text(f"raise {error}")
    env = environment(PYTHONPATH=str(tmp_path / "modules"))
    result = end(start(*command, cwd=tmp_path, env=env))
    problem = "cannot be loaded (no libtorch)" if broken else "is missing"
    result.assert_one_error(1, f"torch {problem}: install it with pip install torch")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "record",
    [
        {"corpus": {}, "step": 3},
        {"corpus": {"surprise": 1}},
        {"corpus": "Shakespeare"},
        {"curve": [1, 2]},
        {"config": 7},
        {"val_loss_nats": "low"},
    ],
    ids=str,
)
def test_info_of_a_strange_training_record(charrnn, tiny_model, tmp_path, record):
    """The record is free-form: what cannot be shown is left out, or the file refused."""
    save_model(tmp_path / "strange", dataclasses.replace(tiny_model, training=record))
    result = charrnn("info", "-m", "strange")
    assert (result.code, result.err) == (0, "")
    assert "GRU" in result.out


# training


def evaluated(err):
    """Return the steps of the evaluations that were shown."""
    return [int(m[1].replace(",", "")) for m in map(EVALUATION.match, err.splitlines()) if m]


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_training_is_interrupted_resumed_and_used(charrnn, text, tmp_path, name):
    """The life of a run: Ctrl-C saves it, --resume ends it, nothing writes over it."""
    options = ("--out", "out", "--steps", 800, "--sample-every", 0, "--seed", 1, *TRAIN)
    process = start("train", text, *options, cwd=tmp_path)
    head = []
    for line in process.stderr:
        head.append(line)
        if EVALUATION.match(line.decode()):
            break
    process.send_signal(getattr(signal, name))
    stopped = end(process, b"".join(head))
    assert stopped.code == 130, stopped.err
    assert stopped.out == ""
    assert not CRASH.search(stopped.err)
    assert "\x1b" not in stopped.err
    assert "Interrupted" in stopped.err
    assert "charrnn sample -m out" in stopped.err
    assert "charrnn train --resume --out out" in stopped.err
    assert stopped.err.endswith("charrnn train --resume --out out\n")
    step = load_model(tmp_path / "out" / "model.safetensors").training["step"]
    assert 0 < step < 800

    resumed = charrnn("train", "--resume", "--out", "out")
    assert resumed.code == 0, resumed.err
    assert resumed.out == ""
    assert "resumed at step" in resumed.err
    assert "Done after" in resumed.err
    assert load_model(tmp_path / "out" / "model.safetensors").training["step"] > step
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    assert rows[-1]["step"] == 800
    before, after = (evaluated(result.err) for result in (stopped, resumed))
    assert after == [row["step"] for row in rows if row["step"] not in before]

    model = (tmp_path / "out" / "model.safetensors").read_bytes()
    charrnn("train", "--resume", "--out", "out").assert_one_error(1, "out is finished")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == model
    longer = charrnn("train", "--resume", "--out", "out", "--steps", 40)
    assert longer.code == 0, longer.err
    assert (
        json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 840
    )
    model = (tmp_path / "out" / "model.safetensors").read_bytes()
    charrnn("train", text, *options).assert_one_error(1, "already holds a run")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == model


def test_a_second_ctrl_c_says_what_is_kept(charrnn, text, tmp_path, monkeypatch):
    from charrnn.training.trainer import Trainer

    run = Trainer.run

    def stopped_twice(self):
        for event in run(self):
            yield event
            if isinstance(event, Evaluated):
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", stopped_twice)
    result = charrnn("train", text, "--out", "out", "--steps", 20, *TRAIN)
    assert result.code == 130
    *_, kept, again = result.err.splitlines()
    assert re.fullmatch(
        r"Stopped at once: what was saved at step \d+ is kept, with the best model until then\.",
        kept,
    )
    assert again == "To continue from there: charrnn train --resume --out out"
    monkeypatch.undo()
    assert charrnn("train", "--resume", "--out", "out").code == 0


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("list", "--csv"), "--format tsv"),
        (("list", "--json"), "--format jsonl"),
        (("sample", "--temperature", "1"), "--temp"),
        (("train", "--learning-rate", "1"), "--lr"),
        (("train", "--batch-size", "1"), "--batch"),
        (("train", "--epoch", "1"), "--epochs"),
        (("train", "--csv"), None),
        (("train", "--xylophone"), None),
    ],
)
def test_an_option_that_does_not_exist_names_the_one_that_is_meant(charrnn, arguments, meant):
    result = charrnn(*arguments)
    result.assert_one_error(2)
    assert "possible options" not in result.err.lower()
    if meant is None:
        assert "did you mean" not in result.err
    else:
        assert result.err.endswith(f": did you mean {meant}?\n")


def test_a_finished_run_of_the_text_comes_with_its_command(charrnn, text):
    charrnn("train", text, "--steps", 2, *TRAIN)
    result = charrnn("train", text, "--resume", "--steps", 3)
    result.assert_one_error(1, "there is no unfinished run of the text in ")
    command = f"charrnn train --resume --out runs/{text.stem} --time 10m\n"
    assert result.err.endswith(f"to train the finished one further: {command}")


def test_the_help_calls_values_by_words(charrnn):
    for command in ("train", "sample", "score", "list", "merge", "compare", "pairs", "info"):
        shown = charrnn(command, "--help").out
        assert not re.search(r"<(bool|int|float|str|Path|list)|list\[|\{[A-Z]", shown), command


def test_training_on_an_ascii_terminal_without_utf8(charrnn, text, tmp_path):
    """Dots, dashes and the model's own characters become question marks, nothing worse."""
    text.write_text(texts.english(1000).replace("e", "é").replace("a", "中"), encoding="utf-8")
    result = charrnn(
        "train",
        text,
        "--steps",
        4,
        "--name",
        "née",
        *TRAIN,
        encoding="ascii",
        terminals=("stderr",),
    )
    assert result.code == 0, result.err
    assert result.out == ""
    assert result.err.isascii()
    assert not CRASH.search(result.err)
    assert "Done after" in result.err
    assert (tmp_path / "runs" / "née" / "model.safetensors").is_file()


def test_quiet_training_says_its_result_and_nothing_else(charrnn, text):
    result = charrnn("train", "-", "--steps", 2, "-q", *TRAIN, stdin=text.read_bytes())
    assert (result.code, result.out) == (0, "")
    done, where = result.err.splitlines()
    assert done.startswith("Done after")
    assert where == "The best model is runs/stdin/model.safetensors."


# sampling


def test_stdout_is_the_text_and_stderr_the_commentary(charrnn, tiny_model_path, tiny_model):
    result = charrnn("sample", "-m", tiny_model_path, "--length", 60, "--seed", 5)
    assert result.code == 0
    assert result.out.endswith("\n")
    assert 0 < len(result.out) <= 61
    assert set(result.out) <= set(tiny_model.vocabulary.characters)
    assert "seed 5" in result.err


def test_the_newest_model_is_used_and_named(charrnn, tiny_model_path, tmp_path):
    path = tmp_path / "runs" / "mine" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_model_path.read_bytes())
    for command in (("sample", "--length", 5), ("score", "abc"), ("info",)):
        result = charrnn(*command)
        assert result.code == 0
        assert os.path.join("runs", "mine") in result.err


def test_a_model_may_be_an_argument(charrnn, tiny_model_path):
    for command in (("sample", "-n", 20, "--seed", 1), ("info",)):
        by_argument = charrnn(*command, tiny_model_path)
        assert by_argument.code == 0
        assert by_argument.out == charrnn(*command, "-m", tiny_model_path).out


def test_same_seed_same_text(charrnn, tiny_model_path):
    def text(*arguments):
        result = charrnn("sample", "-m", tiny_model_path, "--length", 80, *arguments)
        assert result.code == 0
        return result.out

    streamed = text("--seed", 7)
    assert streamed == text("--seed", 7, "--no-stream")
    assert streamed != text("--seed", 8)
    assert text() != text()  # a fresh seed each time


def test_the_seed_that_is_printed_repeats_the_text(charrnn, tiny_model_path):
    first = charrnn("sample", "-m", tiny_model_path, "--length", 80)
    (seed,) = re.findall(r"^seed (\d+)", first.err, re.MULTILINE)
    again = charrnn("sample", "-m", tiny_model_path, "--length", 80, "--seed", seed)
    assert again.out == first.out


def test_the_prompt_comes_first(charrnn, tiny_model_path):
    result = charrnn("sample", "-m", tiny_model_path, "-p", "the key ", "--length", 5)
    assert result.code == 0
    assert result.out.startswith("the key ")


NARROW = pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
SHOWING = pytest.mark.parametrize(
    "command",
    [("sample", "--length", 200, "--seed", 1, "-p", "é—ж中"), ("score", "é—ж中"), ("info",)],
)


@NARROW
@SHOWING
def test_a_terminal_that_lacks_characters(charrnn, tiny_model_path, encoding, command):
    result = charrnn(
        *command, "-m", tiny_model_path, encoding=encoding, terminals=("stdout",), NO_COLOR="1"
    )
    assert result.code == 0, result.err
    assert not CRASH.search(result.err)
    assert "?" in result.out
    assert ("é" in result.out) == (encoding != "ascii")
    assert "has no code for were written as ?; a file or a pipe gets them in UTF-8" in result.err


@NARROW
@SHOWING
def test_files_and_pipes_get_utf8(charrnn, tiny_model_path, encoding, command):
    """Unless the user says otherwise, whatever the system's code page is."""
    given = (*command, "-m", tiny_model_path)
    wide = charrnn(*given, COLUMNS="80")
    narrow = charrnn(*given, encoding=encoding, COLUMNS="80")
    assert narrow.out == wide.out
    assert "?" not in narrow.out
    asked = charrnn(*given, encoding=encoding, PYTHONIOENCODING=encoding)
    assert "?" in asked.out
    assert "were written as ?" in asked.err


def test_a_reader_that_has_seen_enough(tiny_model_path, tmp_path):
    """`charrnn sample | head -c 10`: the end of the pipe is not an error."""
    process = start("sample", "-m", tiny_model_path, "--length", 1_000_000, cwd=tmp_path)
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    code = process.wait(timeout=60)
    assert all(COMMENTARY.match(line) for line in err.splitlines()), err
    assert code == 0


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_sampling_with_what_was_written(tiny_model_path, tmp_path, name):
    process = start("sample", "-m", tiny_model_path, "--length", 10_000_000, cwd=tmp_path)
    first = os.read(process.stdout.fileno(), 1)  # perhaps not a whole character
    assert first
    process.send_signal(getattr(signal, name))
    rest, err = process.communicate(timeout=120)
    result = Result(process.returncode, (first + rest).decode(), err.decode())
    result.assert_one_error(130, "interrupted")
    assert result.out.endswith("\n")


@posix
def test_ctrl_c_while_torch_is_loaded(text, tmp_path):
    """It would abort the process; so it waits, and a run that has not begun leaves nothing."""
    code = """if True:
        import builtins, signal, sys
        load = builtins.__import__

        def interrupted(name, *more, **named):
            if name == "torch" and name not in sys.modules:
                signal.raise_signal(signal.SIGINT)
                torch = load(name, *more, **named)
                print("torch is loaded", file=sys.stderr)
                return torch
            return load(name, *more, **named)

        builtins.__import__ = interrupted
        from charrnn.cli import main
        main()
    """
    result = end(start("train", text, "--out", "out", cwd=tmp_path, code=code))
    assert (result.code, result.err) == (130, "torch is loaded\ncharrnn: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["prose.txt"]


# scoring


def test_scores_in_a_pipe_are_tab_separated(charrnn, tiny_model_path):
    result = charrnn("score", "-m", tiny_model_path, "the key", "ab\\", "é?")
    assert result.code == 0
    header, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert header[:4] == ["number", "text", "n_chars", "n_bytes"]
    assert [row[1] for row in rows] == ["the key", "ab\\", "é?"]
    assert all(len(row) == len(header) for row in rows)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    assert columns["n_chars"] == ["7", "3", "2"]
    assert columns["n_unknown"] == ["0", "1", "1"]
    assert "U+003F" in result.err


def test_the_lines_of_a_file_are_scored(charrnn, tiny_model_path, tmp_path):
    (tmp_path / "lines").write_text("the key\n\nsome bread", encoding="utf-8")
    from_file = charrnn("score", "-m", tiny_model_path, "--file", "lines")
    as_arguments = charrnn("score", "-m", tiny_model_path, "the key", "", "some bread")
    from_stdin = charrnn(
        "score", "-m", tiny_model_path, "--file", "-", stdin=b"the key\r\n\r\nsome bread\r\n"
    )
    assert from_file.code == 0
    assert from_file.out == as_arguments.out == from_stdin.out
    charrnn("score", "-m", tiny_model_path, "--file", "none").assert_one_error(1, "none")


# terminals


@posix
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_only_on_a_terminal_that_wants_them(tiny_model_path, tmp_path, no_color):
    import pty

    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", **({"NO_COLOR": "1"} if no_color else {}))
    process = start("info", "-m", tiny_model_path, cwd=tmp_path, env=env, stdout=theirs)
    os.close(theirs)
    out = b""
    with suppress(OSError):  # Linux says so when the other side is closed
        while piece := os.read(ours, 4096):
            out += piece
    os.close(ours)
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"GRU 2" in out
    assert b"\x1b[1m" in out  # the labels are bold
    colours = re.findall(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m", out)
    assert not (no_color and colours)


# help


def test_version_and_help(charrnn):
    import charrnn as package

    assert charrnn("--version").out == f"charrnn {package.__version__}\n"
    help_text = charrnn("--help")
    assert help_text.code == 0
    listed = help_text.out.partition("Commands:")[2].split("\n")
    assert tuple(line.split()[0] for line in listed[1:] if line.startswith("  "))[:-1] == COMMANDS
    assert not any(line.endswith("...") for line in listed), "a purpose is cut short"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command(charrnn, command):
    """It fits the terminal, and no choice is shown as just any text."""
    result = charrnn(command, "--help", COLUMNS="80")
    assert (result.code, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"charrnn {command} [OPTIONS]" in result.out
    assert "<str>" not in result.out


def test_without_a_command_the_help_is_laid_out(charrnn):
    result = charrnn()
    assert result.code == 2
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0].startswith("Usage: ")
    assert any(line.split()[:1] == ["train"] for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_loses_nothing_where_stdout_is_narrow(charrnn, tiny_model_path, encoding):
    options = ("-m", tiny_model_path, "-p", "中ж", "-n", "30", "--seed", "1", "--format", "jsonl")
    wide = json.loads(charrnn("sample", *options).out)
    narrow = charrnn("sample", *options, encoding=encoding, terminals=("stdout",))
    assert json.loads(narrow.out) == wide
    assert wide["prompt"] == "中ж"


def test_repeating_names_the_model_that_was_used(charrnn, tmp_path, tiny_model_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(tiny_model_path.read_bytes())
    said = charrnn("sample", "-n", "5").err
    assert re.search(r"to repeat: .* -m runs/mine/model.safetensors .*--seed \d+", said)


def test_a_page_is_never_written_over_what_it_is_made_from(charrnn, tmp_path, tiny_model_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("abc\n")
    model = tmp_path / "own.safetensors"
    model.write_bytes(tiny_model_path.read_bytes())
    for path in (lines, model):
        before = path.read_bytes()
        result = charrnn("score", "-m", model, "--file", lines, "--html", path)
        result.assert_one_error(2, f"--html would replace {path}")
        assert path.read_bytes() == before


def test_a_run_that_cannot_begin_leaves_nothing_behind(charrnn, tmp_path, text):
    result = charrnn("train", text, "--steps", "3", "--device", "cuda:77")
    result.assert_one_error(2, "cuda:77")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_cannot_begin_leaves_the_folders_of_the_user_alone(charrnn, tmp_path, text):
    own = tmp_path / "mine" / "corpus" / "novel.txt"
    own.parent.mkdir(parents=True)
    own.write_text("years of work")
    result = charrnn("train", text, "--steps", "3", "--device", "cuda:77", "--out", "mine")
    result.assert_one_error(2, "cuda:77")
    assert own.read_text() == "years of work"


# terminals and strangers


HOSTILE = "x\x1b]0;owned\x07\x1b[2J\x9b31m\u202eab"


@pytest.fixture
def hostile_path(tiny_model, tmp_path):
    """A model whose alphabet, name and record would act on a terminal."""
    vocabulary = Vocabulary(set(HOSTILE) | {"\r", "\b"})
    config = dataclasses.replace(tiny_model.config, vocab_size=len(vocabulary))
    weights = reference.random_weights(config, seed=1)
    saved = dataclasses.replace(
        tiny_model,
        config=config,
        vocabulary=vocabulary,
        weights={name: array.astype(np.float32) for name, array in weights.items()},
        training={
            "corpus": {"name": HOSTILE, "n_chars": 5, "sha256": HOSTILE},
            "config": {HOSTILE: HOSTILE},
        },
    )
    folder = tmp_path / "runs" / HOSTILE.replace("/", "")
    folder.mkdir(parents=True)
    save_model(folder / "model.safetensors", saved)
    return folder


@posix
@pytest.mark.parametrize(
    "command",
    [
        ("sample", "-n", 200, "--seed", 1, "-p", HOSTILE),
        ("sample", "-n", 50, "--num", 2, "--seed", 1, "-p", HOSTILE, "--stop", "\x1b[é"),
        ("sample", "-n", 50, "--seed", 1, "--format", "jsonl", "-p", HOSTILE),
        ("sample", "-n", 50, "--seed", 1, "--check-novelty", "hostile.txt"),
        ("sample", "-p", HOSTILE + "é"),
        ("sample", "--temp", HOSTILE),
        ("sample", "-m", HOSTILE),
        ("score", HOSTILE),
        ("score", HOSTILE, "--format", "tsv"),
        ("score", HOSTILE, "--per-char"),
        ("score", HOSTILE, "--per-word"),
        ("score", "--file", HOSTILE),
        ("score", "--" + HOSTILE),
        ("info",),
        ("list",),
        (HOSTILE,),
        ("train", HOSTILE),
        ("train", "hostile.txt", "--name", HOSTILE + "2", *TRAIN, "--steps", 20),
    ],
    ids=lambda command: "-".join(map(ascii, command))[:60],
)
def test_nothing_foreign_acts_on_a_terminal(charrnn, hostile_path, tmp_path, command):
    (tmp_path / "hostile.txt").write_text(HOSTILE * 40, encoding="utf-8")
    result = charrnn(
        *command, terminals=("stdout", "stderr"), COLUMNS="100", NO_COLOR="1", TERM="dumb"
    )
    assert not CRASH.search(result.err)
    for written in (result.out, result.err):
        assert not ACTIVE.search(written.replace("\x1b[?25l", "").replace("\x1b[?25h", "")), ascii(
            written
        )


def test_a_pipe_gets_the_exact_text_and_raw_a_terminal(charrnn, hostile_path):
    given = ("sample", hostile_path, "-n", 200, "--seed", 1, "-p", "x\x1b[2J")
    piped = charrnn(*given).out
    assert ACTIVE.search(piped)
    assert charrnn(*given, "--raw", terminals=("stdout",)).out == piped
    assert charrnn(*given, "--raw", "--num", 2, terminals=("stdout",)).out.startswith(piped)


@full_device
def test_a_dead_stderr_ends_nothing(tiny_model_path, tmp_path):
    for command in (("sample", "-n", 5, "--seed", 1), ("score", "abc?"), ("info",)):
        with open("/dev/full", "wb") as full:
            result = end(start(*command, "-m", tiny_model_path, cwd=tmp_path, stderr=full))
        assert result.code == 0
        assert result.out


def test_a_long_message_is_cut(charrnn):
    result = charrnn("sample", "--" + "x" * 100_000)
    assert result.code == 2
    assert len(result.err) < 1200


@bash
def test_commands_that_are_printed_can_be_pasted(charrnn, text, tmp_path):
    """Every one, whatever the names of the files."""
    name = "it's my run\n2"
    trained = charrnn("train", text, "--out", name, "--steps", 2, *TRAIN)
    (line,) = [line for line in trained.err.splitlines() if line.startswith("  charrnn sample")]
    assert bash_words(line)[1:] == ["sample", "-m", name, "--temp", "0.8"]
    sampled = charrnn("sample", "-m", name, "-n", 5, "-p", "the\tkey ", "--on-unknown", "skip")
    (line,) = re.findall(r"to repeat: (.*)", sampled.err)
    words = bash_words(line)
    assert words[:2] == ["charrnn", "sample"]
    assert charrnn(*words[1:]).out == sampled.out


def bash_words(line):
    """What bash makes of a command line."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, text=True
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_commentary_is_broken_between_words_on_a_terminal_only(command):
    pasted = f"charrnn {command} --out runs/a-name-that-is-long --temp 0.8"
    text = (
        f"a few words that are said, /a/path/without/a/break: {pasted}\nand 中中中中中中中中 more"
    )
    assert wrapped(text, None) == wrapped(text, 200) == text
    assert wrapped(text, 20).splitlines() == [
        "a few words that are",
        "said,",
        "/a/path/without/a/break:",
        pasted,
        "and 中中中中中中中中",
        "more",
    ]
    assert wrapped("  a  b", 6) == "  a  b"
    assert wrapped("  a  b", 5) == "  a\nb"


def test_an_error_is_broken_between_words_on_a_terminal(charrnn):
    said = charrnn("info", "nothing/here", COLUMNS="24")
    assert said.err.count("\n") == 1
    shown = charrnn("info", "nothing/here", COLUMNS="24", terminals=("stderr",))
    assert shown.err.splitlines()[0] == "charrnn: there is no"
    assert " ".join(shown.err.split()) == said.err.strip()


def test_unknown_characters_are_refused_by_the_option_that_says_so(charrnn, tiny_model_path):
    for command in (("sample", "--prompt"), ("score",)):
        result = charrnn(*command, "€", "-m", tiny_model_path, "--on-unknown", "error")
        result.assert_one_error(1, "or set --on-unknown to unk or skip")


def test_every_option_of_the_help_has_its_default(charrnn):
    for command in ("train", "info", "list", "merge"):
        shown = charrnn(command, "--help", COLUMNS="300").out
        for line in shown.splitlines():
            if line.startswith("│ --") and not line.startswith("│ --help"):
                assert "[default: " in line


def test_a_path_in_a_message_keeps_its_blanks(charrnn, text, tmp_path):
    make = tmp_path / "x  y"
    make.mkdir()
    (make / "model.safetensors").write_bytes(b"mine")
    charrnn("train", text, "--out", "x  y").assert_one_error(1, "x  y already holds a run")


@posix
@pytest.mark.parametrize("option", ["--prompts", "--prompt-file", "--check-novelty"])
@pytest.mark.parametrize("inside", [False, True])
def test_samples_are_not_written_into_what_is_read(tiny_model_path, tmp_path, option, inside):
    read = tmp_path / "texts" / "read.txt"
    read.parent.mkdir()
    read.write_text("the\n" * 5)
    given = read.parent if inside and option == "--check-novelty" else read
    with open(read, "ab") as out:
        result = end(
            start("sample", "-m", tiny_model_path, option, given, cwd=tmp_path, stdout=out)
        )
    result.assert_one_error(2, "read.txt, which is read")
    assert read.read_text() == "the\n" * 5
