"""How much of a text is copied from another, character for character.

All substrings of one length are compared by polynomial hashes in vector operations, block by block
over the corpus, and every hit is checked against the text itself. Memory is linear in the sample
and constant in the corpus beyond its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.vocab import code_points

RUN = 30
"""Characters of the shortest run that counts as copied; shorter ones are everybody's phrases."""

BLOCK = 1 << 19
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_BUCKET_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """What of a text stands in the corpus."""

    n_chars: int
    longest: str
    """The longest run of the text that stands in the corpus."""
    spans: tuple[tuple[int, int], ...]
    """Begin and end of each stretch that lies inside copied runs of at least `RUN` characters."""

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
    low, high = 0, len(text)
    longest = 0
    while low < high:  # if a run of some length is copied, so is one of every smaller length
        middle = (low + high + 1) // 2
        found = _matches(text, corpus, middle, first_only=True)
        if found:
            low, longest = middle, found[0]
        else:
            high = middle - 1
    spans: list[tuple[int, int]] = []
    for begin in _matches(text, corpus, RUN) if low >= RUN else []:
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], begin + RUN)
        else:
            spans.append((begin, begin + RUN))
    return Novelty(n_chars=len(text), longest=text[longest : longest + low], spans=tuple(spans))


def _matches(text: str, corpus: str, length: int, *, first_only: bool = False) -> list[int]:
    """Return, in order, where substrings of `length` begin in `text` that stand in `corpus`."""
    wanted = {text[i : i + length] for i in range(len(text) - length + 1)}
    hashes = np.unique(_hashes(code_points(text), length))
    buckets = np.zeros(1 << _BUCKET_BITS, dtype=bool)
    shift = np.uint64(64 - _BUCKET_BITS)
    buckets[hashes >> shift] = True
    found: set[str] = set()
    for offset, codes in _blocks(corpus, length):
        here = _hashes(codes, length)
        near = np.flatnonzero(buckets[here >> shift])
        for i in near[np.isin(here[near], hashes)].tolist():
            run = corpus[offset + i : offset + i + length]
            if run in wanted:
                found.add(run)
        if found and first_only:
            break
    return [i for i in range(len(text) - length + 1) if text[i : i + length] in found]


def _blocks(corpus: str, length: int) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """Yield overlapping blocks, so that every substring of `length` lies whole in one."""
    for offset in range(0, max(1, len(corpus) - length + 1), BLOCK):
        yield offset, code_points(corpus[offset : offset + BLOCK + length - 1])


def _hashes(codes: NDArray[np.uint32], length: int) -> NDArray[np.uint64]:
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
