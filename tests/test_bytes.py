"""Byte models and Unicode: nothing is unknown, and no character is ever broken."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api
from charrnn.config import CorpusConfig, ModelConfig
from charrnn.corpus.encode import encode_corpus
from charrnn.model import CharModel
from charrnn.normalize import Normalizer
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, ByteVocabulary, Vocabulary

any_text = st.text(st.characters(codec="utf-8"), max_size=20)


@given(any_text)
def test_bytes_come_back_as_the_text(text):
    vocabulary = ByteVocabulary()
    ids = vocabulary.encode(text)
    assert ids.tolist() == [b + FIRST_CHARACTER_ID for b in text.encode()]
    assert vocabulary.decode(ids) == text
    assert vocabulary.unknown(text) == []
    decoder = vocabulary.decoder()
    for chosen in ids.tolist():
        assert chosen not in decoder.banned(), "a byte of real text was forbidden"
        decoder.feed(chosen)
    assert EOS_ID not in decoder.banned()


def test_what_may_follow_is_exactly_what_utf8_allows():
    vocabulary = ByteVocabulary()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        decoder, raw = vocabulary.decoder(), b""
        for _ in range(6):
            banned = set(decoder.banned())
            allowed = [i for i in range(FIRST_CHARACTER_ID, 258) if i not in banned]
            chosen = int(rng.choice(allowed))
            raw += bytes([chosen - FIRST_CHARACTER_ID])
            decoder.feed(chosen)
        while decoder.pending:
            allowed = set(range(FIRST_CHARACTER_ID, 258)) - set(decoder.banned())
            chosen = min(allowed)
            raw += bytes([chosen - FIRST_CHARACTER_ID])
            decoder.feed(chosen)
        raw.decode()  # raises if anything is broken


@pytest.mark.parametrize("num", [None, 5])
def test_a_byte_model_never_writes_a_broken_character(num):
    vocabulary = ByteVocabulary()
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=6, cell="gru")
    rng = np.random.default_rng(1)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in config.weight_shapes().items()
    }
    model = CharModel(
        SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={})
    )
    samples = model.sample(num=num, length=200, min_length=200, temperature=2.0, seed=1)
    for sample in samples if num else [samples]:
        assert len(sample.text) == 200
        assert "�" not in sample.text
        sample.text.encode()
        assert max(map(ord, sample.text)) > 0x7FF  # characters of several bytes are among them
    whole = "".join(model.stream("é", length=50, seed=3))
    assert whole == model.sample("é", length=50, seed=3).text


def test_a_byte_vocabulary_is_saved_and_loaded(tmp_path):
    vocabulary = ByteVocabulary()
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=2)
    weights = {n: np.zeros(s, np.float32) for n, s in config.weight_shapes().items()}
    saved = SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={})
    save_model(tmp_path / "m.safetensors", saved)
    again = load_model(tmp_path / "m.safetensors").vocabulary
    assert isinstance(again, ByteVocabulary)
    assert Vocabulary.from_dict(Vocabulary("ab").to_dict()).unit == "char"


def test_any_file_trains_in_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = bytes(range(256)) * 8
    (tmp_path / "raw").write_bytes(raw)
    corpus = encode_corpus(["raw"], tmp_path / "corpus", CorpusConfig(unit="byte", val_fraction=0))
    ids = corpus.ids[:-1] - FIRST_CHARACTER_ID  # the last is EOS
    assert ids.astype(np.uint8).tobytes() == raw.replace(b"\r", b"\n")
    model = api.train("raw", unit="byte", steps=3, hidden_size=4, sample_every=0)
    model.sample(length=20).text.encode()


# normalisation


@given(st.lists(st.text("aeé\u0301\u0327ﬁ한ᄒ ᅡᆫ中か\u3099\n", max_size=6), max_size=8))
@pytest.mark.parametrize("form", ["nfc", "nfkc", "none"])
def test_pieces_are_normalised_like_the_whole(form, pieces):
    normalizer = Normalizer(form)
    parts = [normalizer.feed(p, final=False) for p in pieces] + [normalizer.feed("", final=True)]
    whole = "".join(pieces)
    expected = whole if form == "none" else unicodedata.normalize(form.upper(), whole)
    assert "".join(parts) == expected


def test_prompts_and_scores_are_normalised_as_the_training_text_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("cafe\u0301 " * 50)  # e and a combining acute accent
    model = api.train("text", normalize="nfc", steps=3, hidden_size=4, sample_every=0)
    assert set(model.saved.vocabulary.characters) == set("caf é")
    assert model.saved.text.normalize == "nfc"
    options = {"seed": 1, "length": 20}
    assert model.sample("cafe\u0301", **options).text == model.sample("café", **options).text
    assert model.score("cafe\u0301").logprob == model.score("café").logprob
    assert model.score("cafe\u0301").n_unknown == 0


@pytest.mark.parametrize(
    ("raw", "encoding", "expected"),
    [
        ("né\n".encode("utf-16"), "auto", "né\n"),
        ("né\n".encode("utf-32"), "auto", "né\n"),
        ("né\n".encode("utf-16-be"), "utf-16-be", "né\n"),
        ("né\n".encode("latin-1"), "latin-1", "né\n"),
        ("\ufeffné\r\nx\ry".encode(), "auto", "né\nx\ny"),
        (b"a\0b", "auto", "a\0b"),
    ],
)
def test_encodings_and_line_ends(tmp_path, raw, encoding, expected):
    (tmp_path / "t").write_bytes(raw)
    config = CorpusConfig(encoding=encoding, val_fraction=0)
    corpus = encode_corpus([tmp_path / "t"], tmp_path / "corpus", config)
    assert corpus.vocabulary.decode(corpus.ids) == expected
    if b"\r" in raw:
        assert set(corpus.newlines) == {"\r\n", "\r"}


def test_undecodable_bytes_can_be_replaced(tmp_path):
    (tmp_path / "t").write_bytes(b"a\xffb")
    config = CorpusConfig(errors="replace", val_fraction=0)
    corpus = encode_corpus([tmp_path / "t"], tmp_path / "corpus", config)
    assert corpus.vocabulary.decode(corpus.ids) == "a�b"


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_compressed_files(tmp_path, suffix):
    import importlib

    module = importlib.import_module({"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[suffix])
    path = tmp_path / f"t.txt.{suffix}"
    path.write_bytes(module.compress(b"some text\n"))
    corpus = encode_corpus([path], tmp_path / "corpus", CorpusConfig(val_fraction=0))
    assert corpus.vocabulary.decode(corpus.ids) == "some text\n"
    path.write_bytes(module.compress(b"some text\n" * 99)[:-9])
    with pytest.raises(ValueError, match="cannot read"):
        encode_corpus([path], tmp_path / "again")
