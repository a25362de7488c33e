"""Unicode normalisation, of whole texts and of texts that come in pieces."""

from __future__ import annotations

import re
import unicodedata
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
