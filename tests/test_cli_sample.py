"""The options of `charrnn sample`."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import CHARACTERS, TINY_RUN

from charrnn.cli.drawing import Draw, Prompts
from charrnn.config import MAX_NUM, SamplingConfig, TextConfig
from charrnn.corpus import sources
from charrnn.display.sample import show_samples, show_stream, tell_blank
from charrnn.model import CharModel
from charrnn.sampling.batch import BATCH_SIZE
from charrnn.sampling.writer import Request, Sample
from charrnn.storage.model_file import save_model
from charrnn.vocab import EOS_ID


@pytest.fixture
def sample(charrnn, tiny_model_path):
    """Run `charrnn sample` on the tiny model with seed 1 and twenty characters."""

    def sample(*options, **more):
        given = ("sample", "-m", tiny_model_path, "--seed", 1, "-n", 20, *options)
        return charrnn(*given, **more)

    return sample


def test_several_temperatures_are_labelled(sample):
    result = sample("--temp", "0.5,1.5", "--temp", "0")
    assert result.code == 0, result.err
    labels = [line for line in result.out.splitlines() if line.startswith("──")]
    assert [label.split()[-2] for label in labels] == ["0.5", "1.5", "0"]
    alone = sample("--temp", "0.5").out.rstrip("\n")
    assert alone in result.out


def test_many_samples_as_json_lines(sample):
    result = sample("--num", 5, "--format", "jsonl", "--logprobs", "--prompt", "ab")
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [r["index"] for r in records] == list(range(5))
    for record in records:
        assert record["prompt"] == "ab"
        assert record["seed"] == 1
        assert record["stop_reason"] in ("eos", "length")
        ended = record["stop_reason"] == "eos"
        assert len(record["logprobs"]) == len(record["text"]) + ended
    alone = sample("--prompt", "ab", "--no-echo").out.rstrip("\n")
    assert alone == records[0]["text"].rstrip("\n")


def test_prompts_from_a_file_and_from_stdin(sample, tmp_path):
    (tmp_path / "prompts").write_text("abc\nxyz\n")
    result = sample("--prompts", "prompts", "--format", "jsonl")
    assert [json.loads(line)["prompt"] for line in result.out.splitlines()] == ["abc", "xyz"]
    for given in (sample("--prompt-file", "-", stdin=b"abc"), sample("--prompt", "abc")):
        assert given.code == 0, given.err
        assert given.out.startswith("abc")
        assert given.out == sample("--prompt", "abc").out


@pytest.mark.parametrize("num", [1, 2])
def test_an_unknown_character_in_one_of_many_prompts(sample, tmp_path, num):
    """A file is looked through before anything is written; a pipe is read as it comes."""
    given = "abc\nx☃y\nabd\n"
    (tmp_path / "prompts").write_text(given, encoding="utf-8")
    options = ("--format", "jsonl", "--num", num)
    first = sample("-p", "abc", *options).out
    file = sample("--prompts", "prompts", *options)
    file.assert_one_error(1, "line 2 of prompts has characters", "'☃' (U+2603) at position 2")
    assert file.out == ""
    pipe = sample("--prompts", "-", *options, stdin=given.encode())
    pipe.assert_one_error(1, "line 2 of standard input has", "set --on-unknown to unk or skip")
    assert pipe.out == first
    for name in ("prompts", "-"):
        written = sample("--prompts", name, *options, "--on-unknown", "skip", stdin=given.encode())
        assert [one["prompt"] for one in records(written)[::num]] == given.splitlines()


class Endless:
    """Reads a file of prompts that never ends."""

    def lines(self, file):
        return itertools.repeat("ab")


@pytest.mark.parametrize("unique", [False, True])
def test_prompts_are_read_as_they_are_drawn(tiny_model, unique):
    draw = Draw(CharModel(tiny_model), SamplingConfig(length=2, seed=1), [1.0], 1, "error")
    given = Prompts("", Endless(), Path("-"))
    samples = draw.samples(given, None, new_only=False, unique=unique)
    found = [sample.index for sample, _ in itertools.islice(samples, 3)]
    assert found == [0, MAX_NUM, 2 * MAX_NUM]


@pytest.mark.parametrize(
    ("option", "name"), [("--prompt-file", "long"), ("--prompt-file", "-"), ("--prompts", "long")]
)
def test_a_prompt_too_long_to_be_held_in_memory(sample, tmp_path, monkeypatch, option, name):
    monkeypatch.setattr(sources, "MAX_LINE", 100)
    (tmp_path / "long").write_text("a" * 101)
    called = "standard input" if name == "-" else name
    result = sample(option, name, stdin=b"a" * 101)
    result.assert_one_error(1, f"{called} has more than 100 characters")
    assert sample("--prompt-file", "-", stdin=b"a" * 100).code == 0


def test_unknown_characters_of_a_prompt(sample):
    refused = sample("--prompt", "a☃b")
    refused.assert_one_error(
        1, "the prompt has characters", "'☃' (U+2603) at position 2", "set --on-unknown to unk or"
    )
    skipped = sample("--prompt", "a☃b", "--on-unknown", "skip", "--no-echo")
    assert skipped.out == sample("--prompt", "ab", "--no-echo").out
    read = sample("--prompt", "a☃b", "--on-unknown", "unk", "--no-echo")
    assert read.code == 0
    assert read.out != skipped.out


def test_copies_are_reported(sample, tmp_path):
    written = sample().out
    (tmp_path / "corpus").write_text("something before " + written)
    result = sample("--check-novelty", "corpus", "--format", "jsonl")
    record = json.loads(result.out)
    assert record["longest_copied"] == record["text"]
    assert record["is_whole_document"] is False
    plain = sample("--check-novelty", "corpus")
    assert plain.out == written
    assert "copied:" not in plain.err, "so short a text may be anybody's"


def test_no_stream_writes_the_same(sample):
    assert sample("--no-stream", "--prompt", "ab").out == sample("--prompt", "ab").out


def test_a_resumed_run_keeps_its_settings(charrnn, text):
    result = charrnn("train", text, "--resume", "--lr", 0.5)
    result.assert_one_error(2, "leave out --lr")


def test_a_list_of_lines_gets_advice(charrnn, tmp_path):
    (tmp_path / "names").write_text("\n".join(["Anna", "Berta", "Carla"] * 20))
    options = ("--steps", 1, "--hidden", 4, "--sample-every", 0)
    assert "--documents line" in charrnn("train", "names", *options).err
    assert "--documents line" not in charrnn("train", "names", "--documents", "line", *options).err


def records(result):
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_the_samples_of_a_prompt_do_not_depend_on_their_number(sample, tmp_path):
    (tmp_path / "prompts").write_text("abc\nxyz\n")
    given = ("--prompts", "prompts", "--format", "jsonl", "--temp", "0.5,1.0")
    few, many = (records(sample(*given, "--num", num)) for num in (1, 3))
    for one in few:
        same = [r for r in many if all(r[k] == one[k] for k in ("prompt", "temperature", "index"))]
        assert same == [one]
    assert [one["index"] for one in few] == [0, 0, 1_000_000, 1_000_000]


def test_samples_are_planned_as_they_are_drawn(tiny_model):
    """Any number of them: the requests of a million prompts are not made at once."""
    model = CharModel(tiny_model)
    start = model.start("a")
    asked = []

    def requests():
        for k in itertools.count():
            asked.append(k)
            yield Request(start, "a", 1.0, k)

    config = SamplingConfig(length=2, seed=1)
    drawn = list(itertools.islice(model.sample_requests(requests(), config), 5))
    assert [one.index for one in drawn] == list(range(5))
    assert len(asked) <= 2 * BATCH_SIZE


def test_unique_samples(charrnn, tiny_model_path):
    """One letter each: as many as asked for, or as there are, and it says why there are no more."""
    given = ("sample", tiny_model_path, "--seed", 1, "-n", 1, "--format", "jsonl", "--unique")
    few = records(charrnn(*given, "--num", 8))
    assert len({one["text"] for one in few}) == len(few) == 8
    plain = records(charrnn(*given[:-1], "--num", 500))
    firsts = {one["text"]: one["index"] for one in reversed(plain)}
    assert [one["index"] for one in few] == sorted(firsts.values())[:8]
    all_of_them = charrnn(*given, "--num", 1000)
    found = [json.loads(line)["text"] for line in all_of_them.out.splitlines()]
    assert len(set(found)) == len(found) <= len(CHARACTERS)
    all_of_them.assert_one_error(
        1, f"{len(found)} of 1,000 samples written: for the others, 200 drawn in a row were all "
        "repeated; try a higher --temp or a smaller --num"
    )  # fmt: skip


def test_new_samples_only(charrnn, tiny_model, tmp_path):
    """A model of names: one that stands in the corpus is copied, however short."""
    named = dataclasses.replace(tiny_model, text=TextConfig(documents="line"))
    save_model(tmp_path / "names", named)
    given = ("sample", "-m", "names", "--seed", 1, "-n", 1, "--format", "jsonl")
    corpus = "".join(f"{c}\n" for c in CHARACTERS[:20] if c != "\n")
    (tmp_path / "corpus").write_text(corpus, encoding="utf-8")
    marked = charrnn(*given, "--num", 100, "--check-novelty", "corpus")
    whole = [one["is_whole_document"] for one in records(marked)]
    assert 0 < sum(whole) < 100
    assert f"of 100 samples, {sum(whole)} are whole documents of the corpus: " in marked.err
    new = records(charrnn(*given, "--num", 5, "--check-novelty", "corpus", "--new-only"))
    assert [one["index"] for one in new] == [k for k in range(100) if not whole[k]][:5]
    greedy = charrnn(*given, "--greedy").out
    (tmp_path / "all").write_text(json.loads(greedy)["text"] + "\n", encoding="utf-8")
    none = charrnn(*given, "--greedy", "--num", 5, "--check-novelty", "all", "--new-only")
    none.assert_one_error(1, "0 of 5 samples written: for the others, 200 drawn", "all copied")
    assert none.out == ""
    twice = charrnn(*given, "--new-only")
    twice.assert_one_error(2, "--new-only needs --check-novelty CORPUS: name the text that no")


def test_a_stop_that_never_comes_is_said(sample):
    result = sample("--stop", "€", "--stop", "\\n")
    assert "the stop text '€' never comes, for the model does not know '€' (U+20AC)" in result.err
    assert "; with --escapes, \\n is a line end" in result.err
    assert "never comes" not in sample("--stop", "a", "--stop", "\\n", "-e").err


def test_stops_and_prompts_are_read_in_the_form_of_the_model(charrnn, sample, tiny_model, tmp_path):
    composed = dataclasses.replace(tiny_model, text=TextConfig(normalize="nfc"))
    save_model(tmp_path / "nfc", composed)
    given = ("sample", "-m", "nfc", "--seed", 1, "-n", 500)
    stopped = charrnn(*given, "--stop", "e\u0301")
    assert "never comes" not in stopped.err
    assert stopped.out.rstrip("\n") == charrnn(*given).out.partition("é")[0].rstrip("\n")
    assert sample("-p", "a\r\nb").out == sample("-p", "a\nb").out
    assert sample("-p", "a\\nb", "-e").out == sample("-p", "a\nb").out


def test_a_byte_that_is_not_utf8_comes_out_as_it_went_in(sample):
    assert sample("-p", "a\udce9", "--on-unknown", "unk").out.startswith("a\udce9")
    shown = sample("-p", "a\udce9", "--on-unknown", "unk", terminals=("stdout",), NO_COLOR="1")
    assert "a\\udce9" in shown.out


def test_patterns_of_files_may_be_given_several_times(charrnn, tmp_path):
    for name in ("a.txt", "b.md", "c.rst"):
        (tmp_path / name).write_text("some text of this file\n" * 50)
    given = ("train", ".", "--name", "both", "--glob", "*.md", "--glob", "*.txt")
    result = charrnn(*given, *TINY_RUN)
    assert result.code == 0, result.err
    assert "2 files read" in result.err


class Pipe(io.RawIOBase):
    """A pipe whose third write is interrupted."""

    def __init__(self):
        self.written = []
        self.count = 0

    def writable(self):
        return True

    def write(self, piece):
        self.count += 1
        if self.count == 3:
            raise KeyboardInterrupt
        self.written.append(bytes(piece))
        return len(piece)


@pytest.mark.parametrize("way", ["streamed", "whole", "json"])
def test_an_interrupt_leaves_whole_characters_and_ends_the_line(monkeypatch, way):
    """A pipe takes 4,096 bytes whole or not at all (POSIX): no more are written at once."""
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(pipe), "utf-8"))
    text = "a中😀" * 3000
    sample = Sample(text="b", prompt=text, seed=1, index=0, temperature=1.0, stop_reason="length")
    samples = partial(show_samples, [(sample, None)], echo=True, labels=None, raw=False)
    write = {
        "streamed": partial(show_stream, "b", text, raw=False),
        "whole": partial(samples, as_json=False),
        "json": partial(samples, as_json=True),
    }[way]
    with pytest.raises(KeyboardInterrupt):
        write()
    assert max(map(len, pipe.written)) <= 4096
    out = b"".join(pipe.written).decode()
    assert out.endswith("\n")
    assert out.rstrip("\n") in text or way == "json"


def quiet(number):
    """A sample that is blank."""
    return Sample(
        text=" \n"[:number], prompt="", seed=1, index=0, temperature=1.0, stop_reason="eos"
    )


@pytest.mark.parametrize("options", [(), ("--no-stream",), ("--num", 3), ("--stop", "a")])
def test_why_nothing_can_be_seen_of_a_sample(charrnn, tiny_model, tmp_path, options):
    weights = {**tiny_model.weights, "output.bias": tiny_model.weights["output.bias"].copy()}
    stopped = "--stop" in options
    most = EOS_ID if not stopped else tiny_model.vocabulary.encode("a")[0]
    weights["output.bias"][most] = 50
    save_model(tmp_path / "quiet", dataclasses.replace(tiny_model, weights=weights))
    given = ("sample", "quiet", "--seed", 1, *options)
    if "--num" in options:
        told = "3 of 3 samples are blank: the model ended the text at once; --min-length 120 keeps"
    elif stopped:
        told = "the stop text came after 0 characters; another --stop or --seed gives more"
    else:
        told = "the model ended the text after 0 characters; --min-length 120 keeps it writing"
    assert told in charrnn(*given).err
    advised = charrnn(*given, "--min-length", 120, "-n", 130).err
    assert ("after 0 characters" in advised) == stopped
    assert "blank" not in charrnn("sample", "quiet", "--format", "jsonl").err
    names = dataclasses.replace(tiny_model, weights=weights, text=TextConfig(documents="line"))
    save_model(tmp_path / "names", names)
    if not stopped:
        assert "; --min-length 1 keeps it" in charrnn("sample", "names", *options).err


def test_blank_samples_are_told_by_what_they_have(capsys):
    show_samples([(quiet(2), None)], as_json=False, echo=True, labels=None, raw=False)
    assert "after 2 characters of white space; --min-length" in capsys.readouterr().err
    show_samples([(quiet(1), None)], as_json=False, echo=True, labels=None, raw=False)
    assert "after 1 character of white space; --min-length" in capsys.readouterr().err
    tell_blank(" x", "eos", in_documents=False)
    tell_blank("", "length", in_documents=False)
    assert capsys.readouterr().err == ""


def test_labels_have_what_differs(sample, tmp_path):
    (tmp_path / "prompts").write_text("abc\n\n" + "x" * 60 + "\n\n")

    def labels(*options):
        return [line for line in sample(*options).out.splitlines() if line.startswith("──")]

    assert labels("--num", 2) == ["── 1 ──", "── 2 ──"]
    assert labels("--temp", "0.5,1.5")[1] == "── 2 · temperature 1.5 ──"
    prompts = labels("--prompts", "prompts")
    assert prompts == [
        "── 1 · 'abc' ──",
        "── 2 · '' ──",
        f"── 3 · '{'x' * 40}…' ──",
        "── 4 · '' ──",
    ]
    both = labels("--prompts", "prompts", "--temp", "1.5,0.5")
    assert both[1] == "── 2 · 'abc' · temperature 0.5 ──"
    told = "2 prompts are empty, first line 2 of prompts: nothing is continued there"
    assert told in sample("--prompts", "prompts").err
    stdin = sample("--prompts", "-", stdin=b"a\n\n")
    assert "line 2 of standard input is empty: nothing is continued there" in stdin.err
    assert "empty" not in sample().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", "-"), "standard input, which is --prompt-file -, or the text -, which is"),
        (("--temp", "0.3,0,7"), "--temp has 0,7, which may mean 0.7 or 0 and 7: write a decimal"),
        (("--temp", "0,5"), "--temp 0 --temp 5"),
        (("--temp", "0.5,1,2"), "--temp 0.5 --temp 1 --temp 2"),
    ],
)
def test_what_may_mean_two_things_is_refused(sample, options, message):
    sample(*options).assert_one_error(2, message)


def test_what_may_be_meant_otherwise_gets_a_hint(charrnn, sample, tmp_path):
    (tmp_path / "my poem").write_text("abc")
    assert "the content of that file is --prompt-file 'my poem'" in sample("-p", "my poem").err
    assert sample("-e", "-p", "\\u002d", "--on-unknown", "skip").code == 0
    assert sample("--temp", "0.5,1").code == 0
    for words in (("ROMEO:",), ("ROMEO:", "-m", "builtin")):
        refused = charrnn("sample", *words)
        refused.assert_one_error(2, "there is no model 'ROMEO:'; a text to continue comes after")
    assert "temperature 0 always writes the same text: --num 2 repeats it" in sample(
        "--greedy", "--num", 2
    ).err  # fmt: skip
    assert "always writes" not in sample("--greedy").err


def test_the_end_of_the_last_line_of_a_prompt_file_is_no_part_of_it(sample):
    for stdin, prompt in ((b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc\n\n", "abc\n")):
        assert sample("--prompt-file", "-", stdin=stdin).out == sample("-p", prompt).out


def test_a_prompt_without_its_option_gets_a_hint(charrnn):
    refused = charrnn("sample", "-n", 20, "Dear", "Sir")
    refused.assert_one_error(2, "(Sir): a text to continue comes after --prompt, in quotes")
