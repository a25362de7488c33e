"""The map between characters and ids.

Id 0 is UNK, id 1 is EOS, then come the characters by code point. UNK and EOS are ids only:
no text can spell them, so no text can forge them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import ConfigError

UNK_ID = 0
EOS_ID = 1
FIRST_CHARACTER_ID = 2
MAX_CODE_POINT = 0x10FFFF

Ids = NDArray[np.unsignedinteger[Any]]


class Unknown(NamedTuple):
    """One character of a text that the vocabulary lacks."""

    character: str
    position: int
    """Characters before it in the text."""

    def __str__(self) -> str:
        """Name the character so that it can be found even when it cannot be seen."""
        shown = repr(self.character) if self.character.isprintable() else "a character"
        return f"{shown} (U+{ord(self.character):04X}) at position {self.position}"


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
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1) -> Vocabulary:
        """Keep the characters that occur at least `min_count` times."""
        kept = [c for c, n in counts.items() if n >= max(1, min_count)]
        if not kept:
            raise ConfigError(
                f"no character occurs {min_count} times in the training text: lower the min count"
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
        """Say how many characters there are."""
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

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that a sequence of character ids spells.

        UNK is written as U+FFFD and EOS as nothing; sampling produces neither.
        """
        strings = self.strings
        return "".join(strings[i] for i in ids)

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """What each id writes: U+FFFD for UNK, nothing for EOS, then the characters."""
        return ("�", "", *self.characters)

    def unknown(self, text: str) -> list[Unknown]:
        """Return the first occurrence of every character of `text` that has no id."""
        known = set(self.characters)
        seen: dict[str, int] = {}
        if not known.issuperset(text):
            for position, character in enumerate(text):
                if character not in known:
                    seen.setdefault(character, position)
        return [Unknown(c, p) for c, p in seen.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record."""
        return {"unit": "char", "characters": "".join(self.characters)}

    @classmethod
    def from_dict(cls, record: Any) -> Vocabulary:
        """Rebuild from `to_dict`.

        Raises:
            ConfigError: the record is malformed.
        """
        if not isinstance(record, dict) or set(record) != {"unit", "characters"}:
            raise ConfigError("the vocabulary record must have exactly unit and characters")
        if record["unit"] != "char":
            raise ConfigError(f"the vocabulary's unit {record['unit']!r} is not known here")
        characters = record["characters"]
        if not isinstance(characters, str) or list(characters) != sorted(set(characters)):
            raise ConfigError("the vocabulary's characters are not sorted and distinct")
        return cls(characters)


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points `[len(text)]` of a text, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def id_dtype(size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned integer type for ids below `size`."""
    return np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32
