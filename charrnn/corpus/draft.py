"""Codes in a file under provisional ids, numbered as the characters appear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.corpus.segment import END, NEWLINE, Codes
from charrnn.vocab import Ids, id_dtype

PIECE_IDS = 1 << 20


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
        # one entry for each code there is: 4.4 MB
        self._ids = np.full(END + 1, -1, dtype=np.int32)

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
