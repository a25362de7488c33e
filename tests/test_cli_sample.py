"""The options of `charrnn sample`."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from conftest import CHARACTERS, TINY_RUN

from charrnn.config import SamplingConfig, TextConfig
from charrnn.model import CharModel
from charrnn.sampling.writer import Request
from charrnn.storage.model_file import save_model


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


def test_unknown_characters_of_a_prompt(sample):
    refused = sample("--prompt", "a☃b")
    refused.assert_one_error(1, "the prompt has characters", "'☃' (U+2603) at position 1")
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
    assert "the longest passage has 20" in plain.err


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
    assert len(asked) <= 4096


def test_unique_samples(charrnn, tiny_model_path):
    """One letter each: as many as asked for, or as there are, and it says why there are no more."""
    given = ("sample", tiny_model_path, "--seed", 1, "-n", 1, "--format", "jsonl", "--unique")
    few = records(charrnn(*given, "--num", 8))
    assert len({one["text"] for one in few}) == len(few) == 8
    plain = records(charrnn(*given[:-1], "--num", 500))
    firsts = {one["text"]: one["index"] for one in reversed(plain)}
    assert [one["index"] for one in few] == sorted(firsts.values())[:8]
    all_of_them = charrnn(*given, "--num", 1000)
    found = [one["text"] for one in records(all_of_them)]
    assert len(set(found)) == len(found) <= len(CHARACTERS)
    assert f"{len(found)} of 1,000 samples: the last 200 drawn were all repeated" in all_of_them.err


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
    assert f"of 100 samples {sum(whole)} are whole documents of the corpus" in marked.err
    new = records(charrnn(*given, "--num", 5, "--check-novelty", "corpus", "--new-only"))
    assert [one["index"] for one in new] == [k for k in range(100) if not whole[k]][:5]
    greedy = charrnn(*given, "--greedy").out
    (tmp_path / "all").write_text(json.loads(greedy)["text"] + "\n", encoding="utf-8")
    none = charrnn(*given, "--greedy", "--num", 5, "--check-novelty", "all", "--new-only")
    assert (none.code, none.out) == (0, "")
    assert "0 of 5 samples: the last 200 drawn were all copied" in none.err


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
