"""What is done to a text that may come in pieces: Unicode forms, and its documents."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

FORMS: dict[str, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}

# before these characters a text may be cut: none of them combines with what stands before it
_SAFE = re.compile("[\\x00-\\x7f\\u3001\\u3002\\u4e00-\\u9fff]")


def normalize(text: str, form: str) -> str:
    """Return the text in the form `none`, `nfc` or `nfkc`."""
    return text if form == "none" else unicodedata.normalize(FORMS[form], text)


class Normalizer:
    """Normalises a text that comes in pieces; the result is that of the whole text at once."""

    def __init__(self, form: str) -> None:
        """Begin a text."""
        self._form = form
        self._held = ""

    def feed(self, piece: str, final: bool) -> str:
        """Take a piece and return what is certain now; all of it when the piece is the last."""
        if self._form == "none":
            return piece
        text = self._held + piece
        cut = len(text) if final else _last_cut(text)
        self._held = text[cut:]
        return normalize(text[:cut], self._form)


def _last_cut(text: str) -> int:
    """Return the last place where a text may be cut."""
    for end in range(len(text), 0, -256):
        found = list(_SAFE.finditer(text, max(0, end - 256), end))
        if found:
            return found[-1].start()
    return 0


_BLANK = re.compile(r"\n(?:[^\S\n]*\n)+")


class BlankLines:
    """Splits texts at their blank lines, those of nothing but white space."""

    def __init__(self) -> None:
        """Begin a text."""
        self._held = ""
        self._begun = False

    def feed(self, piece: str, final: bool) -> list[str]:
        """Take a piece and return what is certain now, split; the last part may continue.

        Args:
            piece: the next piece.
            final: the text ends with it, and another one may begin.
        """
        text = self._held + piece
        end = len(text.rstrip())
        if final:  # white space belongs to the last line, but not blank lines after it
            newline = text.find("\n", end)
            end = len(text) if newline < 0 else newline
        body, self._held = text[:end], "" if final else text[end:]
        if not self._begun:
            indented = body[body.rfind("\n", 0, len(body) - len(body.lstrip())) + 1 :]
            self._begun = bool(indented.strip())
            body = indented if self._begun else ""
        self._begun &= not final
        return _BLANK.split(body)


def split_documents(pieces: Iterable[str], documents: str) -> Iterator[str]:
    """Yield the documents of a text, none of them empty.

    Args:
        pieces: the text.
        documents: `line` or `blank-line`; anything else takes the text whole.
    """
    blank_lines = BlankLines()
    parts: list[str] = []
    for piece, final in chain(((piece, False) for piece in pieces), [("", True)]):
        if documents == "line":
            first, *others = piece.split("\n")
        elif documents == "blank-line":
            first, *others = blank_lines.feed(piece, final)
        else:
            first, others = piece, []
        parts.append(first)
        for other in [*others, ""] if final else others:
            if whole := "".join(parts):
                yield whole
            parts = [other]
