"""Random command lines: all options of all commands, on tiny models of every kind.

Whatever is typed, a command ends with exit code 0, 1, 2 or 130, shows no traceback, writes no text
beyond `--length` or outside the alphabet, and no number that is not finite. CHARRNN_FUZZ is the
number of cases; `make fuzz` has 5,000.
"""

from __future__ import annotations

import dataclasses
import gzip
import inspect
import json
import os
import re
import shutil
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
import pytest
import reference
import texts
from conftest import ACTIVE, CHARACTERS, CRASH, TINY_RUN
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from typer.models import OptionInfo

from charrnn.cli.app import app
from charrnn.config import ModelConfig, TextConfig
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import ByteVocabulary, Vocabulary

CASES = int(os.environ.get("CHARRNN_FUZZ", "40"))

COMMANDS = {command.name: command.callback for command in app.registered_commands}

KINDS = {
    "lstm": {"cell": "lstm"},
    "gru-line": {"cell": "gru", "documents": "line", "num_layers": 2},
    "peephole-bytes-line": {"cell": "peephole-lstm", "unit": "byte", "documents": "line"},
    "simple-members": {"cell": "gru-simple", "members": 2, "num_layers": 2},
    "rnn-bytes": {"cell": "rnn", "unit": "byte", "embedding_size": 3},
    "relu-members-nfc": {"cell": "rnn", "nonlinearity": "relu", "members": 2, "normalize": "nfc"},
    "bytes-members-line": {"cell": "lstm", "unit": "byte", "members": 3, "documents": "line"},
    "gru-file-members": {"cell": "gru", "documents": "file", "members": 2, "embedding_size": 2},
    "overflowing": {"cell": "lstm", "scale": 3e38},
    "both-sides": {"cell": "gru", "bidirectional": True, "documents": "line", "members": 2},
    "bytes-both-sides": {"cell": "lstm", "bidirectional": True, "unit": "byte"},
}
MODELS = [*KINDS, "builtin", "run", "missing", "text.txt", "", "folder", "./lstm"]
FILES = [
    "text.txt", "latin.txt", "empty.txt", "names.gz", "folder", "pairs.tsv", "pairs.jsonl", "wide",
    "missing", "", "-", "damaged.gz", "lstm",
]  # fmt: skip
WRITTEN = ["out", "text.txt", "folder", "lstm", os.devnull, "", "new/page.html"]
TEXTS = st.one_of(
    st.sampled_from(["", "the key", "-5 degrees", "\\n", "\\", "@text.txt", "@@a", "@", "a\r\nb"]),
    st.text(
        st.sampled_from(CHARACTERS + "?\\€\u0301\x1b\0\u202e😀".replace("\0", "")), max_size=12
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.just("a\udce9"),
)
SMALL = ["1", "2", "3", "7"]
EXTREME = ["-1", "0", "9" * 40, str(2**63), "1.5", "nan", "", "1e300"]
REAL = ["0", "0.5", "1", "0.01", "0.9", "1e-300"]
UNREAL = ["2", "-1", "nan", "inf", "1e300", "0,5", ""]


def mostly(right, wrong):
    """A strategy for values that are rarely wrong: a command line with one mistake ends there."""
    return st.integers(0, 7).flatmap(lambda n: st.sampled_from(right if n else wrong))


MODEL = mostly(list(KINDS), MODELS)
FILE = mostly(["text.txt", "names.gz", "folder/a.txt", "-"], FILES)
VALUES = {
    "--model": MODEL,
    "--init": MODEL,
    "--time": mostly(["1s"], ["0s", "1m30", "0,5s", "", "1e300", "-1s", "nan"]),
    "--epochs": mostly(["0.01"], ["0", "nan", "-1", "1e-300"]),
    "--hidden": mostly(SMALL, ["12", *EXTREME]),
    "--layers": mostly(["1", "2"], EXTREME),
    "--members": mostly(["1", "2"], EXTREME),
    "--steps": mostly(SMALL, ["0", "-1", "1.5", "nan", ""]),
    "--length": mostly([*SMALL, "40"], EXTREME),
    "--num": mostly(SMALL, EXTREME),
    "--temp": mostly(["0", "0.5", "1", "1e-300", "1e9", "0.5,1", "0,1.5"], [*UNREAL, "warm", ","]),
    "--name": mostly(["new", "a b", "é"], ["run", "../x", ".", ""]),
    "--out": mostly(["out"], WRITTEN),
    "--html": mostly(["new/page.html"], WRITTEN),
    "--device": mostly(["cpu", "auto"], ["cuda:77", "tpu", ""]),
    "--encoding": mostly(["auto", "utf-8", "latin-1"], ["utf-16", "rot13", "hex", "", "x"]),
    "--glob": mostly(["*.txt", "**.txt", "*"], ["/etc/*", "", "[", "../*"]),
    "--context": TEXTS,
    "--prompt": TEXTS,
    "--stop": TEXTS,
    "--title": TEXTS,
    "--gap": mostly(["_"], ["", "e", "the", "☃"]),
    "--beam": mostly(SMALL, EXTREME),
    "--next": TEXTS,
    **dict.fromkeys(
        (
            *("--text", "--file", "--from", "--held-out"),
            *("--prompt-file", "--prompts", "--check-novelty"),
        ),
        FILE,
    ),
}
"""What is given to an option; to others, numbers and choices that follow from their types."""
NEEDED = {
    "train": st.lists(FILE, max_size=2),
    "sample": st.lists(MODEL, max_size=1),
    "score": st.lists(TEXTS, max_size=3),
    "fill": st.lists(mostly(["the k_y", "__a", "a_é_", "_the_"], ["_", "key", "_☃"]), max_size=2),
    "pairs": mostly([["pairs.tsv"], ["pairs.jsonl"], ["-"]], [[name] for name in FILES]),
    "compare": st.builds(lambda *given: list(given), MODEL, MODEL, TEXTS),
    "info": st.lists(MODEL, max_size=1),
    "export": st.lists(MODEL, max_size=1),
    "list": st.lists(st.sampled_from(["runs", "folder", "missing", "text.txt"]), max_size=1),
    "merge": st.lists(MODEL, max_size=3),
    "inspect": st.lists(MODEL, max_size=2),
    "plot": st.lists(MODEL, max_size=2),
}
WEIGHTS = (
    ["sample"] * 5
    + ["score"] * 4
    + ["train", "train", "fill", "pairs", "compare", "merge", "info", "list", "export", "plot"]
    + ["inspect"] * 3
)


class Option(NamedTuple):
    """An option of a command: its names, and its type."""

    names: list[str]
    kind: Any


def options_of(command):
    for parameter in inspect.signature(COMMANDS[command], eval_str=True).parameters.values():
        if isinstance(parameter.default, OptionInfo):
            names = [name for one in parameter.default.param_decls for name in one.split("/")]
            yield Option(names, parameter.annotation)


def values_of(option):
    """A strategy for the value of an option; None for one that has none."""
    name, kind = option.names[0], option.kind
    kinds = [one for one in get_args(kind) if one is not NoneType]
    if name in VALUES:
        return VALUES[name]
    if get_origin(kind) is Literal:
        return mostly([*kinds, kinds[0].upper()], ["luck", ""])
    kind = kinds[0] if kinds else kind
    if kind is bool:
        return None
    assert kind in (int, float), f"what is {name} given?"
    return mostly(SMALL, EXTREME) if kind is int else mostly(REAL, UNREAL)


@st.composite
def command_lines(draw):
    """A command line, and what is piped into it."""
    command = draw(st.sampled_from(WEIGHTS))
    possible = [one for one in options_of(command) if one.names[0] != "--interactive"]
    words = []
    several = st.lists(
        st.sampled_from(possible),
        max_size=5,
        unique_by=(lambda one: one.names[0]) if draw(st.integers(0, 9)) else None,
    )
    for option in draw(several) if possible else ():
        words.append(draw(st.sampled_from(option.names)))
        values = values_of(option)
        if values is not None:
            words.append(draw(values))
    arguments = draw(NEEDED[command])
    is_named = {"-m", "--model"} & set(words)
    if command in ("sample", "score", "fill", "pairs") and not is_named and draw(st.integers(0, 9)):
        words += ["-m", draw(MODEL)]
    if command in ("sample", "info", "export") and (
        {"-m", "--model"} & set(words) or draw(st.booleans())
    ):
        arguments = []
    if command == "train":
        tiny = {name: value for name, value in zip(TINY_RUN[::2], TINY_RUN[1::2], strict=True)}
        if "--resume" in words:
            tiny = {}
        words += [str(w) for name, v in tiny.items() if name not in words for w in (name, v)]
    if any(word.startswith("-") for word in arguments) and draw(st.booleans()):
        arguments = ["--", *arguments]
    stdin = draw(st.sampled_from([b"", b"the key\nab\n", b"a\tb\n", b"\xff\xfea", b"x\r\ny"]))
    return [command, *words, *arguments], stdin, draw(st.booleans())


def saved_model(number, *, unit="char", documents="none", normalize="none", scale=1.0, **shape):
    vocabulary = ByteVocabulary() if unit == "byte" else Vocabulary(CHARACTERS)
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=5, **shape)
    single = dataclasses.replace(config, members=1)
    members = [reference.random_weights(single, seed=number + k) for k in range(config.members)]
    weights = {
        name: np.stack([member[name] for member in members]).astype(np.float32)
        for name in members[0]
    }
    if config.members == 1:
        weights = {name: array[0] for name, array in weights.items()}
    if scale != 1.0:
        weights = {name: np.full_like(array, scale) for name, array in weights.items()}
    text = TextConfig(documents=documents, normalize=normalize)
    return SavedModel(config=config, vocabulary=vocabulary, weights=weights, text=text, training={})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with models of every kind and all sorts of files."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, (name, kind) in enumerate(KINDS.items()):
        save_model(folder / name, saved_model(number, **kind))
    prose = texts.english(600)
    (folder / "text.txt").write_text(prose, encoding="utf-8")
    (folder / "latin.txt").write_bytes((prose + "né").encode("latin-1"))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "wide").write_bytes("some text\n".encode("utf-16-le") * 20)
    (folder / "names.gz").write_bytes(gzip.compress(b"Anna\nBerta\n\nCarla\n" * 30))
    (folder / "damaged.gz").write_bytes(gzip.compress(b"Anna\nBerta\n\nCarla\n" * 30)[:30])
    (folder / "pairs.tsv").write_text("the key\tkey the\tg\nab\tba\n")
    (folder / "pairs.jsonl").write_text('{"sentence_good": "a", "sentence_bad": "b"}\n')
    (folder / "folder").mkdir()
    (folder / "folder" / "a.txt").write_text(prose)
    (folder / "folder" / "b.txt").write_text(prose[::-1])
    (folder / "run").mkdir()
    shutil.copy(folder / "lstm", folder / "run" / "model.safetensors")
    return folder


