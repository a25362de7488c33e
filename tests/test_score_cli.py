"""`charrnn score`, `pairs` and `compare`: reports, what they are made from, exit codes."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import reference
from conftest import posix

from charrnn.config import ModelConfig, TextConfig
from charrnn.corpus import sources
from charrnn.errors import CorpusError
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.vocab import Vocabulary


@pytest.fixture
def score(charrnn, tiny_model_path):
    """Run `charrnn score` on the tiny model and return stdout and stderr."""

    def score(*arguments, stdin="", model=tiny_model_path, **variables):
        content = stdin.encode("utf-8", "surrogateescape")
        result = charrnn("score", "-m", model, *arguments, stdin=content, **variables)
        assert result.code == 0, result.err
        return result.out, result.err

    return score


@pytest.fixture
def pairs(charrnn, tiny_model_path):
    """Run `charrnn pairs` on the tiny model."""

    def pairs(*arguments, stdin="", **variables):
        return charrnn(
            "pairs", "-m", tiny_model_path, *arguments, stdin=stdin.encode(), **variables
        )

    return pairs


def rows_of(out):
    return list(csv.DictReader(io.StringIO(out, newline=""), delimiter="\t"))


def records_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_empty_and_unknown_texts(score):
    texts = ("the key", "tab\tback\\slash\nline", "", "#total", "zero\x0b")
    records = records_of(score(*texts, "--eos", "--format", "jsonl")[0])
    assert [record["text"] for record in records] == list(texts)
    assert [record["bits_per_byte"] is None for record in records] == [not t for t in texts]
    (total,) = records_of(score(*texts, "--eos", "--total", "--format", "jsonl")[0])
    assert total["logprob"] == pytest.approx(sum(r["logprob"] for r in records))
    assert total["logprob_known"] > total["logprob"]
    assert total["n_unknown"] == sum(r["n_unknown"] for r in records) > 0
    assert "text 3 is empty: only its end to score" in score(*texts, "--eos")[1]


@posix
def test_an_argument_that_is_not_utf8(score):
    out, err = score("a\udce9", "--format", "jsonl")
    assert records_of(out)[0]["text"] == "a\udce9"
    assert "an undecodable byte (0xE9) at position 2" in err


def test_files_stdin_and_whole(score, tmp_path):
    content = "the key\n\n some bread \nend"
    (tmp_path / "f").write_text(content, encoding="utf-8")
    from_file, err = score("--file", "f")
    assert "line 2 of f is empty: nothing to score" in err
    assert "total: 3 texts, " in err
    err = score(stdin=content + "\n\n")[1]
    assert "2 texts are empty, first line 2 of standard input: nothing to score" in err
    assert score(stdin=content)[0] == score("--file", "-", stdin=content)[0] == from_file
    assert [row["text"] for row in rows_of(from_file)] == content.split("\n")
    both = rows_of(score("first", "--file", "f")[0])
    assert [row["text"] for row in both[:2]] == ["first", "the key"]
    (whole,) = rows_of(score("--whole", "--file", "f")[0])
    assert (whole["text"], whole["n_chars"]) == ("f", str(len(content)))
    (alone,) = rows_of(score(content)[0])
    assert float(whole["logprob"]) == pytest.approx(float(alone["logprob"]), abs=1e-4)
    assert rows_of(score("--whole", stdin=content)[0])[0]["text"] == "standard input"
    in_rows, err = score("--whole", "--file", "f", "--rows", 3, "--warmup", 50)
    found = float(rows_of(in_rows)[0]["logprob"])
    assert found == pytest.approx(float(whole["logprob"]), abs=1e-4)
    assert "approximation" not in err + score("--whole", "--file", "f", "--rows", 1)[1]
    err = score("--whole", "--file", "f", "--rows", 3, "--warmup", 24)[1]
    assert "read in 3 pieces, each after 24 uncounted characters: an approximation" in err
    assert "costs less than 0.0001 bits per character, " in err
    assert (
        "read in 25 pieces, without warm-up"
        in score("--whole", "--file", "f", "--rows", 99, "--warmup", 0)[1]
    )


def test_context(score, tmp_path):
    (tmp_path / "c").write_text("the ", encoding="utf-8")

    def logprob(*arguments):
        return float(rows_of(score(*arguments)[0])[0]["logprob"])

    after = logprob("key", "--context", "the ")
    assert after == logprob("key", "--context", "@c")
    assert logprob("the key") == pytest.approx(logprob("the ") + after, abs=1e-5)


def test_the_default_of_eos_is_the_models_and_said(score, tiny_model, tmp_path):
    path = tmp_path / "documents.safetensors"
    save_model(
        path,
        SavedModel(
            config=tiny_model.config,
            vocabulary=tiny_model.vocabulary,
            weights=tiny_model.weights,
            text=TextConfig(documents="line"),
            training={},
        ),
    )
    out, err = score("ab", model=path)
    assert rows_of(out)[0]["n_scored"] == "3"
    assert "counted (--no-eos leaves them out)" in err
    out, err = score("ab")
    assert rows_of(out)[0]["n_scored"] == "2"
    assert "not counted (--eos)" in err
    out, err = score("ab", "--no-eos", model=path)
    assert rows_of(out)[0]["n_scored"] == "2"
    assert err == ""


def test_unknown_characters(score, charrnn, tiny_model_path):
    out, err = score("a€b?", "--on-unknown", "skip")
    assert (rows_of(out)[0]["n_chars"], rows_of(out)[0]["n_skipped"]) == ("2", "2")
    assert "2 unknown characters left out: '€' (U+20AC) at position 2, '?'" in err
    refused = charrnn(
        "score", "-m", tiny_model_path, "fine", "a€b", "--on-unknown", "error", "--eos"
    )
    refused.assert_one_error(1, "text 2 has characters the model has never seen: '€' (U+20AC)")


def test_an_error_about_a_text_says_which(charrnn, tiny_model_path, tmp_path):
    (tmp_path / "f").write_text("the key\nof\na€b\n", encoding="utf-8")
    (tmp_path / "pairs").write_text("good\tbad\nab\tab\nthe\tt€\n", encoding="utf-8")
    rules = ("--on-unknown", "error", "--format", "tsv")
    model = ("-m", tiny_model_path)
    several = [
        (("score", *model, "a€"), "the text has"),
        (("score", *model, "the", "a€"), "text 2 has"),
        (("score", *model, "--file", "f"), "line 3 of f has"),
        (("score", *model, "the", "--file", "f", "--html", "p.html"), "line 3 of f has"),
        (("score", *model, "--file", "f", "--whole"), "f has"),
        (("score", *model, "--file", "f", "--whole", "--rows", 2), "f has"),
        (("pairs", *model, "pairs"), "the bad text in line 3 of pairs has"),
        (("compare", tiny_model_path, tiny_model_path, "--file", "f"), "line 3 of f has"),
        (("compare", tiny_model_path, tiny_model_path, "a€"), "the text has"),
    ]
    for report in ("--per-char", "--per-word", "--adapt", "--sort", "--total"):
        several.append((("score", *model, "--file", "f", report), "line 3 of f has"))
    for command, named in several:
        charrnn(*command, *rules).assert_one_error(1, f"charrnn: {named} characters the model has")
    assert "at position 2 of line 3 of f" in charrnn("score", *model, "--file", "f").err
    (tmp_path / "pairs").write_text("ab\tt€\nthe€\tx€€\n", encoding="utf-8")
    assert (
        "4 unknown characters scored as UNK: '€' (U+20AC) first at position 2 of the bad text in "
        "line 1 of pairs (×4)\n"
    ) in charrnn("pairs", *model, "pairs").err


def test_sorting(score):
    texts = ("a long text is improbable", "a", "two")
    rows = rows_of(score(*texts, "--sort")[0])
    values = [float(row["logprob"]) for row in rows]
    assert values == sorted(values, reverse=True)
    rows = rows_of(score(*texts, "--sort", "--by", "per-char")[0])
    values = [float(row["bits_per_char"]) for row in rows]
    assert values == sorted(values)
    with_empty = rows_of(score("", *texts, "", "--sort")[0])
    assert [row["number"] for row in with_empty] == ["3", "4", "2", "1", "5"]
    assert [row["number"] for row in rows_of(score("", "a", "--sort", "--eos")[0])] == ["1", "2"]


def test_characters_and_words(score):
    (text,) = rows_of(score("the kéy", "x")[0])[:1]
    rows = rows_of(score("the kéy", "x", "--per-char", "--alternatives", 2)[0])
    assert "".join(row["character"] for row in rows) == "the kéyx"
    assert [row["text_number"] for row in rows] == ["1"] * 7 + ["2"]
    assert [name for name in rows[0] if name.startswith("alternative_")] == [
        "alternative_1", "alternative_1_logprob", "alternative_2", "alternative_2_logprob",
    ]  # fmt: skip
    total = sum(float(row["logprob"]) for row in rows[:7])
    assert total == pytest.approx(float(text["logprob"]), abs=1e-4)
    records = records_of(score("the kéy", "--per-char", "--format", "jsonl")[0])
    assert len(records[0]["alternatives"]) == 3
    for report in ("--per-char", "--per-word"):  # which do not sum up
        assert "total" not in score("the", "key", report)[1]
    words, err = score("the k?y", "--per-word", "--format", "jsonl")
    assert [word["word"] for word in records_of(words)] == ["the", " ", "k?y"]
    assert [word["position"] for word in records_of(words)] == [0, 3, 4]
    assert "U+003F) at position 6" in err


def test_pairs(pairs, tmp_path):
    (tmp_path / "p").write_text("ab\tab\tg1\nthe\tthe cat sat\tg2\n", encoding="utf-8")
    rows = rows_of(pairs("p").out)
    assert [row["group"] for row in rows] == ["g1", "g2"]
    assert [row["n_ties"] for row in rows] == ["1", "0"]
    assert "total: 1 of 2 pairs, 50.0% (95 % interval 9.5% to 90.5%)\n" in pairs("p").err
    (total,) = rows_of(pairs("p", "--total").out)
    assert (total["group"], total["n"], total["accuracy"]) == ("", "2", "0.5")
    assert pairs("-", stdin=(tmp_path / "p").read_text()).out == pairs("p").out
    table = pairs("p", "--format", "table", COLUMNS="80").out.splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["g1", "1", "0", "1"], ["g2", "1", "1", "0"], ["all", "2", "1", "1"],
    ]  # fmt: skip
    by_char = records_of(pairs("p", "--by", "per-char", "--format", "jsonl").out)
    assert [record["n"] for record in by_char] == [1, 1]
    pairs("-", stdin="a\tb\nc\n").assert_one_error(1, "line 2 of standard input has 1 column")
    pairs("-", stdin="").assert_one_error(1, "standard input has no pairs")


def test_the_probability_of_a_pair_is_in_all_or_per_character(pairs):
    """A short text is more probable than a long one, and no more so per character."""
    stdin = "the\tthe cat sat on\n" * 2 + "aa\taaaaaaaa\n"

    def right(*options):
        records = records_of(pairs("-", *options, "--format", "jsonl", stdin=stdin).out)
        return records[-1]["n_correct"]

    assert right() == 3
    assert right("--by", "per-char") < 3


@pytest.fixture
def narrow_path(tmp_path):
    vocabulary = Vocabulary("abcdefgh ")
    config = ModelConfig(vocab_size=len(vocabulary), cell="lstm", hidden_size=8)
    weights = {
        name: array.astype(np.float32) for name, array in reference.random_weights(config).items()
    }
    path = tmp_path / "narrow.safetensors"
    save_model(path, SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={}))
    return path


def test_comparing(charrnn, tiny_model_path, narrow_path):
    def compare(second, *arguments, stdin=""):
        given = ("compare", tiny_model_path, second, *arguments)
        return charrnn(*given, stdin=stdin.encode())

    lines = ("a bad egg", "a head", "bed", "a cab", "fed", "hag")
    (record,) = records_of(compare(narrow_path, *lines, "--format", "jsonl").out)
    assert record["difference_low"] <= record["difference"] <= record["difference_high"]
    assert (record["model"], record["model_compared"]) == (str(tiny_model_path), str(narrow_path))
    assert record["bits_per_byte_compared"] - record["bits_per_byte"] == record["difference"]
    whole = compare(tiny_model_path, "--whole", "--format", "jsonl", stdin="ab " * 2000)
    (same,) = records_of(whole.out)
    assert same["difference"] == 0
    assert same["n_resampled"] == 6
    table = compare(tiny_model_path, *lines, "--format", "table")
    assert table.out.endswith("\nthese texts cannot tell the two apart\n")
    assert "both models need the same number of bits per character" in table.out
    assert "(6 texts resampled)" in table.out
    assert "(6 blocks of 1,024 characters resampled)" in whole.err
    few = compare(narrow_path, *lines[:2], "", "--format", "table")
    assert (
        "\n2 texts are too few for a 95 % interval: it takes 6 that have something to score\n"
        in few.out
    )
    assert "is better" not in few.out
    assert "text 3 is empty: nothing to score\n" in few.err
    short = compare(narrow_path, "--whole", stdin="ab").err
    assert "the text is too short for a 95 % interval: it takes 6,144 characters" in short
    assert "bits are per byte because the alphabets differ" in short
    compare(narrow_path, "xyz", "zyx").assert_one_error(2, "6 of 6 characters are unknown")
    unknown = compare(narrow_path, "a bad egg and a hat", "fed").err
    assert f"{narrow_path}: 2 unknown characters scored as UNK: 'n' (U+006E) at position" in unknown


def test_adapting_leaves_the_model_alone(score, tiny_model_path):
    before = tiny_model_path.read_bytes()
    pattern = "a very new pattern\n" * 60
    out, _ = score("--adapt", "--whole", "--format", "jsonl", stdin=pattern)
    (one,) = records_of(out)
    assert one["bits_per_char_adapted"] < one["bits_per_char"]
    assert tiny_model_path.read_bytes() == before
    static = records_of(score("--whole", "--format", "jsonl", stdin=pattern)[0])[0]
    assert one["logprob"] == static["logprob"]


def test_a_corpus_is_counted_first(score, charrnn, tiny_model_path, tmp_path):
    text = "".join(np.random.default_rng(1).choice(list("abcdefg hi\n"), 600))
    (tmp_path / "corpus").write_text("nothing of the kind, but\n" * 9 + text)
    (tmp_path / "text").write_text(text)
    command = ("--adapt", "--whole", "--file", tmp_path / "text", "--format", "jsonl")
    plain = records_of(score(*command)[0])[0]
    out, err = score(*command, "--from", tmp_path / "corpus")
    (one,) = records_of(out)
    assert one["logprob_adapted"] > plain["logprob_adapted"] / 2
    assert one["logprob"] == plain["logprob"]
    digest = hashlib.sha256((tmp_path / "corpus").read_bytes()).hexdigest()
    assert one["signature"].endswith(f"|adapt:mixed.1|from:{digest[:12]}")
    assert f"signature {one['signature']}\n" in err
    assert "of what is scored stands word for word in the text of --from" in err

    def refused(*arguments):
        return charrnn("score", "-m", tiny_model_path, "--adapt", *arguments)

    (tmp_path / "empty").write_text("")
    same = refused("--file", tmp_path / "text", "--from", tmp_path / "text")
    same.assert_one_error(2, f"--from {tmp_path / 'text'} is the text that is scored")
    refused("a", "--from", tmp_path / "none").assert_one_error(1, "none")
    refused("a", "--from", tmp_path / "empty").assert_one_error(1, "there is no text in")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    refused("a", "--from", tmp_path / "latin").assert_one_error(1, "is not UTF-8")


def test_the_signature_names_the_model_and_the_rules(score, charrnn, tiny_model_path, tmp_path):
    """Not the file: a copy has the same one, other weights have another."""

    def signature(path, *options):
        out = charrnn("score", "-m", path, "ab", *options, "--format", "jsonl").out
        return dict(pair.split(":") for pair in records_of(out)[0]["signature"].split("|"))

    first = signature(tiny_model_path)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(tiny_model_path.read_bytes())
    assert signature(copy) == first
    saved = load_model(copy)
    bias = {"output.bias": saved.weights["output.bias"] + np.float32(0.01)}
    save_model(copy, dataclasses.replace(saved, weights={**saved.weights, **bias}))
    assert signature(copy)["model"] != first["model"]
    for options, changed in (
        (("--eos",), {"eos": "yes"}),
        (("--on-unknown", "skip"), {"unknown": "skip"}),
        (("--adapt",), {"adapt": "mixed.1"}),
    ):
        assert signature(tiny_model_path, *options) == {**first, **changed}
    assert signature(tiny_model_path, "--context", "a")["context"] != first["context"]


def test_the_page(score, charrnn, tiny_model_path, tmp_path):
    out, err = score("the <key>", "other", "--html", "page.html")
    assert [row["text"] for row in rows_of(out)] == ["the <key>", "other"]
    made = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert made.startswith("<!DOCTYPE html>")
    assert "page page.html" in err
    big = ("--whole", "--html", "big.html")
    result = charrnn("score", "-m", tiny_model_path, *big, stdin=b"ab" * 100_001)
    assert result.code == 2
    assert "charrnn: --html is for at most 200,000 characters" in result.err
    assert not (tmp_path / "big.html").exists()


@pytest.mark.parametrize("report", [(), ("--per-char",), ("--per-word",), ("--adapt",)])
def test_tables(score, report):
    """Asked for in a pipe: plain text, the text itself in it, nothing a terminal would obey."""
    out, _ = score("the\x1b[2J key", "b[old]", "--format", "table", *report, COLUMNS="80")
    assert "\x1b" not in out
    assert "the␛[2J key" in out
    assert "b[old]" in out


def test_a_narrow_terminal_gets_every_digit(score):
    out, _ = score("the key", "--eos", terminals=("stdout",), COLUMNS="40", NO_COLOR="1")
    assert "…" not in out
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert max(map(len, shown.splitlines())) <= 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--format", "xml"), "'--format': 'xml' is not one of 'table', 'tsv', 'jsonl'"),
        (("a", "--sort", "--by", "luck"), "'--by': 'luck' is not one of 'total', 'per-char'"),
        (("a", "--by", "total"), "--by needs --sort"),
        (("a", "--alternatives", 5), "--alternatives needs --per-char or --html"),
        (("a", "--per-word", "--alternatives", 5), "--alternatives needs --per-char or --html"),
        (
            ("a", "--per-char", "--alternatives", "-1"),
            "--alternatives must be from 0 to 1,000, got -1",
        ),
        (("a", "--per-char", "--per-word"), "--per-char and --per-word are different reports"),
        (("--adapt", "--rows", 2), "--adapt and --rows are different reports"),
        (("a", "--whole"), "leave TEXT out"),
        (("--whole", "--sort"), "--sort ranks several texts"),
        (("a", "--rows", "4"), "--rows needs --whole"),
        (("--whole", "--rows", "0"), "--rows must be at least 1, got 0"),
        (("--whole", "--rows", "2", "--warmup", "-1"), "--warmup must be at least 0, got -1"),
        (("a", "--warmup", "4"), "--warmup needs --rows"),
        (("--whole", "--rows", 10**30), "--rows must be at most 4,096, got 1000000"),
        (("a", "--html", "-"), "--html writes a file beside the report"),
        (("a", "--html", ""), "'--html': it is empty"),
        (("--whole", "--rows", "2", "--context", "a"), "excludes --html and --context"),
        (("--whole", "--rows", "2", "--html", "a"), "excludes --html and --context"),
        (("a", "--adapt", "--html", "x"), "--html shows the model as it is"),
        (("a", "--from", "x"), "--from needs --adapt"),
        (("a", "--adapt", "--from", "-"), "--from reads a file or a directory"),
        (("a", "--per-char", "--alternatives", 10**7), "must be from 0 to 1,000, got 10000000"),
        (("a", "--encoding", "klingon"), "--encoding 'klingon' is not known"),
        (("a\\q", "-e"), "\\uXXXX and \\UXXXXXXXX, and not \\q"),
        (("a\\", "-e"), "write \\\\ for a backslash"),
        (("a\\U7fffffff", "-e"), "and not \\U7fffffff"),
        ((), "nothing to score"),
        (("--file", os.devnull), "null is empty: it has no lines to score"),
    ],
)
def test_wrong_usage(charrnn, tmp_path, arguments, message):
    """It is refused before a model is looked for."""
    result = charrnn("score", "-m", "missing", *arguments)
    result.assert_one_error(2, message)
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_bad_files(charrnn, tiny_model_path, tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    model = ("-m", tiny_model_path)
    for command in (
        ("score", *model, "--file", "none"),
        ("score", *model, "a", "--context", "@none"),
        ("pairs", *model, "none"),
    ):
        charrnn(*command).assert_one_error(1, "there is no file none")
    charrnn("score", *model, "--file", "latin").assert_one_error(1, "latin is not UTF-8")
    missing = charrnn("compare", tiny_model_path, "none", "a")
    missing.assert_one_error(1, "there is no model at none", "texts come after the two models")


def test_nuls_are_characters(score):
    out, err = score(stdin="a\0b\n")
    heading, row = out.splitlines()  # by hand: before Python 3.11, csv reads none
    assert dict(zip(heading.split("\t"), row.split("\t"), strict=True))["text"] == "a\0b"
    assert "a null character (U+0000) at position 2" in err


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "MAX_LINE", 100)
    monkeypatch.setattr(sources, "PIECE_BYTES", 16)
    path = tmp_path / "f"
    path.write_text("short\n" * 30 + "x" * 90 + "\n" + "y" * 1000, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"line 32 of .* more than 100 characters"):
        list(sources.lines_of(path))
    path.write_text("short\n" * 30 + "x" * 90 + "\n", encoding="utf-8")
    assert list(sources.lines_of(path)) == ["short"] * 30 + ["x" * 90]


# what is typed


def test_a_text_that_begins_with_a_dash_gets_a_hint(charrnn, score):
    refused = charrnn("score", "-5 degrees")
    refused.assert_one_error(2, "no such option: -5: a text that begins with - comes after --")
    assert rows_of(score("--", "-5 degrees")[0])[0]["text"] == "-5 degrees"


def test_a_context_that_begins_with_an_at_sign(charrnn, score, tmp_path):
    refused = charrnn("score", "a", "--context", "@anna")
    refused.assert_one_error(
        1, "there is no file anna", "a text that begins with @ is written @@anna"
    )
    assert "'@'" not in score("a", "--context", "@@", "--on-unknown", "skip")[1]
    (tmp_path / "anna").write_text("the ", encoding="utf-8")
    assert score("a", "--context", "@anna")[0] == score("a", "--context", "the ")[0]


def test_standard_input_is_read_once(charrnn, tiny_model_path):
    for command in (
        ("score", "-m", tiny_model_path, "--file", "-"),
        ("score", "-m", tiny_model_path, "--whole"),
        ("compare", tiny_model_path, tiny_model_path),
        ("pairs", "-m", tiny_model_path, "-"),
    ):
        refused = charrnn(*command, "--context", "@-", stdin=b"a\tb\nc\td\n")
        refused.assert_one_error(2, "both come from standard input: name a file")


def test_line_ends_of_arguments_are_those_of_files(score):
    assert score("a\r\nb\rc")[0] == score("a\nb\nc")[0]
    assert score("x", "--context", "a\r\n")[0] == score("x", "--context", "a\n")[0]


def test_escapes_are_read_when_they_are_asked_for(score):
    assert rows_of(score("a\\nb")[0])[0]["text"] == "a\\nb"
    assert rows_of(score("a\\nb\\t\\\\n\\u00e9\\U0001f600", "-e")[0])[0]["text"] == "a\nb\t\\né😀"
    assert score("x", "--context", "a\\n", "-e")[0] == score("x", "--context", "a\n")[0]
    assert "; with --escapes, \\n is a line end" in score("a\\nb")[1]


def test_files_may_have_any_encoding(score, charrnn, tmp_path, tiny_model_path):
    (tmp_path / "f").write_bytes("thé key\n".encode("latin-1"))
    for command in (("score", "--file"), ("sample", "-n", 3, "--prompt-file")):
        refused = charrnn(*command, "f", "-m", tiny_model_path)
        assert "name its encoding with --encoding" in refused.err
    assert rows_of(score("--file", "f", "--encoding", "latin-1")[0])[0]["text"] == "thé key"
    assert rows_of(score("--file", "f", "--errors", "replace")[0])[0]["text"] == "th\ufffd key"
    context = ("a", "--context", "@f", "--encoding", "latin-1")
    assert score(*context)[0] == score("a", "--context", "thé key\n")[0]
    (tmp_path / "p").write_bytes("é\ta\n".encode("cp1252"))
    given = ("-m", tiny_model_path, "--encoding", "cp1252")
    assert charrnn("pairs", "p", *given).code == 0
    pair = (tiny_model_path, tiny_model_path)
    assert charrnn("compare", *pair, "--file", "f", "--encoding", "latin-1").code == 0
    prompt = charrnn("sample", "-n", 3, "--prompt-file", "f", "--encoding", "latin-1", *given[:2])
    assert prompt.out.startswith("thé key")


@pytest.mark.parametrize(("text", "form"), [("cafe\u0301", "NFC"), ("\ufb01n", "NFKC")])
def test_another_unicode_form_gets_a_hint(score, charrnn, tiny_model_path, text, form):
    hint = f"in the Unicode form {form}: bring the text into it, or train with --normalize {form}"
    assert hint.lower() in score(text)[1].lower()
    refused = charrnn("sample", "-m", tiny_model_path, "-p", text)
    refused.assert_one_error(1, f"in the Unicode form {form}: bring the text into it")
    assert "Unicode form" not in score("a☃b")[1]


def test_the_name_of_a_file_or_a_model_as_a_text_gets_a_hint(score, tmp_path, tiny_model_path):
    (tmp_path / "my speech.txt").write_text("ab")
    err = score("my speech.txt")[1]
    assert "is scored as a text; a file by --file 'my speech.txt'" in err
    assert "is scored as a text; a model is named with -m" in score(str(tiny_model_path))[1]
    assert "scored as a text" not in score("no file of this name")[1]
    assert "builtin is scored as a text; a model is named with -m" in score("builtin", "a")[1]
    assert "scored as a text" not in score("builtin")[1]
    hint = "the content of that file is --context '@my speech.txt'"
    assert hint in score("a", "--context", "my speech.txt")[1]
    assert hint not in score("a", "--context", "@my speech.txt")[1]


# files


def test_a_page_replaces_nothing_but_a_page(score, charrnn, tmp_path, tiny_model_path):
    (tmp_path / "c.txt").write_text("the ")
    (tmp_path / "novel").write_text("years of work")
    (tmp_path / "empty").write_text("")
    before = ("a", "--context", "@c.txt", "--html")
    for name in ("c.txt", "novel"):
        refused = charrnn("score", "-m", tiny_model_path, *before, name)
        refused.assert_one_error(2, f"--html would replace {name}")
    assert (tmp_path / "novel").read_text() == "years of work"
    for name in ("empty", "page.html", "page.html"):
        score("ab", "--html", name)
        assert "<title>charrnn score</title>" in (tmp_path / name).read_text("utf-8")
    made = (tmp_path / "page.html").read_bytes()
    refused = charrnn("score", "-m", tiny_model_path, "--file", "page.html", "--html", "page.html")
    refused.assert_one_error(2, "--html would replace page.html, which is read")
    assert (tmp_path / "page.html").read_bytes() == made


@posix
def test_no_output_is_what_is_read(score, tmp_path, tiny_model_path):
    """Whatever the name: redirections, links, a context; nor where the report goes."""
    score("ab", "--html", "page.html")
    page = tmp_path / "page.html"
    made = page.read_bytes()
    (tmp_path / "soft").symlink_to("page.html")
    (tmp_path / "hard").hardlink_to(page)
    (tmp_path / "pairs").write_text("ab\tba\n")
    run = f"{sys.executable} -m charrnn"
    model = shlex.quote(str(tiny_model_path))
    refused = [
        f"{run} score -m {model} --whole --html page.html < page.html",
        f"{run} score -m {model} --whole --html soft < hard",
        f"{run} score -m {model} --html hard --file soft",
        f"{run} score -m {model} ab --html soft --context @page.html",
        f"{run} score -m {model} ab --html page.html >> page.html",
        f"{run} score -m {model} --file page.html >> soft",
        f"{run} score -m {model} < page.html >> soft",
        f"{run} score -m {model} ab --context @hard >> page.html",
        f"{run} compare {model} {model} --file page.html >> hard",
        f"{run} pairs -m {model} pairs >> pairs",
    ]
    for command in refused:
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, (command, done.stderr)
        assert "would" in done.stderr
        assert page.read_bytes() == made
    assert (tmp_path / "pairs").read_text() == "ab\tba\n"


def test_a_page_shows_no_path(score, charrnn, tmp_path, tiny_model_path):
    run = tmp_path / "secret" / "my-<run>"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(tiny_model_path.read_bytes())
    for model, name in ((run, "my-&lt;run&gt;"), (tiny_model_path, "tiny")):
        score("ab", "--html", "page.html", model=model)
        made = (tmp_path / "page.html").read_text("utf-8")
        assert f'<p class="model">{name}</p>' in made
        assert "secret" not in made
        assert tmp_path.name not in made


def test_a_comparison_does_not_depend_on_the_order_of_the_models(charrnn, tiny_model, tmp_path):
    """One model has learned where texts end, the other has not: ends do not count."""
    lines = dataclasses.replace(tiny_model, text=TextConfig(documents="line"))
    other = {name: 0.8 * array for name, array in tiny_model.weights.items()}
    save_model(tmp_path / "text.safetensors", tiny_model)
    save_model(tmp_path / "lines.safetensors", dataclasses.replace(lines, weights=other))
    found = []
    for models in (
        ("text.safetensors", "lines.safetensors"),
        ("lines.safetensors", "text.safetensors"),
    ):
        result = charrnn("compare", *models, "abc", "de", "--format", "jsonl")
        assert " on one long text" in result.err
        assert " on documents (line)" in result.err
        assert result.err.count("ends of texts are not counted (--eos)") == 1
        found.append(json.loads(result.out)["difference"])
    assert found[0] == pytest.approx(-found[1])
    assert abs(found[0]) > 1e-3


def shown_at(width, result):
    """The lines of a table on a terminal of some width, without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result).splitlines()
    assert max(map(len, lines)) <= width
    return lines


