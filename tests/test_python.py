"""The Python face: every keyword spelled out, every wrong value a ConfigError that names it."""

from __future__ import annotations

import dataclasses
import inspect
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn import api, events
from charrnn.api import SETTINGS
from charrnn.config import ModelConfig, SamplingConfig
from charrnn.errors import CharRNNError, ConfigError, CorpusError, ModelFileError, RunError
from charrnn.model import CharModel
from charrnn.storage.model_file import SavedModel
from charrnn.storage.runs import RunDirectory
from charrnn.vocab import ByteVocabulary, Vocabulary


@pytest.fixture(scope="module")
def model(tiny_model):
    return CharModel(tiny_model)


def keywords(function):
    """Names and defaults of the keyword-only parameters; `**options` would be a failure."""
    parameters = inspect.signature(function).parameters.values()
    assert not any(p.kind == p.VAR_KEYWORD for p in parameters)
    assert all(p.annotation is not p.empty for p in parameters if p.name != "self")
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def test_every_setting_of_a_training_run_is_a_keyword():
    found = keywords(charrnn.train)
    assert set(found) == {"out", "name", "init", "held_out", "on_event", *SETTINGS}
    assert {found[name] for name in SETTINGS} == {None}


@pytest.mark.parametrize("method", ["sample", "stream"])
def test_every_sampling_option_is_a_keyword(method):
    found = keywords(getattr(CharModel, method))
    for field in dataclasses.fields(SamplingConfig):
        expected = None if field.name == "seed" else field.default
        assert found.pop(field.name) == expected
    assert found == {
        "after": None,
        "on_unknown": "error",
        **({"num": None, "device": "auto"} if method == "sample" else {"index": 0}),
    }


@pytest.mark.parametrize("method", ["score", "score_many", "char_scores", "scorer"])
def test_every_rule_of_scoring_is_a_keyword(method):
    found = keywords(getattr(CharModel, method))
    found.pop("alternatives", None)
    if method in ("score_many", "scorer"):  # a scorer does not know how much there is to score
        assert found.pop("device") == ("auto" if method == "score_many" else "cpu")
    assert found == {"eos": None, "on_unknown": "unk", "context": ""}


SAMPLING = [
    ({"temperature": -1}, "temperature must be at least 0, got -1.0"),
    ({"temperature": "warm"}, "temperature must be a number, got 'warm'"),
    ({"top_p": 2}, "top_p must be in (0, 1], got 2"),
    ({"top_k": 1.5}, "top_k must be a whole number, got 1.5"),
    ({"length": True}, "length must be a whole number, got True"),
    ({"stop": 3}, "stop must be texts, got 3"),
    ({"stop": ""}, "stop must have at least one character"),
    ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
    ({"prompt": 7}, "prompt must be a text, got 7"),
    ({"prompt": b"a"}, "prompt must be a text, got b'a'"),
    ({"on_unknown": "replace"}, "on_unknown must be one of unk, skip, error, got 'replace'"),
    ({"after": "the end"}, "after must be a Start, got 'the end'"),
]


@pytest.mark.parametrize(("options", "message"), SAMPLING, ids=str)
@pytest.mark.parametrize("method", ["sample", "stream"])
def test_a_wrong_sampling_option(model, method, options, message):
    with pytest.raises(ConfigError) as caught:
        getattr(model, method)(**options)
    assert str(caught.value) == message


def test_a_prompt_of_the_wrong_type_alone(model):
    with pytest.raises(ConfigError, match="prompt must be a text, got 7"):
        model.encode_prompt(7)


@pytest.mark.parametrize(
    ("members", "vocabulary", "shown"),
    [
        (1, Vocabulary("ab"), "<CharModel LSTM 2 x 8, 2 characters>"),
        (3, ByteVocabulary(), "<CharModel LSTM 2 x 8, 3 members, bytes>"),
    ],
)
def test_a_model_shows_its_shape(members, vocabulary, shown):
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=8, num_layers=2, members=members)
    saved = SavedModel(config=config, vocabulary=vocabulary, weights={}, training={})
    assert repr(CharModel(saved)) == shown


