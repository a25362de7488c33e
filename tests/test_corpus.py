"""From files to ids: every way a text can come, and every way it can be wrong."""

from __future__ import annotations

import hashlib
import io
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import CorpusConfig
from charrnn.corpus import draft, sources
from charrnn.corpus.corpus import check_unchanged, load_corpus
from charrnn.corpus.encode import encode_corpus
from charrnn.corpus.sources import Source, find_sources, read_text
from charrnn.errors import ConfigError, CorpusError
from charrnn.vocab import UNK_ID

MIB = 1 << 20


@pytest.fixture
def write(tmp_path):
    """Write a file of bytes or text and return its path."""

    def write(content, name="text.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def encoded(write, tmp_path):
    """Encode one file and return the corpus."""

    def encoded(content, **options):
        progress = options.pop("progress", None)
        config = CorpusConfig(**{"val_fraction": 0.1, **options})
        return encode_corpus([write(content)], tmp_path / "corpus", config, progress=progress)

    return encoded


def text_of(corpus):
    return corpus.vocabulary.decode(corpus.ids.tolist())


# reading


def read(path):
    return "".join(read_text(Source(path)))


@given(text=st.text(st.characters(codec="utf-8")), piece=st.integers(3, 9))
def test_text_is_decoded_across_pieces(tmp_path_factory, text, piece):
    path = tmp_path_factory.mktemp("read") / "text"
    path.write_bytes(text.encode())
    with mock.patch.object(sources, "PIECE_BYTES", piece):
        found = read(path)
    plain = text.removeprefix("\ufeff")
    assert found == plain.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_character_across_the_piece_border(write, character, before):
    text = "a" * (MIB - before) + character + "b"
    assert read(write(text)) == text


def test_a_line_end_across_the_piece_border(write):
    assert read(write(b"a" * (MIB - 1) + b"\r\nb")) == "a" * (MIB - 1) + "\nb"


@pytest.mark.parametrize("ends", [b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r"])
def test_every_line_end_is_a_newline(write, ends):
    assert read(write(ends)) == "a\nb\n"


def test_only_the_first_byte_order_mark_is_dropped(write):
    assert read(write(b"\xef\xbb\xbfa\xef\xbb\xbfb")) == "a\ufeffb"


def test_a_mark_at_the_start_of_a_later_piece_is_text(write, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 3)
    assert read(write(b"\xef\xbb\xbfabc\xef\xbb\xbfdef")) == "abc\ufeffdef"


@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        (b"\xff", "0xFF", 0),
        (b"abc\xe9def", "0xE9", 3),
        ("naïve".encode("latin-1"), "0xEF", 2),
        (b"ab\xe2\x82", "0xE2", 2),
        (b"\xef\xbb\xbfab\x80", "0x80", 5),
        (b"a\r\nb\x80", "0x80", 4),
        (b"a\xed\xa0\x80", "0xED", 1),
        (b"a" * MIB + b"\xff", "0xFF", MIB),
        (b"a" * (MIB - 1) + b"\xe2\x82", "0xE2", MIB - 1),
        (b"a" * (MIB - 1) + b"\xe2(", "0xE2", MIB - 1),
        (b"a" * (MIB - 2) + b"\xe2\x82" + b"(" * MIB, "0xE2", MIB - 2),
    ],
)
def test_the_first_bad_byte_is_named(write, content, byte, offset):
    path = write(content)
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert f"{path} is not UTF-8: byte {byte} at offset {offset} " in str(caught.value)


def test_standard_input(monkeypatch, tmp_path):
    stdin = SimpleNamespace(buffer=io.BytesIO("né\r\n".encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    corpus = encode_corpus(["-"], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "né\n"
    assert corpus.name == "stdin"
    assert corpus.paths == ()
    check_unchanged(corpus, [])  # nothing left to compare with
    check_unchanged(corpus, ["-"])


# finding


def test_a_directory_means_its_text_files_in_order(write, tmp_path):
    for name in ("d/b.txt", "d/a.txt", "d/sub/c.txt", "d/picture.png", "d/e.text"):
        write(name, name)
    found = find_sources([tmp_path / "d"])
    names = [source.path.relative_to(tmp_path).as_posix() for source in found]
    assert names == ["d/a.txt", "d/b.txt", "d/sub/c.txt"]
    corpus = encode_corpus([tmp_path / "d"], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "d/a.txtd/b.txtd/sub/c.txt"


def test_several_inputs_follow_one_another(write, tmp_path):
    one, two = write("end\r", "one.txt"), write("\nbegin", "two.txt")
    corpus = encode_corpus([two, one, two], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "\nbeginend\n\nbegin"
    assert corpus.name == "two"
    assert corpus.paths == (str(two), str(one), str(two))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), r"no \*.txt file"),
        (lambda path: (path.mkdir(), (path / "a.md").write_text("a")), r"no \*.txt file"),
        (lambda path: path.write_bytes(b""), "no text"),
        (lambda path: path.write_bytes(b"\xef\xbb\xbf"), "no text"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("")), "no text"),
    ],
    ids=["missing", "empty folder", "folder without text", "empty", "only a mark", "all empty"],
)
def test_nothing_to_read(tmp_path, make, message):
    path = tmp_path / "given"
    make(path)
    with pytest.raises(CorpusError, match=message) as caught:
        encode_corpus([path], tmp_path / "corpus")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"abc\xff"])
