"""Characters and ids: UNK 0, EOS 1, then the characters by code point."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.vocab import (
    EOS_ID,
    UNK_ID,
    Encoded,
    Unknown,
    Vocabulary,
    encode_known,
    id_dtype,
    name_of,
)

alphabets = st.sets(st.characters(), min_size=1, max_size=40)  # lone surrogates included


def test_ids_are_unk_eos_and_the_characters_by_code_point():
    vocabulary = Vocabulary("ba€\n😀")
    assert (UNK_ID, EOS_ID) == (0, 1)
    assert vocabulary.encode("\nab€😀").tolist() == [2, 3, 4, 5, 6]
    assert len(vocabulary) == 7
    assert vocabulary.characters == ("\n", "a", "b", "€", "😀")


@given(alphabets, st.text(st.characters()))
def test_encode_knows_exactly_its_characters(alphabet, text):
    vocabulary = Vocabulary(alphabet)
    ids = vocabulary.encode(text)
    assert ids.dtype == vocabulary.id_dtype
    assert len(ids) == len(text)
    for character, i in zip(text, ids.tolist(), strict=True):
        if character in alphabet:
            assert i >= 2
            assert vocabulary.decode([i]) == character
        else:
            assert i == UNK_ID


def test_every_other_code_point_is_unknown():
    text = "".join(map(chr, range(3000)))
    known = [c for c, i in zip(text, Vocabulary("ad").encode(text).tolist(), strict=True) if i]
    assert known == ["a", "d"]


@given(st.data())
def test_decode_reverses_encode(data):
    alphabet = data.draw(alphabets)
    text = data.draw(st.text(st.sampled_from(sorted(alphabet))))
    vocabulary = Vocabulary(alphabet)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_no_text_spells_unk_or_eos():
    vocabulary = Vocabulary("<unk>�\x00")
    assert vocabulary.decode([UNK_ID, EOS_ID]) == "�"
    for text in ("<unk>", "�", "\x00", ""):
        assert not {UNK_ID, EOS_ID} & set(vocabulary.encode(text).tolist())


@given(alphabets)
def test_record_round_trip(alphabet):
    vocabulary = Vocabulary(alphabet)
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)
    assert again.characters == vocabulary.characters


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"unit": "char"},
        {"unit": "char", "characters": ""},
        {"unit": "char", "characters": "ba"},
        {"unit": "char", "characters": "aa"},
        {"unit": "char", "characters": ["a", "b"]},
        {"unit": "char", "characters": None},
        {"unit": "word", "characters": "ab"},
        {"unit": "char", "characters": "ab", "more": 1},
    ],
)
def test_a_malformed_record_is_refused(record):
    with pytest.raises(ConfigError):
        Vocabulary.from_dict(record)


@pytest.mark.parametrize("characters", ["", "aa", ["ab"], ["a", ""]])
def test_only_single_distinct_characters(characters):
    with pytest.raises(ConfigError):
        Vocabulary(characters)


def test_rare_characters_are_left_out():
    counts = {"a": 5, "b": 2, "c": 1, "d": 0}
    assert Vocabulary.from_counts(counts).characters == ("a", "b", "c")
    assert Vocabulary.from_counts(counts, 2).characters == ("a", "b")
    with pytest.raises(ConfigError, match=r"^min_count must be lower: no character occurs 6 times"):
        Vocabulary.from_counts(counts, 6)


def test_unknown_characters_are_named_once_with_their_place():
    vocabulary = Vocabulary("abc")
    assert vocabulary.unknown("abcab") == []
    assert vocabulary.unknown("aéb\té") == [Unknown("é", 1, 2), Unknown("\t", 3)]
    assert str(Unknown("é", 1)) == "'é' (U+00E9) at position 2"
    twice = Unknown("é", 1, 2)
    assert str(twice) == "'é' (U+00E9) first at position 2 (×2)"
    assert twice.described("line 3") == "'é' (U+00E9) first at position 2 of line 3 (×2)"
    assert str(Unknown("\t", 3)) == "a tab (U+0009) at position 4"
    assert str(Unknown("😀", 0)) == "'😀' (U+1F600) at position 1"


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\n", "a line end (U+000A)"),
        (" ", "a space (U+0020)"),
        ("\x1b", "a control character (U+001B)"),
        ("\xa0", "a no-break space (U+00A0)"),
        ("\u3000", "an ideographic space (U+3000)"),
        ("\u0301", "a combining acute accent (U+0301)"),
        ("\ufeff", "a byte order mark (U+FEFF)"),
        ("\ue000", "a character without a name (U+E000)"),
        ("\udce9", "an undecodable byte (0xE9)"),
        ("'", '"\'" (U+0027)'),
    ],
)
def test_a_character_that_cannot_be_seen_has_a_name(character, name):
    assert name_of(character) == name


@given(st.characters())
def test_every_character_has_a_name_in_printable_characters(character):
    assert name_of(character).isprintable()


def test_the_one_rule_for_unknown_characters():
    vocabulary = Vocabulary("abc")
    unknown = (Unknown("é", 11, 2), Unknown("?", 13))

    def encode(on_unknown, text="aéb?é"):
        found = encode_known(vocabulary, text, on_unknown, what="the prompt", offset=10)
        return found._replace(ids=found.ids.tolist())

    assert encode("unk") == Encoded("aéb?é", [2, 0, 3, 0, 0], 7, 0, 5, unknown)
    assert encode("skip") == Encoded("ab", [2, 3], 2, 3, 0, unknown)
    with pytest.raises(UnknownCharacterError) as caught:
        encode("error")
    for fragment in (
        "the prompt has",
        "'é' (U+00E9) first at position 12 (×2), '?' (U+003F) at position 14;",
    ):
        assert fragment in str(caught.value)
    for on_unknown in ("unk", "skip", "error"):
        assert encode(on_unknown, "cab") == Encoded("cab", [4, 2, 3], 3, 0, 0, ())
        assert encode(on_unknown, "") == Encoded("", [], 0, 0, 0, ())
    for wrong in ("replace", None, ["unk"]):
        with pytest.raises(ConfigError, match=r"^on_unknown must be one of unk, skip, error, got "):
            encode(wrong, "cab")


def test_many_unknown_characters_are_not_all_listed():
    with pytest.raises(UnknownCharacterError) as caught:
        encode_known(Vocabulary("a"), "123456789", "error")
    assert "at position 5, …; leave them out" in str(caught.value)


def test_vocabularies_are_values():
    assert Vocabulary("abc") == Vocabulary("cba")
    assert Vocabulary("abc") != Vocabulary("abd")
    assert Vocabulary("abc") != "abc"


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (256, np.uint8),
        (257, np.uint16),
        (65536, np.uint16),
        (65537, np.uint32),
    ],
)
def test_ids_take_the_smallest_type_that_holds_them(size, dtype):
    assert id_dtype(size) is dtype
    assert np.iinfo(dtype).max >= size - 1
