"""Decoded text → codes with a mark where a document ends → a file of provisional ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.config import DocumentKind, Unit
from charrnn.normalize import BlankLines
from charrnn.vocab import MAX_CODE_POINT, Ids, code_points, id_dtype, utf8

END = MAX_CODE_POINT + 1
"""Code of the end of a document: no text can contain it."""
NEWLINE = 10
PIECE_IDS = 1 << 20

Codes = NDArray[np.uint32]

_END = np.array([END], dtype=np.uint32)


class Segmenter:
    """Turns the pieces of several inputs into codes; empty documents are left out.

    In one long text, an input begins on a line of its own.

    Args:
        documents: what a document is.
        unit: `char` for code points, `byte` for the bytes of UTF-8.
    """

    def __init__(self, documents: DocumentKind, unit: Unit) -> None:
        """Begin before the first document."""
        self._documents = documents
        self._codes = code_points if unit == "char" else _byte_codes
        self._blank_lines = BlankLines()
        self._at_start = True
        self._last = "\n"
        self._lacks_newline = False

    def feed(self, text: str, final: bool) -> Codes:
        """Take a piece of an input and return its codes; `final` says that the input ends."""
        if self._documents == "none":
            return self._codes(self._joined(text, final))
        if self._documents == "blank-line":
            blocks = [self._codes(block) for block in self._blank_lines.feed(text, final)]
            codes = np.concatenate([part for block in blocks for part in (block, _END)][:-1])
        else:
            codes = self._codes(text)
        if self._documents == "line":
            codes = np.where(codes == NEWLINE, np.uint32(END), codes)
        if final:
            codes = np.concatenate([codes, _END])
        return self._without_empty(codes)

    def _joined(self, text: str, final: bool) -> str:
        """Put a line end between two inputs of which the first lacks it."""
        if text:
            self._last = text[-1]
            text = "\n" * self._lacks_newline + text
            self._lacks_newline = False
        if final:
            self._lacks_newline = self._last != "\n"
        return text

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


class Draft:
    """A growing file of provisional ids; it is rewritten when the ids outgrow their type.

    Attributes:
        codes: code of each provisional id.
        length: ids written.
        dtype: their type in the file.
        has_blank_lines: True once one line end has followed another.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Begin an empty draft in a file opened for reading and writing."""
        self.codes: list[int] = []
        self.length = 0
        self.has_blank_lines = False
        self._last = 0
        self.dtype: type[np.unsignedinteger[Any]] = np.uint8
        self._file = file
        self._ids = np.full(END + 1, -1, dtype=np.int32)  # of every code: 4.4 MB

    def write(self, codes: Codes) -> None:
        """Append codes."""
        if not len(codes):
            return
        if not self.has_blank_lines:
            newlines = codes == NEWLINE
            twice = bool((newlines[1:] & newlines[:-1]).any())
            self.has_blank_lines = twice or (self._last == NEWLINE and bool(newlines[0]))
            self._last = int(codes[-1])
        ids = self._ids[codes]
        if ids.min() < 0:
            fresh, first = np.unique(codes[ids < 0], return_index=True)
            fresh = fresh[np.argsort(first)]
            self._ids[fresh] = np.arange(len(self.codes), len(self.codes) + len(fresh))
            self.codes += fresh.tolist()
            ids = self._ids[codes]
            self._widen(id_dtype(len(self.codes)))
        self._file.write(ids.astype(self.dtype).tobytes())
        self.length += len(ids)

    def pieces(self) -> Iterator[Ids]:
        """Yield the ids from the beginning, piece by piece."""
        self._file.seek(0)
        size = np.dtype(self.dtype).itemsize
        while raw := self._file.read(PIECE_IDS * size):
            yield np.frombuffer(raw, dtype=self.dtype)

    def find(self, code: int) -> int:
        """Return the provisional id of a code, -1 if it does not occur."""
        return int(self._ids[code])

    def _widen(self, dtype: type[np.unsignedinteger[Any]]) -> None:
        """Rewrite the file in a wider type, from its end so that nothing is overwritten unread."""
        if dtype is self.dtype:
            return
        old, new = np.dtype(self.dtype), np.dtype(dtype)
        for start in reversed(range(0, self.length, PIECE_IDS)):
            count = min(PIECE_IDS, self.length - start)
            self._file.seek(start * old.itemsize)
            piece: NDArray[Any] = np.frombuffer(self._file.read(count * old.itemsize), dtype=old)
            self._file.seek(start * new.itemsize)
            self._file.write(piece.astype(new).tobytes())
        self._file.seek(self.length * new.itemsize)
        self.dtype = dtype
