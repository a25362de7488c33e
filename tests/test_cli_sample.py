"""The options of `charrnn sample`."""

from __future__ import annotations

import json

import pytest


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
    plain = sample("--check-novelty", "corpus")
    assert plain.out == written
    assert "the longest passage has 20" in plain.err


def test_no_stream_writes_the_same(sample):
    assert sample("--no-stream", "--prompt", "ab").out == sample("--prompt", "ab").out


def test_a_resumed_run_keeps_its_settings(charrnn, text):
    result = charrnn("train", text, "--resume", "--steps", 5)
    result.assert_one_error(2, "leave out --steps")


def test_a_list_of_lines_gets_advice(charrnn, tmp_path):
    (tmp_path / "names").write_text("\n".join(["Anna", "Berta", "Carla"] * 20))
    options = ("--steps", 1, "--hidden", 4, "--sample-every", 0)
    assert "--documents line" in charrnn("train", "names", *options).err
    assert "--documents line" not in charrnn("train", "names", "--documents", "line", *options).err