def refuse(constant):
    raise AssertionError(f"{constant} in JSON")


def check_samples(words, records):
    """See that the samples of a JSON report keep to what was asked for."""
    if "--length" in words or "-n" in words:
        at = words.index("--length" if "--length" in words else "-n")
        length = int(words[at + 1])
    else:
        length = 1000
    named = words[words.index("-m") + 1] if "-m" in words else ""
    known = KINDS.get(named, {"unit": "byte"}).get("unit", "char") == "char"
    for record in records:
        assert len(record["text"]) <= length
        if known:
            assert set(record["text"]) <= set(CHARACTERS)


@settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(command_lines())
def test_whatever_is_typed(charrnn, inputs, tmp_path, case):
    words, stdin, is_terminal = case
    before = {}
    for path in inputs.iterdir():
        copy = tmp_path / path.name
        if path.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(path, copy)
        else:
            shutil.copy(path, copy)
            before[copy] = path.read_bytes()
    for made in ("runs", "out", "new"):
        shutil.rmtree(tmp_path / made, ignore_errors=True)
        (tmp_path / made).unlink(missing_ok=True)
    shown = {"terminals": ("stdout",), "NO_COLOR": "1"} if is_terminal else {}
    result = charrnn(*words, stdin=stdin, **shown)
    event(f"{words[0]} {result.code}")
    assert result.code in (0, 1, 2, 130)
    assert not CRASH.search(result.err), result.err
    if "--force" in words:  # one that the user allows to replace
        replaced = words[
            max((words.index(o) for o in ("--out", "-o") if o in words), default=0) + 1
        ]
        before.pop(tmp_path / replaced, None)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert is_terminal <= ("--raw" in words or not ACTIVE.search(result.out)), ascii(result.out)
    assert not ACTIVE.search(result.err), ascii(result.err)
    if result.code:
        last = result.err.splitlines()[-1]
        assert last.startswith("charrnn: "), result.err
        assert len(last) < 1200
        return
    if "jsonl" in words:
        lines = result.out.split("\n")[:-1]
        records = [json.loads(line, parse_constant=refuse) for line in lines]
        if words[0] == "sample":
            check_samples(words, records)
    elif words[0] != "sample" and "table" not in words:
        assert not re.search(r"(^|\t)-?(nan|inf)(\t|$)", result.out, re.MULTILINE | re.IGNORECASE)


def test_every_option_has_values():
    assert set(NEEDED) == set(COMMANDS)
    for command in COMMANDS:
        for option in options_of(command):
            values_of(option)
