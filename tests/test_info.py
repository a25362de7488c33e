"""`charrnn info`: how a run went, its verdict and both of its models; what a machine has."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import texts
import torch
from conftest import ACTIVE
from hypothesis import example, given
from hypothesis import strategies as st

import charrnn as package
from charrnn.cli.info import info
from charrnn.config import ModelConfig, TextConfig
from charrnn.display.format import size
from charrnn.display.format import verdict as sentence
from charrnn.display.info import show_info, validation_note
from charrnn.errors import RunError
from charrnn.events import Verdict
from charrnn.storage.listing import surroundings, texts_of
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.runs import RunDirectory
from charrnn.training import machine
from charrnn.training.checkpoint import RunFiles
from charrnn.training.loss import Measured
from charrnn.training.prepare import prepare_resume, prepare_training
from charrnn.vocab import ByteVocabulary, Vocabulary

SHAPE = {"hidden_size": 16, "embedding_size": 8, "batch_size": 8, "bptt": 16}
OPTIONS = {"dtype": "float32", "device": "cpu", "sample_every": 0}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Return a trainer for a text. The run is `run` in the current directory."""
    monkeypatch.chdir(tmp_path)  # long paths would be folded

    def prepare(text, **options):
        path = Path("text.txt")
        path.write_text(text, encoding="utf-8")
        return prepare_training([path], {**SHAPE, **OPTIONS, **options}, out=Path("run"))

    return prepare


