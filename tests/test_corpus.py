"""From files to ids: every way a text can come, and every way it can be wrong."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import pkgutil
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import links, named_pipes, posix
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import CorpusConfig
from charrnn.corpus import draft, sources
from charrnn.corpus.corpus import digest_of, load_corpus
from charrnn.corpus.encode import encode_corpus
from charrnn.corpus.sources import Source, find_sources, lines_of, pieces_of, read_text
from charrnn.errors import CharRNNError, ConfigError, CorpusError
from charrnn.normalize import split_documents
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


@pytest.mark.parametrize("asked", ["auto", "utf-8", "UTF-8", "utf8", "U8", "utf_8"])
def test_the_mark_of_utf8_is_dropped_however_its_codec_is_spelled(write, tmp_path, asked):
    path = write(b"\xef\xbb\xbfab\xef\xbb\xbf")
    config = CorpusConfig(encoding=asked, val_fraction=0)
    corpus = encode_corpus([path], tmp_path / "corpus", config)
    assert text_of(corpus) == "ab\ufeff"
    assert corpus.encodings == ("UTF-8",)


def read_all(path, encoding):
    return "".join(pieces_of(path, encoding=encoding))


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "UTF-16LE", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_wide_encoding_that_was_asked_for_may_have_a_mark(write, codec, mark):
    path = write((mark + "né\n").encode("utf-16-le" if codec == "utf-16" else codec))
    if codec == "utf-16" and not mark:
        with pytest.raises(CorpusError, match=r"is not UTF-16 .*such as utf-16-le"):
            read_all(path, codec)
        return
    assert read_all(path, codec) == "né\n"


@pytest.mark.parametrize("codec", ["gb18030", "utf-7", "utf-8-sig", "utf-32"])
def test_the_mark_of_any_encoding_is_dropped(write, codec):
    path = write("\ufeff né\ufeff".encode("utf-8" if codec == "utf-8-sig" else codec))
    if codec == "utf-32":  # which writes a mark of its own
        path = write("\ufeff né\ufeff".encode("utf-32-le"))
    assert read_all(path, codec) == " né\ufeff"


@pytest.mark.parametrize(
    ("mark", "asked"),
    [("utf-8-sig", "latin-1"), ("utf-8-sig", "cp1252"), ("utf-16", "utf-8"), ("utf-16", "latin-1"),
     ("utf-16", "utf-16-be"), ("utf-32", "cp437")],
)  # fmt: skip
def test_the_mark_of_another_encoding_is_no_text(write, mark, asked):
    for path in (write("né".encode(mark)), write("é".encode(mark))):
        with pytest.raises(CorpusError, match=r"the byte order mark of UTF.*leave --encoding out"):
            read_all(path, asked)


def codecs_of_python():
    import encodings

    return sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("name", codecs_of_python())
def test_every_codec_reads_a_text_or_says_why_not(write, name):
    whole = bytes(range(256)) * 3
    for content in (b"plain text\n", whole, "né\n".encode("utf-16"), b"\\", b"", b"+A"):
        path = write(content)
        for options in ({}, {"errors": "replace"}, {"unit": "byte"}):
            with contextlib.suppress(CharRNNError):
                assert isinstance("".join(pieces_of(path, encoding=name, **options)), str)


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("text", ["two lines\nof text\n", "жили-были\n", "中文。\n"])
def test_utf32_without_a_mark_is_not_read_as_nuls(write, order, text):
    path = write(text.encode(f"utf-32-{order}"))
    with pytest.raises(CorpusError, match=f"looks like UTF-32 .*--encoding utf-32-{order}"):
        read(path)
    assert read_all(path, f"utf-32-{order}") == text


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("text", ["to be, or not to be\n", "жили-были старик со старухой\n" * 9])
def test_utf16_without_a_mark_is_not_read_as_nuls(write, order, text):
    path = write(text.encode(f"utf-16-{order}"))
    with pytest.raises(CorpusError, match=f"looks like UTF-16 .*--encoding utf-16-{order}"):
        read(path)
    assert read_all(path, f"utf-16-{order}") == text


@pytest.mark.parametrize("text", ["a\0b", "\0", "a\0\0b" * 9, "word\0" * 9 + "words\0" * 9])
def test_a_few_nuls_are_text(write, text):
    assert read(write(text)) == text


@pytest.mark.parametrize(("suffix", "compress"), [
    (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress),
])  # fmt: skip
def test_a_damaged_compressed_file_is_named(write, suffix, compress):
    whole = compress(random.Random(0).randbytes(4000).hex().encode())
    path = write(whole, f"text{suffix}")
    assert len(read(path)) == 8000
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(99) + whole[middle + 99 :], b"plain"):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"cannot read .*text"):
            read(path)


# lines


@given(text=st.text("ab\r\n \x0b\x1c\x85\u2028"), piece=st.integers(3, 9))
def test_only_line_ends_end_lines(tmp_path_factory, text, piece):
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(text.encode())
    with mock.patch.object(sources, "PIECE_BYTES", piece):
        found = list(lines_of(path))
    assert found == list(map(str.removesuffix, io.StringIO(text, newline=None), "\n" * len(text)))


def test_a_line_that_is_too_long_is_named(write, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE", 20)
    monkeypatch.setattr(sources, "PIECE_BYTES", 8)
    path = write("a" * 20 + "\nb\n" + "c" * 20 + "\n" + "d" * 99)
    lines = lines_of(path)
    assert [next(lines) for _ in range(3)] == ["a" * 20, "b", "c" * 20]
    with pytest.raises(CorpusError, match=f"line 4 of {path} has more than 20 characters"):
        next(lines)


def test_a_text_that_is_too_long_to_be_held_is_named(write, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE", 20)
    monkeypatch.setattr(sources, "PIECE_BYTES", 8)
    assert sources.text_of(write("one\ntwo\r\nabcdefghijk\n")) == "one\ntwo\nabcdefghijk\n"
    with pytest.raises(CorpusError, match=r"text\.txt has more than 20 characters: give a shorter"):
        sources.text_of(write("one\ntwo\nabcdefghijklm\n" * 1000))


DEVICES = [path for path in ("/dev/zero", "/dev/urandom", "/dev/full") if os.path.exists(path)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [None, "-", "zero.txt", "zero.gz", "zero.xz"])
def test_a_device_without_an_end_is_no_text(tmp_path, monkeypatch, device, name):
    path = device
    with contextlib.ExitStack() as stack:
        if name == "-":
            path = name
            monkeypatch.setattr("sys.stdin", stack.enter_context(open(device)))
        elif name is not None:
            path = tmp_path / name
            path.symlink_to(device)
        with pytest.raises(CorpusError, match=r"cannot read .*: it is a device"):
            encode_corpus([path], tmp_path / "corpus")
        for read in (sources.text_of, digest_of_one, lambda one: list(lines_of(one))):
            with pytest.raises(CorpusError, match=r"cannot read .*: it is a device"):
                read(Path(path))
    assert not (tmp_path / "corpus" / "ids.bin").exists()


def digest_of_one(path):
    return digest_of([path], ())


@named_pipes
def test_pipes_are_read_where_they_are_named(write, tmp_path):
    folder = write("one", "folder/a.txt").parent
    pipe = folder / "b.txt"
    os.mkfifo(pipe)
    (folder / "c.txt").symlink_to("/dev/zero")
    found = find_sources([folder])
    assert [source.path.name for source in found] == ["a.txt"], "a folder's pipe would hang"
    assert len(found.left_out) == 2
    assert sources.text_of(Path(os.devnull)) == ""
    for read in (sources.text_of, lambda path: digest_of([path], ())):
        writer = threading.Thread(target=pipe.write_text, args=["through"])
        writer.start()
        assert read(pipe) in ("through", hashlib.sha256(b"through").hexdigest())
        writer.join()


def test_lines_of_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"a\n\nb\xff")))
    assert list(lines_of(Path("-"), unit="byte")) == ["a", "", "b\udcff"]


# finding


def test_a_directory_means_its_text_files_in_order(write, tmp_path):
    for name in ("d/b.txt", "d/a.txt", "d/sub/c.txt", "d/picture.png", "d/e.text"):
        write(name, name)
    assert names_in(tmp_path / "d") == ["a.txt", "b.txt", "sub/c.txt"]
    corpus = encode_corpus([tmp_path / "d"], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "d/a.txt\nd/b.txt\nd/sub/c.txt"
    assert (corpus.n_files, corpus.n_left_out) == (3, 2)


def names_in(directory, *globs):
    found = find_sources([directory], globs or ("*.txt",))
    return [source.path.relative_to(directory).as_posix() for source in found]


def test_case_and_compression_do_not_hide_a_text(write, tmp_path):
    for name in ("B.TXT", "c.txt.gz", "d.Txt.XZ", "e.md.gz", "txt", "f.txt.zip"):
        write(b"", f"d/{name}")
    assert names_in(tmp_path / "d") == ["B.TXT", "c.txt.gz", "d.Txt.XZ"]
    assert names_in(tmp_path / "d", "*.MD") == ["e.md.gz"]
    assert names_in(tmp_path / "d", "*.gz") == ["c.txt.gz", "e.md.gz"]


def test_a_pattern_may_name_directories(write, tmp_path):
    for name in ("a.txt", "books/b.txt", "more/books/c.txt", "books/old/d.txt"):
        write(name, f"d/{name}")
    assert names_in(tmp_path / "d", "books/*.txt") == ["books/b.txt", "more/books/c.txt"]
    assert len(names_in(tmp_path / "d", "**/*.txt")) == 4
    assert names_in(tmp_path / "d", "**.txt") == names_in(tmp_path / "d")
    assert names_in(tmp_path / "d", "more/**", "./a.*") == ["a.txt", "more/books/c.txt"]
    assert names_in(tmp_path / "d", "**/old/**/*") == ["books/old/d.txt"]


@pytest.mark.parametrize("globs", [(), ("",), (".",), ("**/../*.txt",), ("/*.txt",), ("*.txt", "")])
def test_a_pattern_is_for_paths_inside_a_directory(globs, tmp_path):
    with pytest.raises(ConfigError, match=r"^glob must be a pattern") as caught:
        find_sources([tmp_path], globs)
    assert caught.value.field == "glob"


def test_files_need_no_pattern(write):
    assert len(find_sources([write("a"), "-"], ())) == 2


@pytest.mark.parametrize("glob", ["*[a.txt", "**/" * 40 + "*.txt", "\0", "*" * 300])
def test_any_pattern_is_understood(write, tmp_path, glob):
    write("a", "d/[a.txt")
    with contextlib.suppress(CorpusError):
        assert names_in(tmp_path / "d", glob) == ["[a.txt"]


@named_pipes
def test_links_are_followed_and_a_file_is_read_once(write, tmp_path):
    write("a", "d/a.txt"), write("b", "elsewhere/b.txt")
    (tmp_path / "d/again.txt").hardlink_to(tmp_path / "d/a.txt")
    (tmp_path / "d/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/loop").symlink_to(tmp_path / "d")
    (tmp_path / "d/nowhere.txt").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "d/pipe.txt")
    assert names_in(tmp_path / "d") == ["a.txt", "link/b.txt"]
    given = [tmp_path / "d/a.txt", tmp_path / "d", str(tmp_path / "d/../d/a.txt"), "-", "-"]
    found = find_sources(given)
    assert [source.name for source in found] == [
        str(tmp_path / "d/a.txt"), str(tmp_path / "d/link/b.txt"), "standard input"
    ]  # fmt: skip
    assert len(found.left_out) == len(
        ["again.txt", "nowhere.txt", "pipe.txt", "a.txt", "a.txt", "-"]
    )


@links
@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "loop", "file/below"])
def test_a_path_that_the_system_refuses(write, tmp_path, name):
    write("a", "file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CorpusError, match=r"cannot read |there is no file"):
        find_sources([f"{tmp_path}/{name}"])


def test_a_directory_that_cannot_be_read_is_said(write, tmp_path, monkeypatch):
    write("a", "d/a.txt"), write("b", "d/secret/b.txt")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(CorpusError, match=r"cannot read .*d: permission denied"):
        find_sources([tmp_path / "d"])


def test_hidden_files_are_left_out_but_a_hidden_directory_can_be_named(write, tmp_path):
    for name in ("a.txt", "._a.txt", ".b.txt", ".ipynb_checkpoints/a.txt", "sub/.git/c.txt"):
        write(name, f".d/{name}")
    assert names_in(tmp_path / ".d") == ["a.txt"]


@pytest.mark.parametrize("name", ["model.safetensors", "resume.safetensors", ".charrnn.lock"])
def test_the_runs_in_a_directory_are_no_text(write, tmp_path, name):
    for path in ("d/a.txt", f"d/runs/a/{name}", "d/runs/a/b.txt", "d/runs/a/corpus/c.txt"):
        write("a", path)
    assert names_in(tmp_path / "d", "*") == ["a.txt"]
    assert names_in(tmp_path / "d/runs/a") == ["b.txt", "corpus/c.txt"]


def test_several_inputs_follow_one_another(write, tmp_path):
    one, two = write("end\r", "one.txt"), write("\nbegin", "two.txt")
    corpus = encode_corpus([two, one, two], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "\nbegin\nend\n"
    assert corpus.n_chars == len("\nbegin\nend\n")
    assert corpus.name == "two"
    assert corpus.paths == (str(two), str(one))
    assert (corpus.n_files, corpus.n_left_out) == (2, 1)


def held_out_twice(write, tmp_path):
    """Ways in which a text can be held out and trained on."""
    text = write("one text", "d/text.txt")
    write("another", "d/other.txt")
    (tmp_path / "link.txt").symlink_to(text)
    yield [text], text
    yield [tmp_path / "d"], text
    yield [tmp_path / "d"], tmp_path / "link.txt"
    yield [text], tmp_path / "d"
    yield [tmp_path / "d"], write("one text", "copy.txt")
    yield [tmp_path / "d"], write(gzip.compress(b"one text"), "packed.txt.gz")


@links
@pytest.mark.parametrize("way", range(6))
def test_a_text_cannot_be_held_out_and_trained_on(write, tmp_path, way):
    paths, held_out = list(held_out_twice(write, tmp_path))[way]
    with pytest.raises(
        CorpusError, match=r"is held out, and is in the training text too"
    ) as caught:
        encode_corpus(paths, tmp_path / "corpus", held_out=[held_out])
    assert "d/text.txt" in str(caught.value)
    assert not (tmp_path / "corpus").exists()
    write("", "d/empty.txt")  # without text, two files are not the same text
    held_out = [write("something else", "held-out.txt"), write("", "empty-too.txt")]
    encode_corpus([tmp_path / "d"], tmp_path / "corpus", held_out=held_out)


def test_copies_under_another_name_are_counted(write, tmp_path):
    paths = [
        write(text, name) for name, text in zip("abcdef", ["x", "", "x", "", "y", "x"], strict=True)
    ]
    corpus = encode_corpus(paths, tmp_path / "corpus")
    assert (corpus.n_files, corpus.n_copies, corpus.n_left_out) == (6, 2, 0)
    assert corpus.n_chars == len("x\nx\ny\nx")


def test_a_held_out_file_without_text_is_said(write, tmp_path):
    with pytest.raises(CorpusError, match=r"there is no text in .*empty.txt"):
        encode_corpus([write("some")], tmp_path / "corpus", held_out=[write("", "empty.txt")])


@pytest.mark.parametrize("piece", [1, 2, 1000])
def test_an_input_begins_on_a_line_of_its_own(write, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(sources, "PIECE_BYTES", piece)
    texts = ["", "one", "", "two\n", "three", "\nfour", ""]
    paths = [write(text, f"{k}.txt") for k, text in enumerate(texts)]
    corpus = encode_corpus(paths, tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert text_of(corpus) == "one\ntwo\nthree\n\nfour"
    corpus = encode_corpus(paths[:2], tmp_path / "other", held_out=paths[3:5])
    assert text_of(corpus).startswith("one")  # what is held out is not glued to it
    assert (corpus.n_train, corpus.n_val) == (3, len("two\nthree"))


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
    with pytest.raises(ConfigError, match="val_fraction"):
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


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("ann\nbob\n" * 30, {}, True),
        ("ann\nbob\n" * 30, {"documents": "line"}, False),
        ("ann\nbob\n" * 5, {}, False),
        ("ann\n\nbob\n" * 30, {}, False),
        (("ann " * 20 + "\n") * 30, {}, False),
        ("ann " * 30, {}, False),
    ],
    ids=["list", "read as one", "few lines", "blank lines", "long lines", "no lines"],
)
def test_a_list_of_short_lines_is_recognised(encoded, text, options, expected):
    assert encoded(text, **options).looks_like_list is expected


def test_the_text_is_known_by_its_bytes_wherever_it_is(write, tmp_path):
    path, held_out = write("the old text"), write("another one", "held-out.txt")
    corpus = encode_corpus([path], tmp_path / "corpus", held_out=[held_out])
    assert corpus.sha256 == digest_of([path], ["*.txt"])
    assert corpus.held_out_sha256 == digest_of([held_out], ["*.txt"])
    assert corpus.sha256 == digest_of([write("the old text", "elsewhere.txt")], ["*.txt"])
    assert (corpus.paths, corpus.held_out_paths) == ((str(path),), (str(held_out),))
    path.write_text("the new text")
    assert corpus.sha256 != digest_of([path], ["*.txt"])
    path.unlink()
    with pytest.raises(CorpusError, match="there is no file"):
        digest_of([path], ["*.txt"])


def test_a_closed_standard_input_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CorpusError, match="standard input is closed"):
        encode_corpus(["-"], tmp_path / "corpus", CorpusConfig())


# documents


def blocks_by_hand(text):
    """Return the blocks between blank lines: their lines, joined."""
    lines = itertools.groupby(text.split("\n"), lambda line: bool(line.strip()))
    return ["\n".join(block) for is_text, block in lines if is_text]


any_lines = st.text("ab \n\t\x0c\xa0", max_size=40)


@given(st.lists(any_lines, max_size=3), st.integers(1, 9))
@pytest.mark.parametrize("documents", ["line", "blank-line", "file"])
def test_documents_keep_every_character_but_the_lines_between_them(documents, texts, size):
    expected = {
        "line": [line for text in texts for line in text.split("\n") if line],
        "blank-line": [block for text in texts for block in blocks_by_hand(text)],
        "file": [text for text in texts if text],
    }[documents]
    segmenter, codes = draft.Segmenter(documents, "char"), []
    for text in texts:
        pieces = [text[k : k + size] for k in range(0, len(text), size)]
        for piece, final in [*((piece, False) for piece in pieces), ("", True)]:
            codes += segmenter.feed(piece, final).tolist()
        one = list(split_documents(pieces, documents))
        assert one == {"line": [line for line in text.split("\n") if line],
                       "blank-line": blocks_by_hand(text),
                       "file": [text] if text else []}[documents]  # fmt: skip
    assert codes == [code for text in expected for code in (*map(ord, text), draft.END)]


def test_blank_lines_keep_the_indentation_of_a_document():
    parts = draft.Segmenter("blank-line", "char").feed("\n \n  one\n two \n\t\n\n   three\n", True)
    assert "".join("|" if c == draft.END else chr(c) for c in parts) == "  one\n two |   three|"


# a record from a stranger


ODD = [None, -1, 10**9, 10**30, 1.5, float("nan"), float("inf"), True, "", "x", [], [1], {}, ["-"]]


@pytest.mark.parametrize("documents", ["none", "line"])
def test_a_record_from_a_stranger_is_refused_or_harmless(encoded, tmp_path, documents):
    encoded("one line\nanother\n" * 30, documents=documents)
    path = tmp_path / "corpus/corpus.json"
    record = json.loads(path.read_text())
    places = [(record, name) for name in list(record)]
    for name in ("config", "vocabulary", "documents"):
        places += [(record[name], field) for field in record[name] or ()]
    n_refused = 0
    for part, name in places:
        for odd in ODD:
            kept, part[name] = part[name], odd
            path.write_text(json.dumps(record))
            part[name] = kept
            try:
                corpus = load_corpus(tmp_path / "corpus")
            except CorpusError:
                n_refused += 1
            else:
                assert corpus.n_train + corpus.n_val + (corpus.n_val == 0) >= len(corpus.ids)
                assert 0 <= corpus.mean_line < 1e12
                assert "-" not in corpus.paths + corpus.held_out_paths
    assert n_refused > 10 * len(places)
    path.write_text(json.dumps({**record, "more": 1}))
    with pytest.raises(CorpusError):
        load_corpus(tmp_path / "corpus")


@pytest.mark.parametrize(
    "name_and_damage",
    [
        pytest.param(
            ("corpus.json", lambda path: (path.unlink(), os.mkfifo(path))), marks=named_pipes
        ),
        pytest.param(("ids.bin", lambda path: (path.unlink(), os.mkfifo(path))), marks=named_pipes),
        pytest.param(
            ("documents.bin", lambda path: (path.unlink(), os.mkfifo(path))), marks=named_pipes
        ),
        pytest.param(
            ("documents.bin", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
            marks=posix,
        ),
        ("corpus.json", lambda path: path.write_text("[" * 100_000)),
        ("corpus.json", lambda path: path.write_text(" " * (1 << 26) + "{}")),
        ("ids.bin", lambda path: path.write_bytes(b"\xff" * path.stat().st_size)),
        ("documents.bin", lambda path: path.write_bytes(b"")),
        ("documents.bin", lambda path: path.write_bytes(bytes(path.stat().st_size))),
        ("documents.bin", lambda path: path.write_bytes(path.read_bytes()[:-8])),
        ("documents.bin", lambda path: path.write_bytes(path.read_bytes()[::-1])),
        ("documents.bin", lambda path: path.write_bytes(path.read_bytes()[8:] + bytes(8))),
    ],
)
def test_files_of_a_stranger_are_refused(encoded, tmp_path, name_and_damage):
    encoded("one line\nanother\n" * 30, documents="line")
    name, damage = name_and_damage
    damage(tmp_path / "corpus" / name)
    with pytest.raises(CorpusError, match="start a new run") as caught:
        load_corpus(tmp_path / "corpus")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("documents", ["none", "line"])
def test_characters_are_characters_in_a_byte_model_too(encoded, unit, documents):
    corpus = encoded("né\n€😀ab\n", unit=unit, documents=documents, val_fraction=0)
    line_ends = 2 * (documents == "none")
    assert (corpus.n_chars, corpus.n_bytes) == (6 + line_ends, 12 + line_ends)
    assert corpus.mean_line == pytest.approx(corpus.n_chars / (1 + line_ends))


def test_a_directory_gives_its_own_name(write, tmp_path):
    write("a text", "poems/0.txt")
    assert find_sources([tmp_path / "poems"]).stem == "poems"
    assert find_sources([tmp_path / "poems" / "0.txt"]).stem == "0"
    assert find_sources(["-"]).stem == "stdin"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("verse", "did you mean {}/verse.txt?"),
        ("vesre.txt", "did you mean {}/verse.txt?"),
        ("*.txt", "name the directory {}, with --glob '*.txt'"),
        ("play", "check the path"),
    ],
)
def test_what_is_near_a_file_that_does_not_exist_is_named(tmp_path, given, hint):
    (tmp_path / "verse.txt").write_text("a")
    with pytest.raises(CorpusError) as caught:
        find_sources([tmp_path / given])
    assert str(caught.value).endswith(f"{given}: {hint.format(tmp_path)}")


def test_the_first_files_left_out_and_the_copies_are_named(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("the same")
    for name in "vwxyz":
        (folder / name).write_text("no text")
    corpus = encode_corpus([folder], tmp_path / "out")
    assert (corpus.n_left_out, corpus.n_copies) == (5, 1)
    assert corpus.left_out == tuple(str(folder / name) for name in "vwx")
    assert corpus.copies == (str(folder / "b.txt"),)