@pytest.mark.parametrize("width", [40, 80, 120])
def test_numbers_are_never_broken_however_narrow_the_terminal(
    charrnn, tiny_model_path, tmp_path, width
):
    (tmp_path / "p").write_text("".join(f"ab\tabc\tsome longer name {k}\n" for k in range(3)))
    texts = ("a text of some length " * 200, "the key")
    wide = {"terminals": ("stdout",), "COLUMNS": str(width), "NO_COLOR": "1"}
    model = ("-m", tiny_model_path)
    score = charrnn("score", *model, *texts, **wide)
    (row,) = (line.split() for line in shown_at(width, score.out) if line.startswith("total"))
    full = charrnn("score", *model, *texts, "--format", "table").out.splitlines()
    (total,) = (line.split() for line in full if line.startswith("total"))
    assert len(row) >= 3
    assert set(row) <= set(total)
    assert ("no room for perplexity" in score.err) == (width == 40)
    for command in (("pairs", "p"), ("score", *texts, "--adapt")):
        for line in shown_at(width, charrnn(*command, *model, **wide).out):
            assert not re.search(r"\d…", line), "a number is cut"


def test_two_models_that_lack_the_same_characters_say_so_once(charrnn, tiny_model_path):
    err = charrnn("compare", tiny_model_path, tiny_model_path, "a long text with €").err
    assert err.count("U+20AC") == 1
    assert "both models: 1 unknown character scored as UNK: '€'" in err


def test_the_sign_of_a_comparison_is_said_in_words(charrnn, tiny_model_path, narrow_path):
    for form in ("tsv", "table"):
        for pair in ((tiny_model_path, narrow_path), (narrow_path, tiny_model_path)):
            result = charrnn("compare", *pair, "a bad egg", "--format", form)
            said = result.err if form == "tsv" else result.out
            (record,) = records_of(charrnn("compare", *pair, "a bad egg", "--format", "jsonl").out)
            better, worse = pair if record["difference"] > 0 else pair[::-1]
            figure = f"{abs(record['difference']):.4f} bits per byte"
            assert f"{better} needs {figure} less than {worse}" in said


@pytest.mark.parametrize("command", ["compare", "merge", "export"])
def test_a_paragraph_of_the_help_is_broken_only_at_the_margin(charrnn, command):
    """At 200 columns, the description has each paragraph in one line."""
    shown = charrnn(command, "--help", COLUMNS="200").out
    lines = [line.strip() for line in shown.partition("╭")[0].splitlines()]
    assert not [pair for pair in itertools.pairwise(lines) if all(pair)]