def shown(path):
    """What `info` prints, without its layout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        info(path, None, system=False)
    return " ".join(out.getvalue().split())


def test_the_verdict_of_the_run_is_in_its_model_and_shown(prepare):
    trainer = prepare(texts.english(4000), steps=30)
    verdict = list(trainer.run())[-1].verdict
    saved = load_model(trainer.run_directory.model).training["verdict"]
    assert saved == dataclasses.asdict(verdict)
    text = shown(trainer.run_directory.path)
    assert f"verdict {sentence(verdict)}" in text
    assert "last model" not in text  # the best model is the last


@pytest.fixture
def rising(prepare, monkeypatch):
    """A run whose validation loss rises, so that its last model is not its best."""
    trainer = prepare(texts.english(3000), steps=40)
    losses = iter([3.0, 2.0, 2.5, 2.625])

    def measure(*, validation, temperature=1.0, limit=None):
        return Measured(next(losses) if validation else 1.5, 1.0, unigram=3.0)

    monkeypatch.setattr(trainer._learner, "measure", measure)
    return trainer, list(trainer.run())[-1]


def test_both_models_of_a_run_are_shown(rising):
    trainer, finished = rising
    run = trainer.run_directory
    best, last = load_model(run.model).training, load_model(run.last).training
    assert best["step"] == finished.best_step < last["step"] == finished.step
    assert best["verdict"] == last["verdict"] == dataclasses.asdict(finished.verdict)
    text = shown(run.path)
    assert f"last model {run.last} step {last['step']}, validation" in text
    assert f"{last['val_loss_nats']:.3f}" in text
    text = shown(run.last)
    assert f"best model {run.model} step {best['step']}, validation" in text


def test_a_model_away_from_its_run_is_shown_alone(rising):
    trainer, finished = rising
    away = Path("away.safetensors")
    away.write_bytes(trainer.run_directory.model.read_bytes())
    text = shown(away)
    assert sentence(finished.verdict) in text
    assert "last model" not in text


def test_adding_the_verdict_leaves_the_weights_as_they_are(rising, tiny_model):
    trainer, _ = rising
    run = trainer.run_directory
    save_model(run.model, tiny_model)
    found = Verdict(judgement="sound", gap=0.1)
    RunFiles(run, trainer.corpus, trainer.model, trainer.training).complete(found)
    again = load_model(run.model)
    assert again.training == {**tiny_model.training, "verdict": dataclasses.asdict(found)}
    for name, array in tiny_model.weights.items():
        assert again.weights[name].tobytes() == array.tobytes()


def stop_halfway(trainer):
    for event in trainer.run():
        trainer.stop_requested |= getattr(event, "step", 0) >= 50
    assert event.reason == "interrupted"
    return event


def test_a_last_model_that_was_overtaken_is_taken_away(prepare):
    """A stop leaves a last model; a better one after --resume is both best and last."""
    trainer = prepare(texts.english(4000), steps=100)
    run = trainer.run_directory
    stop_halfway(trainer)
    save_model(run.last, load_model(run.model))
    list(prepare_resume([], out=run.path).run())
    assert load_model(run.model).training["step"] == 100
    assert not run.last.exists()


@pytest.mark.parametrize("missing", ["schedule", "best", "windows"])
def test_a_resume_state_that_lacks_something_is_refused(prepare, missing):
    """As another charrnn wrote it."""
    trainer = prepare(texts.english(4000), steps=100)
    stop_halfway(trainer)
    resumed = prepare_resume([], out=trainer.run_directory.path)
    resumed._resume = {key: value for key, value in resumed._resume.items() if key != missing}
    with pytest.raises(RunError, match=rf"does not fit this run.*{missing}"):
        list(resumed.run())


def test_a_run_is_judged_at_its_end_only(prepare):
    trainer = prepare(texts.english(4000), steps=100)
    event = stop_halfway(trainer)
    assert event.verdict.judgement == "interrupted"
    assert f"verdict {sentence(event.verdict)}" in shown(trainer.run_directory.path)
    finished = list(prepare_resume([], out=trainer.run_directory.path).run())[-1]
    assert finished.verdict.judgement != "interrupted"
    kept = load_model(trainer.run_directory.model).training["verdict"]
    assert kept == dataclasses.asdict(finished.verdict)


# what a model is


def saved(vocabulary, training=None, text=None, **shape):
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=4, **shape)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.weight_shapes().items()}
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        text=text or TextConfig(),
        weights=weights,
        training=training or {},
    )


def rows_of(model, capsys):
    show_info(Path("model"), model, None)
    return " ".join(capsys.readouterr().out.split())


def test_an_ensemble_of_bytes_and_a_network_of_characters(capsys):
    text = TextConfig(documents="line", normalize="nfc")
    shown = rows_of(saved(ByteVocabulary(), text=text, members=4, embedding_size=8), capsys)
    for part in (
        "4 ensemble members, each LSTM 1 × 4, embedding 8",
        "alphabet 256 bytes, UNK and EOS",
        "documents one on each line each end counts as one byte in the losses",
        "normalisation nfc",
    ):
        assert part in shown
    assert "validation" not in shown
    shown = rows_of(saved(Vocabulary("ab\n"), cell="rnn", nonlinearity="relu"), capsys)
    for part in ("RNN (relu) 1 × 4, one-hot input", "3 characters, UNK and EOS", "·ab"):
        assert part in shown
    assert "ensemble" not in shown


def test_how_far_a_model_was_trained(capsys):
    record = {
        "step": 12_345, "epochs": 3.25, "elapsed_s": 65.0, "device": "cpu", "dtype": "float32",
        "val_loss_nats": 1.5, "temperature": 1.072,
    }  # fmt: skip
    shown = rows_of(saved(Vocabulary("ab"), record), capsys)
    assert "trained for 3.25 epochs, 12,345 steps, 1m 05s, cpu float32" in shown
    assert "calibration temperature 1.072, fitted to the validation text" in shown
    assert "calibration" not in rows_of(
        saved(Vocabulary("ab"), {**record, "temperature": 1.0}), capsys
    )


def test_figures_name_their_unit(capsys):
    record = {"val_loss_nats": 1.345, "bits_per_char": 3.24, "charrnn": "9.1", "torch": "2.9"}
    shown = rows_of(saved(ByteVocabulary(), record), capsys)
    assert "validation 1.345 nats/byte (1.94 bits/byte, 3.24 bits/char)" in shown
    assert "made by charrnn 9.1, torch 2.9" in shown
    shown = rows_of(saved(ByteVocabulary(), {"val_loss_nats": 1.345}), capsys)
    assert "validation 1.345 nats/byte (1.94 bits/byte)" in shown
    assert "bits/char" not in shown
    record = {"val_loss_nats": 2.0, "bits_per_char": 2.89, "unknown_share": 0.021}
    shown = rows_of(saved(Vocabulary("ab"), record), capsys)
    assert "validation 2.000 nats/char (2.89 bits/char)" in shown
    assert "of the known characters; 2.1% were unknown" in shown


STRANGE = [
    None, [], {}, "text", 3, -1e999, float("nan"), [1], {"a": 1}, [{"a": None}], True, 10**4000,
    "\x1b]0;title\x07\x9b2J\u202e", "x" * 100_000, {"k" * 9: "\x1b[2J"}, [{}] * 10_000,
]  # fmt: skip
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
@pytest.mark.parametrize(
    "name", ["corpus", "step", "merged", "config", "val_loss_nats", "temperature", "curve",
             "verdict", "elapsed_s", "epochs", "device", "bits_per_char", "unknown_share",
             "charrnn", "torch"],
)  # fmt: skip
def test_a_record_may_be_anything(capsys, tmp_path, name, value):
    record = {"step": 3, "epochs": 1.0, "device": "cpu", "dtype": "float32"}
    record |= {"val_loss_nats": 1.5, "temperature": 1.2, "corpus": None, name: value}
    named = {"name": value, "n_chars": 3, "sha256": value}
    for training in (record, {name: value}, {**record, "corpus": named}):
        bad = saved(Vocabulary("ab"), training)
        for path in (tmp_path / "model.safetensors", tmp_path / "last.safetensors"):
            save_model(path, bad)
        show_info(tmp_path / "model.safetensors", bad, surroundings(tmp_path / "model.safetensors"))
        out = capsys.readouterr().out
        assert "parameters" in out
        assert "last model" in out
        assert not CONTROL.search(out)
        assert len(out) < 120_000


SCALARS = st.sampled_from([None, True, 0, 1, 3, 2.5, 0.0, -1e308, 1e308, 1e-320, 10**400, "x", ""])
INNER = ["merged", "config", "seed", "step", "val_loss_nats", "corpus", "name", "sha256", "n_chars",
         "judgement", "advice", "epochs", "gap", "rise", "n_val", "curve", "bits_per_char",
         "verdict", "temperature", "elapsed_s"]  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(INNER), VALUES, max_size=6))
@example({"curve": [{"val_loss_nats": 1}, {"val_loss_nats": 10**400}]})
@example({"curve": [{"val_loss_nats": 1e-320}, {"val_loss_nats": 2e-320}]})
@example({"verdict": {"judgement": "sound", "gap": 10**400, "epochs": 1}})
@example({"merged": [{"config": 1, "corpus": 1}, 3]})
def test_a_record_may_be_anything_at_any_depth(training):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        show_info(Path("model"), saved(Vocabulary("ab"), training), None)
    assert "parameters" in out.getvalue()
    assert isinstance(texts_of(training), str)


LONG = {"name": "a text " * 12, "n_chars": 3, "sha256": "0" * 64}


def test_in_a_pipe_nothing_is_broken_or_padded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    show_info(Path("long name " * 20), saved(Vocabulary("ab"), {"corpus": LONG}), None)
    lines = capsys.readouterr().out.splitlines()
    assert "file           " + "long name " * 20 in [line + " " for line in lines]
    assert "sha256         " + "0" * 64 in lines
    assert all(line == line.rstrip() for line in lines)


def test_on_a_terminal_values_are_broken_between_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    show_info(Path("model"), saved(Vocabulary("ab"), {"corpus": LONG}), None)
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    begin = lines.index("corpus         a text a text a text a text a text")
    assert lines[begin + 1] == "               a text a text a text a text a text"
    assert "sha256         " + "0" * 64 in lines


def test_sizes_and_gaps_are_rounded_to_what_people_read():
    assert [size(n) for n in (940, 12_345, 4_780_000)] == ["940 bytes", "12.3 kB", "4.78 MB"]
    for gap, words in (
        (0.004, "as low as the training loss"),
        (-0.004, "as low as the training loss"),
        (0.05, "0.05 nats above the training loss"),
        (-0.05, "0.05 nats below the training loss"),
    ):
        assert f"validation loss was {words}" in sentence(Verdict(judgement="sound", gap=gap))


# merged models


def merged_from(*parts, documents="line", **training):
    text = TextConfig(documents=documents)
    return saved(Vocabulary("ab"), {"merged": list(parts), **training}, text, members=2)


def part(seed, text="t", **more):
    corpus = {"name": text, "sha256": text * 64, "n_chars": 3}
    return {"corpus": corpus, "config": {"seed": seed}, "step": 3, "val_loss_nats": 1.5, **more}


def test_a_merged_model_names_its_texts(capsys):
    model = merged_from(part(1), part(2), {"merged": [part(1, "u"), part(2)]})
    assert texts_of(model.training) == "t, u"
    assert "t, seed 1, step 3, validation 1.500 nats/char" in rows_of(model, capsys)
    shared = [{k: v for k, v in part(seed).items() if k != "corpus"} for seed in (1, 2)]
    assert texts_of(merged_from(*shared, corpus=part(1)["corpus"]).training) == "t"
    assert texts_of({}) == ""


@pytest.mark.parametrize(
    ("parts", "documents", "note"),
    [
        ([part(1), part(2)], "line", "hold out different documents, unless they share a"),
        ([part(1), {"merged": [part(2), part(1)]}], "line", "hold out different documents"),
        ([part(1), part(2, "u")], "none", "trained on different texts, and one may have read"),
        ([part(1), part(2)], "none", ""),
        ([part(1), part(1)], "line", ""),
        ([part(1), {}], "line", ""),
    ],
)
def test_what_the_validation_of_a_merged_model_is_worth(capsys, parts, documents, note):
    model = merged_from(*parts, documents=documents)
    assert note in validation_note(model)
    assert bool(note) == bool(validation_note(model))
    assert (validation_note(model) or "parameters") in rows_of(model, capsys)


def test_a_damaged_model_beside_a_good_one_is_told(capsys, tmp_path):
    good = saved(Vocabulary("ab"), {"step": 3, "val_loss_nats": 1.5})
    save_model(tmp_path / "model.safetensors", good)
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    show_info(tmp_path / "model.safetensors", good, surroundings(tmp_path / "model.safetensors"))
    out = " ".join(capsys.readouterr().out.split())
    assert "parameters" in out
    assert "is not a charrnn model" in out


def test_how_the_run_was_begun_is_shown(capsys, tmp_path):
    model = saved(Vocabulary("ab"))
    save_model(tmp_path / "model.safetensors", model)
    record = {"started": "2026-11-25", "command": "charrnn train 'a b.txt'\x1b[2J"}
    RunDirectory(tmp_path).write_record(record)
    show_info(tmp_path / "model.safetensors", model, surroundings(tmp_path / "model.safetensors"))
    out = " ".join(capsys.readouterr().out.split())
    assert "begun 2026-11-25" in out
    assert "command charrnn train 'a b.txt'" in out
    assert "\x1b" not in out


# what a machine has


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The directory of the tests is in the home of a user with a name to keep."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path.parent))
    return tmp_path.parent


def labelled(shown):
    """The values of `info --system` by their labels."""
    lines = [line for line in shown.splitlines() if not line.startswith(" ")]
    return {line[:15].rstrip(): line[15:] for line in lines}


def test_a_bug_report_is_one_paste(charrnn, home, tmp_path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "metrics.jsonl").touch()
    done = charrnn("info", "--system", LANG="\x1b[2Jx")
    assert (done.code, done.err) == (0, "")
    facts = labelled(done.out)
    assert facts["charrnn"] == package.__version__
    assert facts["Python"].split()[0] == platform.python_version()
    assert np.__version__ in facts["NumPy"]
    assert "blas" in facts["NumPy"]
    assert facts["torch"] == torch.__version__
    assert all(f"{name} {version(name)}" in facts["libraries"] for name in machine.LIBRARIES[1:])
    assert platform.machine() in facts["system"]
    assert f"of {os.cpu_count()} cores, {torch.get_num_threads()} for torch" in facts["threads"]
    chosen = machine.choose_device("auto")
    assert f"on {chosen}, in {machine.choose_dtype(chosen, 64)}" in facts["training"]
    assert facts["runs"] == f"1 in {Path('~', tmp_path.name, 'runs')}"
    assert str(home) not in done.out
    assert "stdout utf-8" in facts["encodings"]
    assert facts["terminals"] == "none"
    assert "LANG=␛[2Jx" in facts["variables"]
    assert not ACTIVE.search(done.out)


def test_a_bug_report_fits_a_terminal(charrnn, home):
    everything = dict.fromkeys(machine.VARIABLES[:-1], "value")
    everything |= {"COLUMNS": "80", "NO_COLOR": "1"}
    done = charrnn("info", "--system", terminals=("stdout",), **everything)
    lines = re.sub(r"\x1b\[\d*m", "", done.out).splitlines()
    assert max(map(len, lines)) <= 80
    assert labelled("\n".join(lines))["terminals"] == "stdout (80 columns)"


def test_a_bug_report_needs_no_torch(charrnn, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = labelled(charrnn("info", "--system").out)
    assert facts["torch"] == "not installed, and needed for training only"
    assert "training" not in facts


def test_a_torch_that_cannot_be_used_is_told(charrnn, monkeypatch):
    def load():
        raise OSError("libc10.so:\nno such file")

    monkeypatch.setattr(machine, "load_torch", load)
    done = charrnn("info", "--system")
    assert done.code == 0
    told = labelled(done.out)["torch"]
    assert told == f"{version('torch')}, which cannot be used (OSError: libc10.so:↵no such file)"


def test_the_gpus_are_named(charrnn, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU number {i}")
    monkeypatch.setattr(machine, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(machine, "choose_dtype", lambda device, units: "float16")
    out = charrnn("info", "--system").out
    assert labelled(out)["training"] == "on cuda, in float16"
    assert "cuda:0 is GPU number 0" in out
    assert "cuda:1 is GPU number 1" in out


def test_a_bug_report_is_about_no_model(charrnn):
    charrnn("info", "--system", "runs/one").assert_one_error(2, "--system is about the machine")
