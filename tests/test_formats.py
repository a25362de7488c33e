"""What programs read: all of it stands in docs/formats.md, and TSV and JSON lines say the same."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
from conftest import TINY_RUN
from hypothesis import given
from hypothesis import strategies as st
from texts import english

from charrnn.display.records import Records

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text("utf-8")


def documented(title):
    """Fields of the tables under a heading of the page, in their order."""
    _, found, section = PAGE.partition(f"\n## {title}\n")
    assert found, title
    rows = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    return [field for row in rows for field in re.findall(r"`(\w+)`", row)]


def rows_of(out):
    """What a TSV reader without further settings makes of it, such as that of pandas."""
    return list(csv.DictReader(io.StringIO(out, newline=""), delimiter="\t"))


def records_of(out):
    return [json.loads(line) for line in out.split("\n")[:-1]]


REPORTS = {
    "score": [
        ("score", "a", "the key", "--sort"),
        ("score", "the key", 'a "quoted"\ttext\n', "", "é?", " x "),
        ("score", "a", "--total"),
    ],
    "score --per-char": [("score", "the <key>", "a\t", "--per-char", "--eos")],
    "score --per-word": [("score", "the key", "a\n", "--per-word", "--eos")],
    "pairs": [("pairs", "pairs.tsv"), ("pairs", "pairs.tsv", "--total")],
}


@pytest.mark.parametrize(
    ("title", "command"), [(title, one) for title, several in REPORTS.items() for one in several]
)
def test_the_fields_of_a_report(charrnn, tmp_path, tiny_model_path, title, command):
    (tmp_path / "pairs.tsv").write_text("the\tkey\tg\nab\tabc\th\nb\tb\th\n")
    expected = documented(title)
    if title == "score":
        expected = [name for name in expected if not name.endswith("_adapted")]
    tsv, jsonl = (
        charrnn(*command, "-m", tiny_model_path, "--format", form) for form in ("tsv", "jsonl")
    )
    assert (tsv.code, jsonl.code) == (0, 0), tsv.err
    records, rows = records_of(jsonl.out), rows_of(tsv.out)
    assert len(records) == len(rows)
    assert "total" not in tsv.out
    for record, row in zip(records, rows, strict=True):
        assert list(record) == expected
        for k, one in enumerate(record.pop("alternatives", []), 1):
            record[f"alternative_{k}"] = one["character"]
            record[f"alternative_{k}_logprob"] = one["logprob"]
        assert list(record) == list(row)
        for field, value in record.items():
            if value is None:
                assert row[field] == ""
            elif isinstance(value, str):
                assert row[field] == value
            else:
                assert float(row[field]) == value


def test_the_fields_of_adapting(charrnn, tiny_model_path):
    command = ("score", "-m", tiny_model_path, "ab", "abc", "--adapt", "--format", "jsonl")
    several, (total,) = (records_of(charrnn(*command, *more).out) for more in ((), ("--total",)))
    assert list(total) == list(several[0]) == documented("score")
    assert total["n_chars"] == 5
    assert total["logprob_adapted"] == pytest.approx(sum(r["logprob_adapted"] for r in several))


def test_the_fields_of_a_comparison(charrnn, tiny_model_path):
    given = ("compare", tiny_model_path, tiny_model_path, "ab", "--format")
    (record,) = records_of(charrnn(*given, "jsonl").out)
    (row,) = rows_of(charrnn(*given, "tsv").out)
    section = PAGE.partition("\n## compare\n")[2].partition("\n## ")[0].replace("UNIT", "char")
    assert list(record) == list(row) == re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    for field in ("difference_low", "difference_high", "n_resampled"):
        assert record[field] is None
        assert row[field] == ""


def test_the_fields_of_samples(charrnn, tmp_path, tiny_model_path):
    (tmp_path / "text").write_text("the key\n")
    given = ("sample", "-m", tiny_model_path, "--num", 2, "-n", 9, "--format", "jsonl")
    result = charrnn(*given, "--logprobs", "--check-novelty", "text")
    expected = documented("sample --format jsonl")
    assert all(list(record) == expected for record in records_of(result.out))


def test_the_fields_of_a_run(charrnn, text, tmp_path):
    assert charrnn("train", text, "--name", "one", *TINY_RUN).code == 0
    tsv, jsonl, table = (charrnn("list", "--format", form) for form in ("tsv", "jsonl", "table"))
    (row,), (record,) = rows_of(tsv.out), records_of(jsonl.out)
    assert list(row) == list(record) == documented("list")
    assert (record["path"], record["text"], record["state"]) == ("runs/one", "prose", "finished")
    assert float(row["val_loss_nats"]) == record["val_loss_nats"]
    assert "runs/one" in table.out
    run = tmp_path / "runs" / "one"
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == set(documented("metrics.jsonl"))
    assert list(json.loads((run / "run.json").read_text())) == documented("run.json")


def test_nothing_to_list(charrnn):
    result = charrnn("list")
    assert (result.code, result.out) == (0, "")
    assert "there are no runs under runs" in result.err


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_a_text_comes_back_from_its_cell(texts):
    stream = io.StringIO(newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        records = Records(as_json=False)
        for text in texts:
            records.write({"text": text, "n": 1})
    assert [row["text"] for row in rows_of(stream.getvalue())] == texts


def test_probabilities_where_a_float_has_them(charrnn, tiny_model_path):
    given = ("score", "-m", tiny_model_path, "ab", "a" * 2000, "--format", "jsonl")
    short, long = records_of(charrnn(*given).out)
    assert short["probability"] == pytest.approx(math.exp(short["logprob"]))
    assert long["probability"] is None


def test_the_total_of_several_texts_is_said_or_asked_for(charrnn, tiny_model_path):
    given = ("score", "-m", tiny_model_path, "--format", "jsonl", "ab", "abc?")
    result = charrnn(*given)
    one, other = records_of(result.out)
    (total,) = records_of(charrnn(*given, "--total").out)
    assert total["logprob"] == pytest.approx(one["logprob"] + other["logprob"])
    assert "total: 2 texts, 6 characters, " in result.err
    assert " bits per character\n" in result.err
    ended = charrnn(*given, "--eos").err
    assert "total: 2 texts, 6 characters and 2 ends, " in ended
    assert " bits per character or end\n" in ended
    assert "total:" not in charrnn(*given[:-1]).err
    assert "total:" not in charrnn(*given, "--total").err
    refused = charrnn(*given, "--total", "--per-char")
    refused.assert_one_error(2, "--per-char and --total are different reports")


def test_a_terminal_gets_no_control_characters_from_records(charrnn, tiny_model_path):
    text = "a\x1b[2Jb\x9b\u202ec"
    for form in ("tsv", "jsonl"):
        given = ("score", "-m", tiny_model_path, text, "--format", form)
        shown = charrnn(*given, terminals=("stdout",)).out
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert rows_of(charrnn(*given[:-1], "tsv").out)[0]["text"] == text


@pytest.mark.parametrize("report", ["--per-char", "--per-word"])
def test_records_can_be_joined_by_the_number_of_the_text(charrnn, tiny_model_path, report):
    texts = ("a long text", "", "the key", "the key", "a")
    given = ("score", "-m", tiny_model_path, *texts, "--format", "jsonl")
    ranked = records_of(charrnn(*given, "--sort").out)
    assert [one["text"] for one in ranked] == [texts[one["number"] - 1] for one in ranked]
    assert sorted(one["number"] for one in ranked) == [1, 2, 3, 4, 5]
    parts = records_of(charrnn(*given, report).out)
    for one in ranked:
        mine = [part["logprob"] for part in parts if part["text_number"] == one["number"]]
        assert math.fsum(mine) == pytest.approx(one["logprob"], abs=1e-4)
    (total,) = records_of(charrnn(*given, "--total").out)
    assert total["number"] is None
    adapted = records_of(charrnn(*given, "--adapt").out)
    assert [one["number"] for one in adapted] == [1, 2, 3, 4, 5]


def test_how_many_digits_hold(charrnn):
    """As the page says of two ways to read the same text."""
    texts = [english(20_000)[k : k + 400] for k in range(0, 20_000, 400)]
    given = ("score", "-m", "builtin", "--format", "jsonl")
    together = records_of(charrnn(*given, *texts).out)
    for text, one in list(zip(texts, together, strict=True))[::10]:
        (alone,) = records_of(charrnn(*given, text).out)
        parts = records_of(charrnn(*given, text, "--per-char").out)
        assert alone["logprob"] == pytest.approx(one["logprob"], abs=1e-4, rel=0)
        assert math.fsum(p["logprob"] for p in parts) == pytest.approx(
            one["logprob"], abs=1e-4, rel=0
        )
