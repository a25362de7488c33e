"""How much of a text is copied from another, character for character.

All substrings of one length are compared by polynomial hashes in vector operations, block by block
over the corpus, and every hit is checked against the text itself. Memory is linear in the sample
and constant in the corpus beyond its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from charrnn.config import DocumentKind
from charrnn.normalize import split_documents
from charrnn.vocab import code_points

RUN = 30
"""Characters of the shortest run that counts as copied; shorter ones are everybody's phrases."""

BLOCK = 1 << 17
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_BUCKET_BITS = 16, 24
"""Fewest and most; there are about eight buckets for each place of the text."""

Codes = NDArray[np.uint32]
Places = NDArray[np.int64]
Stretch = tuple[int, int]
"""Begin and end."""


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """What of a text stands in the corpus."""

    n_chars: int
    longest: str
    """The longest run of the text that stands in the corpus."""
    spans: tuple[Stretch, ...]
    """Begin and end of each stretch that lies inside copied runs of at least `RUN` characters; of
    the whole text if it is a document of the corpus."""
    is_whole_document: bool = False

    @property
    def n_copied(self) -> int:
        """Characters inside copied runs."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def copied_share(self) -> float:
        """Share of the characters inside copied runs; 0 for an empty text."""
        return self.n_copied / self.n_chars if self.n_chars else 0.0


def check_novelty(text: str, corpus: str) -> Novelty:
    """Compare a text with a corpus."""
    return NoveltyIndex([corpus]).check(text)


class NoveltyIndex:
    """A corpus that texts are compared with.

    Args:
        pieces: its text, in the Unicode form of the model.
        documents: what a document is; a text that is one is copied, however short.
    """

    def __init__(self, pieces: Iterable[str], *, documents: DocumentKind = "none") -> None:
        """Read the corpus."""
        several = list(pieces)
        self._corpus = "".join(several)
        whole = () if documents == "none" else split_documents(several, documents)
        self._documents = np.unique(np.fromiter(map(hash, whole), np.int64))

    def check(self, text: str, prompt: str = "") -> Novelty:
        """Compare a text with the corpus.

        Args:
            text: what was written.
            prompt: what the text continues; together they may be a document.
        """
        is_document = bool(np.isin(hash(prompt + text), self._documents))
        begins, stretches = self._copied(code_points(text))
        longest = self._longest(text, begins, stretches)
        spans: list[Stretch] = []
        for begin in begins.tolist():
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], begin + RUN)
            else:
                spans.append((begin, begin + RUN))
        return Novelty(
            n_chars=len(text),
            longest=longest,
            spans=((0, len(text)),) if is_document else tuple(spans),
            is_whole_document=is_document,
        )

    def _copied(self, codes: Codes) -> tuple[Places, list[Stretch]]:
        """Return where copied runs of `RUN` begin in a text, and in the corpus as stretches."""
        if min(len(codes), len(self._corpus)) < RUN:
            return np.empty(0, np.int64), []
        hashes = _hashes(codes, RUN)
        is_found = np.zeros(len(hashes), bool)
        wanted, runs = _Wanted(hashes), sliding_window_view(codes, RUN)
        stretches: list[Stretch] = []
        for offset, block in self._blocks(RUN, [(0, len(self._corpus) - RUN + 1)]):
            near, places = wanted.find(_hashes(block, RUN))
            is_same = (sliding_window_view(block, RUN)[near] == runs[places]).all(axis=1)
            is_found[places[is_same]] = True
            here = (near[is_same] + offset).tolist()
            breaks = np.flatnonzero(np.diff(here) > 1).tolist()
            for first, last in zip([-1, *breaks], [*breaks, -1], strict=True) if here else ():
                begin, end = here[first + 1], here[last] + 1
                if stretches and stretches[-1][1] == begin:
                    begin = stretches.pop()[0]
                stretches.append((begin, end))
        return np.flatnonzero(np.isin(hashes, hashes[is_found])), stretches

    def _longest(self, text: str, begins: Places, stretches: list[Stretch]) -> str:
        """Return the longest run of a text that stands in the corpus.

        Args:
            text: what to look for.
            begins: where runs of `RUN` that do begin in it.
            stretches: where they begin in the corpus.
        """
        low, high, found = 0, min(len(text), len(self._corpus), RUN - 1), ""
        if stretches:
            # a longer run is one of runs of RUN that follow one another, and mostly all that do
            low, found = RUN, text[begins[0] : begins[0] + RUN]
            high = max(end - begin for begin, end in stretches) + RUN - 1
            high = min(high, len(text))
        else:
            stretches = [(0, len(self._corpus))]
        codes, length = code_points(text), high
        while low < high:  # if a run of some length is copied, so is one of every smaller length
            run = self._find(text, codes, length, stretches)
            if run:
                low, found = length, run
            else:
                high = length - 1
            length = (low + high + 1) // 2
        return found

    def _find(self, text: str, codes: Codes, length: int, stretches: Sequence[Stretch]) -> str:
        """Return a run of `length` that stands in the corpus and begins in a stretch, or none."""
        wanted = _Wanted(_hashes(codes, length))
        for offset, block in self._blocks(length, stretches):
            near, places = wanted.find(_hashes(block, length))
            for begin, place in zip(near.tolist(), places.tolist(), strict=True):
                run = text[place : place + length]
                if self._corpus.startswith(run, offset + begin):
                    return run
        return ""

    def _blocks(self, length: int, stretches: Sequence[Stretch]) -> Iterator[tuple[int, Codes]]:
        """Yield blocks of the corpus in which each run of `length` that may begin there is whole.

        Where a run begins, all the shorter ones in it do, so short stretches are left out.
        """
        least = max(length - RUN + 1, 1)
        for begin, end in stretches:
            if end - begin < least:
                continue
            for offset in range(begin, min(end, len(self._corpus) - length + 1), BLOCK):
                last = min(offset + BLOCK, end) + length - 1
                yield offset, code_points(self._corpus[offset:last])


class _Wanted:
    """Hashes to look for, and where in the text each is."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._hashes, self._places = np.unique(hashes, return_index=True)
        bits = min(max(len(hashes).bit_length() + 3, _BUCKET_BITS[0]), _BUCKET_BITS[1])
        self._shift = np.uint64(64 - bits)
        self._buckets = np.zeros(1 << bits, dtype=bool)
        self._buckets[self._hashes >> self._shift] = True

    def find(self, hashes: NDArray[np.uint64]) -> tuple[Places, Places]:
        """Return which of some hashes are wanted, and the places of those in the text."""
        near = np.flatnonzero(self._buckets[hashes >> self._shift])
        if not len(near):
            return near, near
        at = np.minimum(np.searchsorted(self._hashes, hashes[near]), len(self._hashes) - 1)
        is_wanted = self._hashes[at] == hashes[near]
        return near[is_wanted], self._places[at[is_wanted]]


def _hashes(codes: Codes, length: int) -> NDArray[np.uint64]:
    """Return the hash of every substring of `length`: sum of code · base^k, modulo 2^64.

    The prefix sums use base^i; multiplying a difference by base^-i makes it the same at any place.
    """
    n = len(codes)
    if n < length:
        return np.empty(0, dtype=np.uint64)
    powers = np.cumprod(np.full(n, _BASE, dtype=np.uint64), dtype=np.uint64)
    prefix = np.zeros(n + 1, dtype=np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers, out=prefix[1:])
    back = np.cumprod(np.full(n - length + 1, _BASE_INVERSE, dtype=np.uint64), dtype=np.uint64)
    hashes: NDArray[np.uint64] = (prefix[length:] - prefix[: n - length + 1]) * back
    return hashes