def test_a_text_that_cannot_be_used_leaves_nothing_behind(write, tmp_path, content):
    with pytest.raises(CorpusError):
        encode_corpus([write(content)], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_no_path_at_all():
    with pytest.raises(CorpusError, match="no corpus given"):
        find_sources([])


# encoding


def test_a_text_becomes_ids_and_comes_back(encoded):
    text = "to be,\nor not to bé €😀\n" * 40
    corpus = encoded(text)
    assert text_of(corpus) == text
    assert corpus.n_chars == len(text)
    assert corpus.n_bytes == len(text.encode())
    assert corpus.n_train == int(len(text) * 0.9)
    assert len(corpus.train_ids) + len(corpus.val_ids) == len(text)
    assert corpus.n_unknown == 0
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.name == "text"


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff"), min_size=1))
def test_any_text_in_small_pieces(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("encode")
    (folder / "text").write_bytes(text.encode())
    with mock.patch.object(sources, "PIECE_BYTES", 5), mock.patch.object(draft, "PIECE_IDS", 3):
        corpus = encode_corpus([folder / "text"], folder / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == text
    assert corpus.vocabulary.characters == tuple(sorted(set(text)))
    assert corpus.n_bytes == len(text.encode())


@pytest.mark.parametrize(
    ("n_characters", "dtype"),
    [(254, np.uint8), (255, np.uint16), (65_534, np.uint16), (65_535, np.uint32)],
)
def test_ids_widen_while_the_text_is_read(encoded, monkeypatch, n_characters, dtype):
    """The file is rewritten in a wider type when the alphabet outgrows the narrow one."""
    monkeypatch.setattr(sources, "PIECE_BYTES", 1 << 12)
    monkeypatch.setattr(draft, "PIECE_IDS", 1 << 10)
    alphabet = [c for c in map(chr, range(0x20, 0x20 + 70_000)) if not 0xD800 <= ord(c) < 0xE000]
    text = "ab" * 3000 + "".join(alphabet[:n_characters]) + "ba" * 100
    corpus = encoded(text, val_fraction=0)
    assert len(corpus.vocabulary) == n_characters + 2
    assert corpus.ids.dtype == dtype
    assert text_of(corpus) == text


def test_the_vocabulary_is_that_of_the_training_part(encoded):
    corpus = encoded("ab" * 45 + "abXYabXabab")
    assert corpus.vocabulary.characters == ("a", "b")
    assert text_of(corpus) == "ab" * 45 + "ab��ab�abab"
    assert corpus.n_unknown == 3
    assert UNK_ID not in corpus.train_ids


def test_rare_characters_of_the_training_part_become_unk(encoded):
    corpus = encoded("ab" * 40 + "cc" + "d" + "ab" * 8 + "d", min_count=2)
    assert corpus.vocabulary.characters == ("a", "b", "c")
    assert corpus.n_unknown == 2
    assert np.count_nonzero(corpus.ids == UNK_ID) == 2


@pytest.mark.parametrize(
    ("n", "fraction", "n_train"),
    [(1, 0.1, 1), (1, 0.9, 1), (2, 0.5, 1), (10, 0.1, 9), (10, 0, 10), (10, 0.99, 1), (3, 0.1, 2)],
)
def test_the_split(encoded, n, fraction, n_train):
    corpus = encoded("x" * n, val_fraction=fraction)
    assert (corpus.n_train, len(corpus.val_ids)) == (n_train, n - n_train)


@pytest.mark.parametrize("fraction", [-0.1, 1, 2, float("nan")])
def test_an_impossible_split(encoded, fraction):
    with pytest.raises(ConfigError, match="val fraction"):
        encoded("some text", val_fraction=fraction)


def test_progress_counts_characters(encoded, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    seen = []
    encoded("é" * 500, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 500
    assert len(seen) >= 10


# coming back to it


def test_an_encoded_corpus_is_loaded_as_it_was(encoded, tmp_path):
    corpus = encoded("né\n" * 300)
    again = load_corpus(tmp_path / "corpus")
    np.testing.assert_array_equal(again.ids, corpus.ids)
    for field in ("name", "vocabulary", "n_train", "n_bytes", "n_unknown", "sha256", "paths"):
        assert getattr(again, field) == getattr(corpus, field)
    assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == ["corpus.json", "ids.bin"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "corpus.json").unlink(),
        lambda folder: (folder / "ids.bin").unlink(),
        lambda folder: (folder / "ids.bin").write_bytes(b""),
        lambda folder: (folder / "ids.bin").write_bytes(b"\2\3"),
        lambda folder: (folder / "corpus.json").write_text("{}"),
        lambda folder: (folder / "corpus.json").write_text("[1]"),
        lambda folder: (folder / "corpus.json").write_text("not JSON"),
        lambda folder: (folder / "corpus.json").write_bytes(b"\xff"),
    ],
)
def test_a_damaged_corpus_is_refused(encoded, tmp_path, damage):
    encoded("some text")
    damage(tmp_path / "corpus")
    with pytest.raises(CorpusError, match="start a new run"):
        load_corpus(tmp_path / "corpus")


def test_a_changed_text_is_noticed(write, tmp_path):
    path = write("the old text")
    corpus = encode_corpus([path], tmp_path / "corpus")
    check_unchanged(corpus, [])
    check_unchanged(corpus, [path])
    copy = write("the old text", "elsewhere.txt")
    check_unchanged(corpus, [copy])
    path.write_text("the new text")
    for paths in ([], [path]):
        with pytest.raises(CorpusError, match="has changed"):
            check_unchanged(corpus, paths)
    check_unchanged(corpus, [copy])
    path.unlink()
    with pytest.raises(CorpusError, match="there is no file"):
        check_unchanged(corpus, [])


def test_a_closed_standard_input_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CorpusError, match="standard input is closed"):
        encode_corpus(["-"], tmp_path / "corpus", CorpusConfig())
