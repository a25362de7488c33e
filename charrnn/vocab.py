"""The map between characters and ids.

Id 0 is UNK, id 1 is EOS, then come the characters by code point. UNK and EOS are ids only:
no text can spell them, so no text can forge them.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from charrnn.config import OnUnknown, Unit, shown
from charrnn.errors import ConfigError, UnknownCharacterError

UNK_ID = 0
EOS_ID = 1
FIRST_CHARACTER_ID = 2
MAX_CODE_POINT = 0x10FFFF
BYTES = "".join(map(chr, range(256)))
NAMED = 5
"""Unknown characters that are named in a message."""

_NAMES = {
    "\n": "a line end",
    "\r": "a carriage return",
    "\t": "a tab",
    "\0": "a null character",
    "\ufeff": "a byte order mark",
}
"""Of characters that Unicode gives no name, or an older one."""

Ids = NDArray[np.unsignedinteger[Any]]


class Unknown(NamedTuple):
    """A character of a text that the vocabulary lacks."""

    character: str
    position: int
    """Characters of the text before its first occurrence."""
    times: int = 1
    """How often it occurs."""

    def __str__(self) -> str:
        """Name the character and its place."""
        return self.described()

    def described(self, text: str = "") -> str:
        """Name the character and its place, counted from 1 as lines are.

        Args:
            text: the name of the text that it first occurs in.
        """
        first, again = (" first", f" (×{self.times:,})") if self.times > 1 else ("", "")
        where = f" of {text}" if text else ""
        return f"{name_of(self.character)}{first} at position {self.position + 1:,}{where}{again}"


class Vocabulary:
    """An immutable set of characters with their ids.

    Args:
        characters: distinct characters, in any order.

    Raises:
        ConfigError: no character, or one given twice.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        """Sort the characters by code point and number them."""
        given = list(characters)
        self.characters = tuple(sorted(set(given)))
        if not self.characters:
            raise ConfigError("a vocabulary needs at least one character")
        if len(given) != len(self.characters) or any(len(c) != 1 for c in self.characters):
            raise ConfigError("a vocabulary is a set of single, distinct characters")

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, int], min_count: int = 1, known: Iterable[str] = ()
    ) -> Vocabulary:
        """Keep the characters that occur at least `min_count` times, and those known before."""
        kept = {c for c, n in counts.items() if n >= max(1, min_count)}.union(known)
        if not kept:
            raise ConfigError(
                f"must be lower: no character occurs {min_count} times in the training text",
                field="min_count",
            )
        return cls(kept)

    def __len__(self) -> int:
        """Return the number of ids, UNK and EOS included."""
        return len(self.characters) + FIRST_CHARACTER_ID

    def __eq__(self, other: object) -> bool:
        """Equal when the characters are."""
        return isinstance(other, Vocabulary) and self.characters == other.characters

    def __hash__(self) -> int:
        """Hash of the characters."""
        return hash(self.characters)

    def __repr__(self) -> str:
        """Show the number of characters."""
        return f"Vocabulary({len(self.characters)} characters)"

    @property
    def id_dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every id."""
        return id_dtype(len(self))

    @cached_property
    def _table(self) -> Ids:
        """Id of every code point up to the largest known one; one more entry for the rest."""
        codes = np.array([ord(c) for c in self.characters], dtype=np.int64)
        table = np.full(int(codes[-1]) + 2, UNK_ID, dtype=self.id_dtype)
        table[codes] = np.arange(FIRST_CHARACTER_ID, len(self))
        return table

    def encode(self, text: str) -> Ids:
        """Return the ids `[len(text)]` of a text; unknown characters become `UNK_ID`."""
        codes = code_points(text)
        table = self._table
        return table[np.minimum(codes, len(table) - 1)]

    def ids_of(self, codes: NDArray[np.unsignedinteger[Any]], end: int) -> Ids:
        """Return the ids of code points, in a byte model of bytes; `end` stands for EOS."""
        table = self._table
        ids: Ids = table[np.minimum(codes, len(table) - 1)]
        ids[codes == end] = EOS_ID
        return ids

    @property
    def unit(self) -> Unit:
        """What one id stands for."""
        return "char"

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that a sequence of ids spells.

        UNK is written as U+FFFD and EOS as nothing; sampling produces neither.
        """
        decoder = self.decoder()
        return "".join([decoder.feed(i) for i in ids]) + decoder.rest()

    def decoder(self) -> Decoder:
        """Return a decoder that turns ids into text one by one."""
        return Decoder(self.strings)

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """What each id writes: U+FFFD for UNK, nothing for EOS, then the characters."""
        return ("�", "", *self.characters)

    def unknown(self, text: str) -> list[Unknown]:
        """Return every character of `text` that has no id, in the order of first occurrence."""
        known = set(self.characters)
        counts = Counter(c for c in text if c not in known)
        return [Unknown(c, text.index(c), n) for c, n in counts.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record."""
        return {"unit": self.unit, "characters": "".join(self.characters)}

    @classmethod
    def from_dict(cls, record: Any) -> Vocabulary:
        """Rebuild from `to_dict`.

        Raises:
            ConfigError: the record is malformed.
        """
        if not isinstance(record, dict) or set(record) != {"unit", "characters"}:
            raise ConfigError("the vocabulary record must have exactly unit and characters")
        unit, characters = record["unit"], record["characters"]
        if unit == "byte" and characters == BYTES:
            return ByteVocabulary()
        if unit != "char":
            raise ConfigError(f"the vocabulary's unit {shown(unit)} is not known here")
        if not isinstance(characters, str) or list(characters) != sorted(set(characters)):
            raise ConfigError("the vocabulary's characters are not sorted and distinct")
        return cls(characters)


class ByteVocabulary(Vocabulary):
    """The 256 bytes of UTF-8 as an alphabet: nothing is ever unknown.

    A byte is written as the character of the same number in `characters`.
    """

    def __init__(self) -> None:
        """Take all bytes."""
        super().__init__(BYTES)

    @property
    def unit(self) -> Unit:
        """What one id stands for."""
        return "byte"

    def encode(self, text: str) -> Ids:
        """Return the ids of the UTF-8 bytes of a text, which may be more than its characters.

        Characters that stand for undecodable bytes (PEP 383) become those bytes again.
        """
        raw = np.frombuffer(utf8(text), dtype=np.uint8)
        ids: Ids = raw.astype(self.id_dtype) + self.id_dtype(FIRST_CHARACTER_ID)
        return ids

    def unknown(self, text: str) -> list[Unknown]:
        """Return nothing: every text has bytes."""
        return []

    def decoder(self) -> Decoder:
        """Return a decoder that gives out whole characters only."""
        return ByteDecoder(self.strings)


class Encoded(NamedTuple):
    """A text in ids, and what must be counted about it."""

    text: str
    """The text, less the characters left out."""
    ids: Ids
    n_bytes: int
    """Size of `text` in UTF-8."""
    n_skipped: int
    """Unknown characters left out."""
    n_unknown_bytes: int
    """Size in UTF-8 of the unknown characters that became UNK."""
    unknown: tuple[Unknown, ...]
    """Each unknown character, left out or not."""


def encode_known(
    vocabulary: Vocabulary,
    text: str,
    on_unknown: OnUnknown = "unk",
    *,
    what: str = "the text",
    offset: int = 0,
) -> Encoded:
    """Return a text in ids, by the one rule for characters that the model has never seen.

    Args:
        vocabulary: the model's.
        text: normalised as the training text was.
        on_unknown: `unk` reads them as UNK, `skip` leaves them out, `error` refuses them.
        what: the text's name in a message.
        offset: characters before the text, for the positions in messages.

    Raises:
        ConfigError: `on_unknown` is none of these.
        UnknownCharacterError: there are unknown characters, and they are refused.
    """
    if on_unknown not in get_args(OnUnknown):
        choices = ", ".join(get_args(OnUnknown))
        raise ConfigError(f"must be one of {choices}, got {shown(on_unknown)}", field="on_unknown")
    ids = vocabulary.encode(text)
    n_bytes = len(utf8(text))
    is_unknown = ids == UNK_ID
    if not is_unknown.any():
        return Encoded(text, ids, n_bytes, 0, 0, ())
    unknown = tuple(
        one._replace(position=one.position + offset) for one in vocabulary.unknown(text)
    )
    if on_unknown == "error":
        raise UnknownCharacterError(
            f"{what} has characters the model has never seen: {list_unknown(unknown)}; leave them "
            "out, or set on_unknown to unk or skip"
        )
    strange = {one.character for one in unknown}
    n_unknown_bytes = sum(len(utf8(c)) for c in text if c in strange)
    if on_unknown == "unk":
        return Encoded(text, ids, n_bytes, 0, n_unknown_bytes, unknown)
    kept = "".join(c for c in text if c not in strange)
    return Encoded(
        kept, ids[~is_unknown], n_bytes - n_unknown_bytes, len(text) - len(kept), 0, unknown
    )


def name_of(character: str) -> str:
    """Name a character so that it can be found even when it cannot be seen: `a tab (U+0009)`."""
    code = f"U+{ord(character):04X}"
    if "\udc80" <= character <= "\udcff":  # a byte that was not UTF-8 (PEP 383)
        return f"an undecodable byte (0x{ord(character) - 0xDC00:02X})"
    stands_alone = character.isprintable() and not unicodedata.category(character).startswith("M")
    if stands_alone and character != " ":
        return f"{character!r} ({code})"
    name = _NAMES.get(character)
    if name is None:
        is_control = unicodedata.category(character) == "Cc"
        nameless = "control character" if is_control else "character without a name"
        known = unicodedata.name(character, nameless).lower()
        name = f"{'an' if known[0] in 'aeiou' else 'a'} {known}"
    return f"{name} ({code})"


def list_unknown(unknown: Sequence[Unknown], texts: Mapping[str, str] | None = None) -> str:
    """Name the first few of some unknown characters.

    Args:
        unknown: which.
        texts: by character, the name of the text that its position is in, if there are several.
    """
    named = [one.described((texts or {}).get(one.character, "")) for one in unknown[:NAMED]]
    return ", ".join(named) + ", …" * (len(unknown) > NAMED)


class Decoder:
    """Turns ids into text, one at a time.

    Attributes:
        pending: True while the ids so far end inside a character.
    """

    def __init__(self, strings: tuple[str, ...]) -> None:
        """Begin at the start of a text."""
        self._strings = strings
        self.pending = False

    def feed(self, chosen: int) -> str:
        """Take an id and return the text that it completes, perhaps none."""
        return self._strings[chosen]

    def banned(self) -> list[int]:
        """Return the ids that would break a character off."""
        return []

    def rest(self) -> str:
        """Return what is left at the end of the text."""
        return ""


class ByteDecoder(Decoder):
    """Decodes UTF-8 byte by byte, and knows which bytes may follow (RFC 3629)."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        """Begin at the start of a text."""
        super().__init__(strings)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._open: list[int] = []

    def feed(self, chosen: int) -> str:
        """Take an id and return the character that it completes, if it does."""
        if chosen == EOS_ID:
            return ""
        if chosen == UNK_ID:
            self._open = []
            self.pending = False
            return self._decode(b"", True) + "\ufffd"
        byte = chosen - FIRST_CHARACTER_ID
        text = self._decode(bytes([byte]))
        self._open = [] if text else [*self._open, byte]
        self.pending = bool(self._open)
        return text

    def banned(self) -> list[int]:
        """Return the ids that would break a character off, or begin an impossible one."""
        return _BANNED[_utf8_state(self._open)]

    def rest(self) -> str:
        """Return U+FFFD for a character that was begun and not ended."""
        return self._decode(b"", True)


def _utf8_state(open_bytes: list[int]) -> tuple[int, int]:
    """Return the least and the largest byte that may follow; (0, 0) between characters."""
    if not open_bytes:
        return (0, 0)
    if len(open_bytes) == 1:
        first = open_bytes[0]
        return {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(
            first, (0x80, 0xBF)
        )
    return (0x80, 0xBF)


def _banned_ids(low: int, high: int) -> list[int]:
    if low == 0:  # a character begins: no continuation byte, no byte that UTF-8 never uses
        allowed = {*range(0x80), *range(0xC2, 0xF5)}
        return [b + FIRST_CHARACTER_ID for b in range(256) if b not in allowed]
    return [EOS_ID] + [b + FIRST_CHARACTER_ID for b in range(256) if not low <= b <= high]


_BANNED = {
    state: _banned_ids(*state)
    for state in ((0, 0), (0x80, 0xBF), (0xA0, 0xBF), (0x80, 0x9F), (0x90, 0xBF), (0x80, 0x8F))
}


def is_utf8(filled: bytes | bytearray) -> bool:
    """Return whether bytes are whole characters."""
    try:
        filled.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


FOLLOWERS = {
    byte: n
    for n, low, high in ((1, 0xC2, 0xE0), (2, 0xE0, 0xF0), (3, 0xF0, 0xF5))
    for byte in range(low, high)
}
"""How many bytes follow the first one of a character of several."""


def may_follow(written: bytes, room: int) -> NDArray[np.bool_]:
    """Return which ids of a `ByteVocabulary` may follow, `[V]`, so that whole characters are left.

    Args:
        written: what stands before, from the beginning of a character.
        room: bytes that may follow the next one.
    """
    open_bytes: list[int] = []
    for byte in written:
        open_bytes = [*open_bytes, byte] if open_bytes else [byte]
        if len(open_bytes) > FOLLOWERS.get(open_bytes[0], 0):
            open_bytes = []
    allowed = np.ones(FIRST_CHARACTER_ID + len(BYTES), np.bool_)
    allowed[[UNK_ID, EOS_ID, *_BANNED[_utf8_state(open_bytes)]]] = False
    if open_bytes:
        allowed &= FOLLOWERS[open_bytes[0]] - len(open_bytes) <= room
    else:
        for byte, needed in FOLLOWERS.items():
            allowed[FIRST_CHARACTER_ID + byte] &= needed <= room
    return allowed


def utf8(text: str) -> bytes:
    """Return the UTF-8 bytes of any text, lone surrogates and undecodable bytes included."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points `[len(text)]` of a text, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def id_dtype(size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned integer type for ids below `size`."""
    return np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32