def test_a_place_in_a_text_belongs_to_its_model(model):
    other = charrnn.load("builtin")
    with pytest.raises(ConfigError, match="after is a place in a text of another model"):
        model.stream(after=other.start("a"))
    with pytest.raises(ConfigError, match="index must be at most"):
        model.stream(index=2**64)
    assert len("".join(model.stream(index=2**63 - 1, length=3))) == 3


@pytest.mark.parametrize("num", [0, -3, 1.0, "2", True, 10**30])
def test_a_wrong_number_of_samples(model, num):
    with pytest.raises(ConfigError, match=r"^num must be "):
        model.sample(num=num, length=1)


def test_numbers_of_numpy_and_one_stop_text_are_welcome(model):
    several = model.sample("a", num=np.int64(2), length=np.int32(5), seed=np.uint8(3))
    assert [sample.text for sample in several] == [
        "".join(model.stream("a", index=np.int64(k), length=5, seed=3)) for k in range(2)
    ]
    whole = str(model.sample("a", length=200, seed=1))
    stop = whole[20]
    assert str(model.sample("a", length=200, seed=1, stop=stop)) == whole.partition(stop)[0]


def test_unknown_characters_of_a_prompt(model):
    with pytest.raises(charrnn.errors.UnknownCharacterError, match="the prompt has characters"):
        model.sample("a€b", length=1)
    skipped = model.sample("a€b", length=20, seed=1, on_unknown="skip")
    assert skipped.text == model.sample("ab", length=20, seed=1).text


SCORING = [
    ("score", 7, {}, "text must be a text, got 7"),
    ("score", "a", {"eos": "yes"}, "eos must be True or False, got 'yes'"),
    ("score", "a", {"context": None}, "context must be a text, got None"),
    ("score", "a", {"on_unknown": "guess"}, "on_unknown must be one of unk, skip, error"),
    ("score_many", "abc", {}, "texts must be several texts, got 'abc'"),
    ("score_many", 3, {}, "texts must be several texts, got 3"),
    ("score_many", b"abc", {}, "texts must be several texts, got b'abc'"),
    ("score_many", np.array("abc"), {}, "texts must be several texts, got array('abc'"),
    ("score_many", ["a", 3], {}, "texts must be a text, got 3"),
    ("char_scores", None, {}, "text must be a text, got None"),
    ("char_scores", "a", {"alternatives": -1}, "alternatives must be at least 0, got -1"),
    ("char_scores", "a", {"alternatives": 1.5}, "alternatives must be a whole number, got 1.5"),
]


@pytest.mark.parametrize(("method", "given", "rules", "message"), SCORING, ids=str)
def test_a_wrong_argument_of_scoring(model, method, given, rules, message):
    with pytest.raises(ConfigError) as caught:
        getattr(model, method)(given, **rules)
    assert message in str(caught.value)


TRAINING = [
    ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
    ({"hidden_size": "8"}, "hidden_size must be a whole number, got '8'"),
    ({"cell": "LSTM"}, "cell must be one of lstm, peephole-lstm, gru, gru-simple, rnn, got 'LSTM'"),
    ({"time_s": "90s"}, "time_s must be a number of seconds such as 90, got '90s'"),
    (
        {"time_s": 1e-6},
        "time_s must be at least 1 second, for the start alone takes longer; got 1e-06",
    ),
    ({"documents": "page"}, "documents must be one of none, line, blank-line, file, got 'page'"),
    ({"out": 3}, "out must be a path, got 3"),
    ({"init": ""}, "init must be a path, got ''"),
    ({"held_out": 5}, "held_out must be a path or several paths, got 5"),
    ({"held_out": ["a", 5]}, "held_out must be a path, got 5"),
    ({"name": 3}, "name must be a text, got 3"),
    ({"out": "a\0b"}, "out must be a path, got 'a\\x00b'"),
    ({"out": "x" * 300}, "out is too long for the name of a file: choose another"),
    ({"out": "\ud800"}, "out is no name that a file can have: '\\ud800'"),
    (
        {"held_out": np.array("a")},
        "held_out must be a path or several paths, got array('a', dtype='<U1')",
    ),
    ({"glob": 3}, "glob must be texts, got 3"),
    ({"corpus": 5}, "corpus must be a path or several paths, got 5"),
    ({"corpus": b"abc"}, "corpus must be a path or several paths, got b'abc'"),
]


