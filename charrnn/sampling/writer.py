"""What one stream has written: ids become text, and the text says when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from charrnn.config import SamplingConfig
from charrnn.sampling.limits import NoRepeat, StopTexts
from charrnn.sampling.sample import StopReason
from charrnn.vocab import EOS_ID, Vocabulary


class Writer:
    """Turns the ids of one sample into text, until EOS or the length.

    Attributes:
        written: whole characters so far.
        stop_reason: why the text ended; None while it goes on.
    """

    def __init__(self, vocabulary: Vocabulary, config: SamplingConfig) -> None:
        """Begin an empty text."""
        self.written = 0
        self.stop_reason: StopReason | None = None
        self._strings = vocabulary.strings
        self._length = config.length

    def add(self, chosen: int) -> str:
        """Take the next id; return the text that it makes certain."""
        if chosen == EOS_ID:
            self.stop_reason = "eos"
            return ""
        self.written += 1
        if self.written == self._length:
            self.stop_reason = "length"
        return self._strings[chosen]

    def impossible(self) -> Sequence[int]:
        """Return the ids that cannot come next in any text."""
        return ()

    def repeated(self) -> Sequence[int]:
        """Return the ids that would repeat what the text must not repeat."""
        return ()


class WatchfulWriter(Writer):
    """A writer that looks at every id: bytes of characters, stop texts, N-grams not to repeat."""

    def __init__(self, vocabulary: Vocabulary, config: SamplingConfig) -> None:
        """Begin an empty text."""
        super().__init__(vocabulary, config)
        self._decoder = vocabulary.decoder()
        self._stops = StopTexts(config.stop)
        self._no_repeat = NoRepeat(config.no_repeat) if config.no_repeat else None

    def add(self, chosen: int) -> str:
        """Take the next id; return the text that it makes certain."""
        if chosen == EOS_ID:
            self.stop_reason = "eos"
            return self._stops.rest()
        if self._no_repeat is not None:
            self._no_repeat.add(chosen)
        text = self._decoder.feed(chosen)
        if not text:  # an id may be a part of a character
            return ""
        self.written += 1
        ready, found = self._stops.feed(text)
        if found:
            self.stop_reason = "stop"
        elif self.written == self._length:
            self.stop_reason = "length"
            return ready + self._stops.rest()
        return ready

    def impossible(self) -> Sequence[int]:
        """Return the ids that would break a character off."""
        return self._decoder.banned()

    def repeated(self) -> Sequence[int]:
        """Return the ids that would repeat an N-gram; none while a character is incomplete."""
        if self._no_repeat is None or self._decoder.pending:
            return ()
        return self._no_repeat.banned()


def is_watchful(vocabulary: Vocabulary, config: SamplingConfig) -> bool:
    """Return whether anything but EOS and the length depends on what has been written."""
    return bool(config.stop or config.no_repeat) or vocabulary.unit == "byte"
