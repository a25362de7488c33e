"""`charrnn score`, `pairs` and `compare`: reports, what they are made from, exit codes."""

from __future__ import annotations

import csv
import json
import math
import os

import numpy as np
import pytest
import reference

from charrnn.config import ModelConfig, TextConfig
from charrnn.corpus import sources
from charrnn.errors import CorpusError
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import Vocabulary

FIELDS = [
    "text", "n_chars", "n_bytes", "n_scored", "n_unknown", "logprob", "log2prob", "bits_per_char",
    "bits_per_byte", "perplexity_per_char",
]  # fmt: skip


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
    heading, *rows = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(heading, row, strict=True)) for row in rows]


def records_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_tsv_and_json_say_the_same(score):
    texts = ("the key", "tab\tback\\slash\nline", "", "#total", "zero\r\x0b")
    out, err = score(*texts, "--eos")
    rows, records = rows_of(out), records_of(score(*texts, "--eos", "--format", "jsonl")[0])
    assert list(rows[0])[: len(FIELDS)] == list(records[0])[: len(FIELDS)] == FIELDS
    assert [record["text"] for record in records] == [*texts, ""]
    assert records[-1]["record"] == "total"
    assert rows[-1]["text"] == "#total"
    assert rows[3]["text"] == "\\u0023total"
    assert [json.loads(f'"{row["text"]}"') for row in rows[:-1]] == list(texts)
    for row, record in zip(rows, records, strict=True):
        for field in FIELDS[1:]:
            value = record[field]
            if value is None:  # JSON has no NaN: an empty text has no bytes to divide by
                assert (row["text"], field) == ("", "bits_per_byte")
                assert math.isnan(float(row[field]))
            else:
                assert float(row[field]) == value
    assert "an empty text: only its end to score" in err
    total = records[-1]
    assert total["logprob"] == pytest.approx(sum(r["logprob"] for r in records[:-1]))
    assert total["logprob_known"] > total["logprob"]
    assert total["n_unknown"] == sum(r["n_unknown"] for r in records[:-1]) > 0
    # any TSV reader will do
    found = list(csv.reader(out.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {len(row) for row in found} == {len(found[0])}


@pytest.mark.skipif(os.name == "nt", reason="bytes in arguments are a POSIX matter")
def test_an_argument_that_is_not_utf8(score):
    out, err = score("a\udce9", "--format", "jsonl")
    assert records_of(out)[0]["text"] == "a\udce9"
    assert "U+DCE9" in err


def test_files_stdin_and_whole(score, tmp_path):
    content = "the key\n\n some bread \nend"
    (tmp_path / "f").write_text(content, encoding="utf-8")
    from_file, err = score("--file", "f")
    assert "an empty text: nothing to score" in err
    assert score(stdin=content)[0] == score("--file", "-", stdin=content)[0] == from_file
    assert [row["text"] for row in rows_of(from_file)[:-1]] == content.split("\n")
    both = rows_of(score("first", "--file", "f")[0])
    assert [row["text"] for row in both[:2]] == ["first", "the key"]
    whole, total = rows_of(score("--whole", "--file", "f")[0])
    assert (whole["text"], whole["n_chars"]) == ("f", str(len(content)))
    (alone, _) = rows_of(score(content)[0])
    assert float(whole["logprob"]) == pytest.approx(float(alone["logprob"]), abs=1e-4)
    assert rows_of(score("--whole", stdin=content)[0])[0]["text"] == "standard input"
    in_rows, err = score("--whole", "--file", "f", "--rows", 3, "--warmup", 50)
    found = float(rows_of(in_rows)[0]["logprob"])
    assert found == pytest.approx(float(total["logprob"]), abs=1e-4)
    assert "read in 3 pieces, each after 50 uncounted characters: an approximation" in err


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
    assert "counted (--eos)" in err
    out, err = score("ab")
    assert rows_of(out)[0]["n_scored"] == "2"
    assert "not counted (--no-eos)" in err
    out, err = score("ab", "--no-eos", model=path)
    assert rows_of(out)[0]["n_scored"] == "2"
    assert err == ""


def test_unknown_characters(score, charrnn, tiny_model_path):
    out, err = score("a€b?", "--on-unknown", "skip")
    assert (rows_of(out)[0]["n_chars"], rows_of(out)[0]["n_skipped"]) == ("2", "2")
    assert "2 unknown characters left out: '€' (U+20AC) at position 1" in err
    refused = charrnn(
        "score", "-m", tiny_model_path, "fine", "a€b", "--on-unknown", "error", "--eos"
    )
    refused.assert_one_error(1, "text 2 has characters the model has never seen: '€' (U+20AC)")


def test_sorting(score):
    texts = ("a long text is improbable", "a", "two")
    rows = rows_of(score(*texts, "--sort")[0])
    values = [float(row["logprob"]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True)
    rows = rows_of(score(*texts, "--sort", "--by", "per-char")[0])
    values = [float(row["bits_per_char"]) for row in rows[:-1]]
    assert values == sorted(values)


def test_characters_and_words(score):
    (text,) = rows_of(score("the kéy", "x")[0])[:1]
    rows = rows_of(score("the kéy", "x", "--per-char", "--alternatives", 2)[0])
    assert "".join(row["character"] for row in rows) == "the kéyx"
    assert [row["text_number"] for row in rows] == ["1"] * 7 + ["2"]
    assert "alternative_2_logprob" in rows[0]
    total = sum(float(row["logprob"]) for row in rows[:7])
    assert total == pytest.approx(float(text["logprob"]), abs=1e-4)
    records = records_of(score("the kéy", "--per-char", "--format", "jsonl")[0])
    assert len(records[0]["alternatives"]) == 3
    words, err = score("the k?y", "--per-word", "--format", "jsonl")
    assert [word["word"] for word in records_of(words)] == ["the", " ", "k?y"]
    assert [word["position"] for word in records_of(words)] == [0, 3, 4]
    assert "U+003F) at position 5" in err


def test_pairs(pairs, tmp_path):
    (tmp_path / "p").write_text("ab\tab\tg1\nthe\tthe cat sat\tg2\n", encoding="utf-8")
    rows = rows_of(pairs("p").out)
    assert [row["group"] for row in rows] == ["g1", "g2", "#total"]
    assert [row["n_ties"] for row in rows] == ["1", "0", "1"]
    assert rows[-1]["accuracy"] == "0.5"
    assert pairs("-", stdin=(tmp_path / "p").read_text()).out == pairs("p").out
    table = pairs("p", "--format", "table", COLUMNS="80").out.splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["g1", "1", "0", "1"], ["g2", "1", "1", "0"], ["all", "2", "1", "1"],
    ]  # fmt: skip
    by_char = records_of(pairs("p", "--by", "per-char", "--format", "jsonl").out)
    assert [record["n"] for record in by_char] == [1, 1, 2]
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

    (record,) = records_of(compare(narrow_path, "a bad egg", "a head", "--format", "jsonl").out)
    assert record["difference_low"] <= record["difference"] <= record["difference_high"]
    assert (record["model"], record["model_compared"]) == (str(tiny_model_path), str(narrow_path))
    assert record["bits_per_byte_compared"] - record["bits_per_byte"] == record["difference"]
    whole = compare(tiny_model_path, "--whole", "--format", "jsonl", stdin="ab " * 900)
    (same,) = records_of(whole.out)
    assert same["difference"] == 0
    assert same["n_resampled"] == 3
    table = compare(tiny_model_path, "a bad egg", "a head", "--format", "table")
    assert table.out.endswith("This text cannot tell the two models apart.\n")
    compare(narrow_path, "xyz", "zyx").assert_one_error(2, "6 of 6 characters are unknown")
    unknown = compare(narrow_path, "a bad egg and a hat", "fed").err
    assert f"{narrow_path}: 2 unknown characters scored as UNK: 'n' (U+006E) at position" in unknown


def test_adapting_leaves_the_model_alone(score, tiny_model_path):
    before = tiny_model_path.read_bytes()
    pattern = "a very new pattern\n" * 60
    out, _ = score("--adapt", "--whole", "--format", "jsonl", stdin=pattern)
    one, _ = records_of(out)
    assert one["bits_per_char_adapted"] < one["bits_per_char"]
    assert tiny_model_path.read_bytes() == before
    static = records_of(score("--whole", "--format", "jsonl", stdin=pattern)[0])[0]
    assert one["logprob"] == static["logprob"]


def test_the_page(score, charrnn, tiny_model_path, tmp_path):
    out, err = score("the <key>", "other", "--html", "page.html")
    assert [row["text"] for row in rows_of(out)] == ["the <key>", "other", "#total"]
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--format", "xml"), "'--format': 'xml' is not one of 'table', 'tsv', 'jsonl'"),
        (("a", "--sort", "--by", "luck"), "'--by': 'luck' is not one of 'total', 'per-char'"),
        (("a", "--by", "total"), "--by needs --sort"),
        (("a", "--per-char", "--alternatives", "-1"), "--alternatives must be at least 0, got -1"),
        (("a", "--per-char", "--per-word"), "--per-char and --per-word are different reports"),
        (("--adapt", "--rows", 2), "--adapt and --rows are different reports"),
        (("a", "--whole"), "leave TEXT out"),
        (("--whole", "--sort"), "--sort ranks several texts"),
        (("a", "--rows", "4"), "--rows needs --whole"),
        (("--whole", "--rows", "0"), "--rows must be at least 1, got 0"),
        (("--whole", "--rows", "2", "--warmup", "-1"), "--warmup must be at least 0, got -1"),
        (("a", "--warmup", "4"), "--warmup needs --rows"),
        (("--whole", "--rows", "2", "--context", "a"), "excludes --html and --context"),
        (("--whole", "--rows", "2", "--html", "a"), "excludes --html and --context"),
        (("a", "--adapt", "--html", "x"), "--html shows the model as it is"),
        ((), "nothing to score"),
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
        charrnn(*command).assert_one_error(1, "cannot read none: no such file or directory")
    charrnn("score", *model, "--file", "latin").assert_one_error(1, "latin is not UTF-8")
    missing = charrnn("compare", tiny_model_path, "none", "a")
    missing.assert_one_error(1, "there is no model at none")


def test_nuls_are_characters(score):
    out, err = score(stdin="a\0b\n")
    assert rows_of(out)[0]["text"] == "a\\u0000b"
    assert "a character (U+0000) at position 1" in err


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "MAX_LINE", 100)
    monkeypatch.setattr(sources, "PIECE_BYTES", 16)
    path = tmp_path / "f"
    path.write_text("short\n" * 30 + "x" * 90 + "\n" + "y" * 1000, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"line 32 of .* more than 100 characters"):
        list(sources.lines_of(path))
    path.write_text("short\n" * 30 + "x" * 90 + "\n", encoding="utf-8")
    assert list(sources.lines_of(path)) == ["short"] * 30 + ["x" * 90]