@pytest.mark.parametrize(("options", "message"), TRAINING, ids=str)
def test_a_wrong_setting_of_training(tmp_path, monkeypatch, options, message):
    """It is refused before the corpus, which is missing, is looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        charrnn.train(**{"corpus": "missing.txt", **options})
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("time", "time_s"), ("hidden", "hidden_size"), ("layers", "num_layers"),
        ("lr", "learning_rate"), ("sead", "seed"), ("colour", None),
    ],
)  # fmt: skip
def test_a_keyword_that_does_not_exist_names_the_one_that_is_meant(keyword, meant):
    with pytest.raises(ConfigError) as caught:
        charrnn.train("missing.txt", **{keyword: 1})
    hint = "" if meant is None else f": did you mean {meant}?"
    assert str(caught.value) == f"there is no setting called '{keyword}'{hint}"


def test_the_python_interface_is_listed_before_it_is_used():
    code = "import charrnn, sys; print(dir(charrnn), 'numpy' in sys.modules)"
    listed = subprocess.check_output([sys.executable, "-c", code], text=True)
    for verb in ("load", "merge", "resume", "train", "CharModel"):
        assert repr(verb) in listed
    assert listed.endswith(" False\n")


def test_events_of_a_run_are_told(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    small = {"hidden_size": 8, "batch_size": 4, "bptt": 8, "dtype": "float32"}
    charrnn.train(text, out="run", steps=2, on_event=seen.append, **small)
    assert isinstance(seen[0], events.Started)
    assert isinstance(seen[-1], events.Finished)
    charrnn.resume("run", steps=2, on_event=seen.append)
    assert [event.resumed_at for event in seen if isinstance(event, events.Started)] == [0, 2]


@pytest.mark.parametrize("text", ["To be, or not to be:\nthat is the question", "word " * 1000])
def test_a_text_in_place_of_its_path(text):
    with pytest.raises(CorpusError, match="save the text in a file and give its path"):
        charrnn.train(text)


def test_a_run_from_python(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held_out = tmp_path / "held"
    held_out.write_text("the miller found the key by the river.\n" * 4)
    model = charrnn.train(
        text, name="mine", held_out=str(held_out), steps=2, hidden_size=np.int64(8), batch_size=4,
        bptt=8, dtype="float32", device="cpu", members=2,
    )  # fmt: skip
    assert model.path == Path("runs/mine/model.safetensors")
    assert model.saved.config.members == 2
    assert model.saved.config.hidden_size == 8
    assert len(model.sample("the ", num=3, length=10, seed=1)) == 3


def test_what_cannot_be_loaded():
    with pytest.raises(ConfigError, match=r"^path must be a path, got 7"):
        charrnn.load(7)
    with pytest.raises(ModelFileError, match="there is no model at nowhere"):
        charrnn.load("nowhere")
    with pytest.raises(ConfigError, match=r"^models must be a path or several paths, got None"):
        charrnn.merge(None)
    with pytest.raises(CharRNNError, match="give two models or more"):
        charrnn.merge("builtin")


def test_an_interrupted_run_says_how_it_continues(text, tmp_path, monkeypatch):
    """Ctrl-C in Python: the run is saved, and taken up again."""
    monkeypatch.chdir(tmp_path)
    from charrnn.training.learner import Learner

    take_step = Learner.take_step
    taken = []

    def interrupted(learner, *given):
        taken.append(1)
        if len(taken) == 5:
            signal.raise_signal(signal.SIGINT)
        return take_step(learner, *given)

    monkeypatch.setattr(Learner, "take_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"to continue: charrnn\.resume\('my run'\)"):
        charrnn.train(
            text, out="my run", steps=20, hidden_size=8, batch_size=4, bptt=8, dtype="float32"
        )
    assert charrnn.load("my run").saved.training["step"] == 5
    assert api.resume("my run").saved.training["step"] > 5
    longer = api.resume(Path("my run"), steps=np.int64(10))
    assert longer.path == Path("my run/model.safetensors")
    assert RunDirectory(Path("my run")).resume_record()["schedule"]["step"] == 30


def test_what_a_run_is_resumed_with(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"hidden_size": 8, "batch_size": 4, "bptt": 8, "dtype": "float32"}
    charrnn.train(text, out="run", steps=2, **small)
    assert set(keywords(api.resume)) == {"time_s", "epochs", "steps", "on_event"}
    for limits, message in (
        ({}, "say how much longer it is to train"),
        ({"time_s": "90s"}, "^time_s must be a number of seconds such as 90, got '90s'"),
        ({"time_s": 0.1}, "^time_s must be at least 1 second"),
        ({"steps": 0}, "^steps must be at least 1, got 0"),
    ):
        with pytest.raises(CharRNNError, match=message):
            api.resume("run", **limits)
    with pytest.raises(ConfigError, match=r"^run must be a path, got 7"):
        api.resume(7)
    with pytest.raises(RunError, match="there is no run in nowhere"):
        api.resume("nowhere")


def test_what_is_said_in_python_speaks_of_no_options(text, tmp_path, monkeypatch):
    """A command that can be pasted may have some."""
    monkeypatch.chdir(tmp_path)
    settings = {"steps": 2, "hidden_size": 8, "batch_size": 4, "bptt": 8, "dtype": "float32"}
    charrnn.train(text, out="run", **settings)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("notes")
    for wrong in (
        {"out": "run"},
        {"out": "mine"},
        {"out": "mine/notes.txt"},
        {"out": "a", "name": "b"},
        {"name": "a/b"},
    ):
        with pytest.raises(CharRNNError) as caught:
            charrnn.train(text, **settings, **wrong)
        assert "--" not in str(caught.value).partition("charrnn train")[0]


@pytest.mark.parametrize(
    ("verb", "keyword", "meant"),
    [
        ("sample", "temp", "temperature"), ("sample", "topk", "top_k"),
        ("stream", "temprature", "temperature"), ("score", "unknown", "on_unknown"),
        ("char_scores", "alternative", "alternatives"), ("start", "context", None),
        ("score_many", "ctx", None), ("scorer", "contxt", "context"), ("export", "file", None),
    ],
)  # fmt: skip
def test_a_keyword_that_a_model_does_not_have_names_the_one_that_is_meant(
    model, verb, keyword, meant
):
    with pytest.raises(ConfigError) as caught:
        getattr(model, verb)(**{keyword: 1})
    hint = "" if meant is None else f": did you mean {meant}?"
    assert str(caught.value) == f"there is no setting called '{keyword}'{hint}"


def test_a_score_shows_what_is_mostly_asked_for(tiny_model):
    found = CharModel(tiny_model).score("the key€" * 20)
    shown = repr(found)
    assert f"bits_per_char={found.bits_per_char:.6g})" in shown
    assert f"logprob={found.logprob:.6g}" in shown
    assert "n_unknown=20" in shown
    assert len(shown) < 200
    assert "n_unknown" not in repr(CharModel(tiny_model).score("the key"))
