"""Decoded text → codes, with a mark where a document ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.vocab import MAX_CODE_POINT, code_points, utf8

END = MAX_CODE_POINT + 1
"""Code of the end of a document: no text can contain it."""

NEWLINE = 10
_BLANK = re.compile(r"\n[ \t]*\n\s*")

Codes = NDArray[np.uint32]


class Segmenter:
    """Turns the pieces of several inputs into codes; empty documents are left out.

    Args:
        documents: `none`, `line`, `blank-line` or `file`.
        unit: `char` for code points, `byte` for the bytes of UTF-8.
    """

    def __init__(self, documents: str, unit: str) -> None:
        """Begin before the first document."""
        self._documents = documents
        self._codes: Callable[[str], Codes] = code_points if unit == "char" else _byte_codes
        self._held = ""
        self._at_start = True

    def feed(self, text: str, final: bool) -> Codes:
        """Take a piece of an input and return its codes; `final` says that the input ends."""
        if self._documents == "none":
            return self._codes(text)
        if self._documents == "line":
            codes = self._codes(text)
            codes = np.where(codes == NEWLINE, np.uint32(END), codes)
        elif self._documents == "blank-line":
            codes = self._blank_lines(text, final)
        else:
            codes = self._codes(text)
        if final:
            codes = np.append(codes, np.uint32(END))
        return self._without_empty(codes)

    def _blank_lines(self, text: str, final: bool) -> Codes:
        text = self._held + text
        body = text.rstrip() if final else text[: len(text.rstrip())]
        self._held = "" if final else text[len(body) :]
        if self._at_start:
            body = body.lstrip("\n")
        parts: list[Codes] = []
        for part in _BLANK.split(body):
            parts += [self._codes(part), np.array([END], dtype=np.uint32)]
        return np.concatenate(parts[:-1])

    def _without_empty(self, codes: Codes) -> Codes:
        """Drop ends that follow an end: nothing is between them."""
        if not len(codes):
            return codes
        ends = codes == END
        after_end = np.concatenate([[self._at_start], ends[:-1]])
        self._at_start = bool(ends[-1])
        kept: Codes = codes[~(ends & after_end)]
        return kept


def _byte_codes(text: str) -> Codes:
    raw: NDArray[Any] = np.frombuffer(utf8(text), dtype=np.uint8)
    return raw.astype(np.uint32)
