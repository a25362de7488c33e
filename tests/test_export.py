"""Models written for others: the page's content, arrays for other programs, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import reference
import texts

import charrnn
from charrnn.errors import ConfigError
from charrnn.export import heat, weights
from charrnn.export import page as pages
from charrnn.model import CharModel
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import ByteVocabulary, Vocabulary

KINDS = [("lstm", 0, 2), ("gru", 3, 1), ("rnn-relu", 3, 2)]


def make(cell="lstm", *, members=1, embedding=0, byte=False, corpus="songs", alphabet="ab c\n"):
    vocabulary = ByteVocabulary() if byte else Vocabulary(alphabet)
    config = reference.make_config(
        cell, layers=2, embedding=embedding, members=members, vocab_size=len(vocabulary)
    )
    training = {"corpus": {"name": corpus, "n_chars": 1234}}
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        training=training,
        weights={
            name: array.astype(np.float32)
            for name, array in reference.random_weights(config).items()
        },
    )


def part(page, name):
    """The content of a script element of a page."""
    (found,) = re.findall(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    return found


def unpacked(page):
    """The arrays of a page, read by its own description."""
    arrays, data = (
        json.loads(part(page, "model"))["arrays"],
        base64.b64decode(part(page, "weights")),
    )
    found = {}
    for name, entry in arrays.items():
        raw = data[slice(*entry["bytes"])]
        if entry["dtype"] == "int8":
            n_scales = 4 * entry["rows"]
            scales = np.frombuffer(raw[:n_scales], "<f4")[:, None]
            integers = np.frombuffer(raw[n_scales:], np.int8).reshape(entry["rows"], -1)
            found[name] = integers * scales
        else:
            found[name] = np.frombuffer(raw, {"float32": "<f4", "float16": "<f2"}[entry["dtype"]])
    return found


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize(("cell", "embedding", "members"), KINDS)
def test_a_page_has_the_weights_in_its_precision(cell, embedding, members, precision):
    saved = make(cell, embedding=embedding, members=members)
    found = unpacked(pages.model_page(saved, title="x", precision=precision))
    assert list(found) == list(saved.weights)
    for name, rounded in weights.rounded(saved, precision).items():
        assert (rounded.dtype, rounded.shape) == (np.float32, saved.weights[name].shape)
        np.testing.assert_array_equal(found[name].ravel(), rounded.ravel())
        largest = np.abs(saved.weights[name]).max()
        error = {"float32": 0, "float16": largest / 2**11, "int8": largest / 254}[precision]
        assert np.abs(rounded - saved.weights[name]).max() <= error * 1.001
        if precision == "int8" and "bias" in name:
            np.testing.assert_array_equal(rounded, saved.weights[name])


def test_a_row_of_zeros_has_a_scale():
    packed = weights.pack(np.zeros((2, 3), np.float32), "int8", is_matrix=True)
    assert packed.data == np.ones(2, "<f4").tobytes() + bytes(6)


def test_the_cost_is_that_of_the_rounded_weights():
    saved = make("gru", members=2)
    texts = ["abc abc", "cab\n\nba"]
    for precision in ("float32", "float16", "int8"):
        other = SavedModel(
            config=saved.config,
            vocabulary=saved.vocabulary,
            training={},
            weights=weights.rounded(saved, precision),
        )
        bits = [
            -sum(CharModel(model).score(text).logprob for text in texts) / np.log(2) / 14
            for model in (saved, other)
        ]
        cost = weights.cost_in_bits(saved, precision, texts)
        assert cost == pytest.approx(bits[1] - bits[0], abs=1e-6)
        assert (cost != 0) == (precision != "float32")


HOSTILE = "</script><script>alert(1)</script><!-- \" ' & \u202e\x00\ud800"


def test_nothing_in_a_page_can_leave_its_place():
    saved = make(corpus=HOSTILE, alphabet=sorted(set(HOSTILE)))
    page = pages.model_page(saved, title=HOSTILE, prompt=HOSTILE)
    assert "alert(1)<" not in page
    assert page.count("<script") == page.count("</script>") == 4
    assert json.loads(part(page, "model"))["vocabulary"] == saved.vocabulary.to_dict()


def test_a_page_asks_nobody_and_shows_no_path(tmp_path):
    saved = make()
    page = pages.model_page(saved, title="x")
    asks = r"https?:|\burl\(|@import|<link|<img|<iframe|\bfetch\(|XMLHttp|WebSocket|importScripts"
    assert not re.search(asks, page.replace(part(page, "weights"), ""))
    assert str(tmp_path) not in page
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "script-src 'unsafe-inline'" not in policy


@pytest.mark.parametrize("name", [*pages.WORKER, "page.js", "heat.js"])
def test_the_scripts_fit_into_a_page(name):
    assert "</" not in pages.asset(name)
    assert "<!--" not in pages.asset(name)


def test_what_the_page_says_of_a_model():
    assert pages.about(make("gru", members=2)) == (
        f"2 networks of 2 layers of {reference.make_config('gru').hidden_size} GRU units, "
        f"{make('gru', members=2).config.num_parameters():,} weights; trained on songs, "
        "1,234 characters."
    )
    for training in ({}, {"corpus": None}, {"corpus": {"name": 3}}):
        saved = make()
        bare = SavedModel(
            config=saved.config,
            vocabulary=saved.vocabulary,
            training=training,
            weights=saved.weights,
        )
        assert pages.about(bare).endswith(" weights.")


def test_the_scripts_have_the_levels_of_the_colours():
    script = pages.asset("heat.js")
    assert f"const LEVELS_PER_BIT = {heat.LEVELS_PER_BIT};" in script
    assert f"const TOP_BITS = {heat.TOP_BITS};" in script


# arrays for other programs


@pytest.mark.parametrize("byte", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_archives_and_json_have_the_model_exactly(tmp_path, members, byte):
    saved = make(members=members, byte=byte, embedding=2)
    expected = {
        "model": saved.config.to_dict(),
        "vocabulary": saved.vocabulary.to_dict(),
        "text": saved.text.to_dict(),
    }
    archive = np.load(CharModel(saved).export(tmp_path / "a.npz", format="npz"))
    assert json.loads(archive["charrnn"].tobytes()) == expected
    document = json.loads(CharModel(saved).export(tmp_path / "a.json", format="json").read_text())
    arrays = document.pop("arrays")
    assert document == expected
    assert set(archive) - {"charrnn"} == set(arrays) == set(saved.weights)
    for name, array in saved.weights.items():
        np.testing.assert_array_equal(archive[name], array)
        np.testing.assert_array_equal(np.array(arrays[name], np.float32), array)


# what is refused


def test_nothing_is_written_over_unasked(tmp_path):
    saved, out = make(), tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="that exists") as caught:
        CharModel(saved).export(out)
    assert caught.value.field == "out"
    assert out.read_text() == "mine"
    assert CharModel(saved).export(out, force=True) == out
    assert out.read_text().startswith("<!DOCTYPE html>")
    for wrong in (tmp_path, out):
        with pytest.raises(ConfigError, match=r"a folder|the model itself"):
            CharModel(saved, out).export(wrong, force=True)


def test_a_page_beyond_all_measure_is_refused(monkeypatch, tmp_path):
    saved = make()
    n = sum(array.nbytes for array in saved.weights.values())
    monkeypatch.setattr(pages, "MAX_BYTES", n * 4 // 3)
    pages.model_page(saved, title="x", precision="float32")
    monkeypatch.setattr(pages, "MAX_BYTES", n * 4 // 3 - 1)
    with pytest.raises(ConfigError, match="--precision int8, or a model of fewer"):
        pages.model_page(saved, title="x", precision="float32")
    monkeypatch.setattr(pages, "MAX_BYTES", 0)
    with pytest.raises(ConfigError, match="use a model of fewer"):
        pages.model_page(saved, title="x", precision="int8")


@pytest.mark.parametrize("name", ["songs", "../../etc/x", "a b/ü", "", None, "." * 9, "x" * 500])
def test_the_file_is_named_after_the_text(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    out = CharModel(make(corpus=name)).export(None)
    assert [path.name for path in tmp_path.iterdir()] == [str(out)]
    if name == "songs":
        assert str(out) == "songs.html"
    assert charrnn.__version__ in out.read_text()


# the command line, and Python

TRAIN = ("--hidden", 8, "--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu")


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize("unit", ["char", "byte"])
def test_a_run_becomes_a_page(charrnn, tmp_path, unit, documents):
    (tmp_path / "songs.txt").write_text(texts.english(6000), encoding="utf-8")
    made = ("--documents", documents, "--unit", unit, "--members", 2, "--steps", 3, "-q")
    trained = charrnn("train", "songs.txt", *TRAIN, *made)
    assert trained.code == 0, trained.err
    exported = charrnn("export")
    assert exported.code == 0, exported.err
    assert exported.out == ""
    assert re.search(r"songs\.html  [\d.]+ kB", exported.err)
    where = r"measured on [\d,]+ characters of its validation text"
    assert re.search(rf"float16 adds -?0\.0\d+ bits per \w+, {where}", exported.err)
    page = (tmp_path / "songs.html").read_text()
    record = json.loads(part(page, "model"))
    assert (record["network"]["members"], record["documents"]) == (2, documents == "line")
    assert "trained on songs" in page
    assert str(tmp_path) not in page
    shutil.rmtree(tmp_path / "runs" / "songs" / "corpus")
    for given, where in (
        ((), "that the model wrote"),
        (("--text", "songs.txt"), "of that text"),
    ):
        again = charrnn("export", "runs/songs", "--precision", "int8", "--force", *given)
        assert again.code == 0, again.err
        assert f"characters {where}" in again.err


def test_wrong_exports_are_told(charrnn, tiny_model_path, tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "page.html").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"mine")
    model = ("-m", tiny_model_path)
    for given, said in (
        (("-m", "nowhere"), "nowhere"),
        ((*model, tiny_model_path), "named twice"),
        ((*model, "-o", "page.html"), "--out is a file that exists, page.html"),
        ((*model, "-o", "."), "--out names a folder"),
        ((*model, "-o", tiny_model_path, "--force"), "--out names the model itself"),
        ((*model, "-o", "page.html/x.html"), "not a directory"),
        ((*model, "-o", "page.html", "--force", "--text", "page.html"), "which --text reads"),
        ((*model, "-o", "run/model.safetensors", "--force"), "in the directory of a run"),
        ((*model, "-o", "run/page.html"), "in the directory of a run"),
        ((*model, "-o", "x" * 300), "--out is too long"),
        ((*model, "--text", "empty"), "empty is empty"),
        ((*model, "--text", "nowhere"), "nowhere"),
        ((*model, "--format", "npz", "--title", "x"), "--title is for the page"),
        ((*model, "--format", "json", "--precision", "int8"), "--precision is for the page"),
        ((*model, "--format", "pdf"), "pdf"),
    ):
        result = charrnn("export", *given)
        assert result.code == (1 if said in ("nowhere", "not a directory") else 2)
        assert said in result.err.splitlines()[-1]
    assert (tmp_path / "page.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "page.html", "run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]


def test_a_model_without_probabilities_is_not_written(charrnn, tmp_path):
    saved = make("rnn-relu")
    huge = {name: np.full_like(array, 1e14) for name, array in saved.weights.items()}
    save_model(tmp_path / "huge.safetensors", dataclasses.replace(saved, weights=huge))
    for precision in ("float16", "int8"):
        result = charrnn("export", "huge.safetensors", "--precision", precision)
        result.assert_one_error(1, "gives no probabilities")
    assert [path.name for path in tmp_path.iterdir()] == ["huge.safetensors"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"out": 3},
        {"out": ""},
        {"out": "x" * 300},
        {"out": "a\0b"},
        {"out": "\ud800"},
        {"format": "pdf"},
        {"title": 3},
        {"prompt": None},
        {"precision": "int4"},
        {"force": "yes"},
    ],
)
def test_wrong_arguments_in_python(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        CharModel(make()).export(**wrong)
    assert caught.value.field == next(iter(wrong))
    assert list(tmp_path.iterdir()) == []
