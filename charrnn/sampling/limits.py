"""Where a sample ends, and what it must not repeat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


class StopTexts:
    """Holds back the end of a text while it may be the beginning of a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for any of `stops`."""
        self._stops = tuple(stop for stop in stops if stop)
        self._beginnings = frozenset(stop[0] for stop in self._stops)
        self._held = ""

    def feed(self, character: str) -> tuple[str, bool]:
        """Take one character; return what may be written now, and whether a stop text is whole.

        The stop text itself is never written.
        """
        if not self._held and character not in self._beginnings:
            return character, False
        self._held += character
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            ready, self._held = self._held[: min(found)], ""
            return ready, True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready, False

    def rest(self) -> str:
        """Return what is still held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        """Return the length of the longest end of the held text that begins `stop`."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0


class NoRepeat:
    """Remembers every N-gram of an output, to forbid writing it again."""

    def __init__(self, n: int) -> None:
        """Watch N-grams of `n` characters."""
        self._context = n - 1
        self._ids: list[int] = []
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)

    def banned(self) -> list[int]:
        """Return the ids that would complete an N-gram that has been written before."""
        return self._followers.get(self._key(), [])

    def add(self, chosen: int) -> None:
        """Take the next id of the output."""
        if len(self._ids) >= self._context:
            self._followers[self._key()].append(chosen)
        self._ids.append(chosen)

    def _key(self) -> tuple[int, ...]:
        return tuple(self._ids[len(self._ids) - self._context :])
