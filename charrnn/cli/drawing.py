"""The prompts of `charrnn sample`, and the samples that are drawn for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import charrnn.cli.options as options
from charrnn.config import MAX_NUM, OnUnknown, SamplingConfig
from charrnn.errors import CharRNNError, ConfigError, UnknownCharacterError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.sampling.novelty import Novelty, NoveltyIndex
    from charrnn.sampling.writer import Request, Sample, Start

PATIENCE = 200
"""Samples in a row that are dropped before `--unique` or `--new-only` gives up."""
ROUND = 64
"""Most samples drawn at once while some are dropped."""


class Prompts:
    """The prompts of a command line, each with its name in messages.

    Attributes:
        are_several: there is more than one.
        can_be_read_again: they are in memory or in an ordinary file, not in a pipe.

    Args:
        text: the prompt if there is no file of several.
        read: reads the lines of a file.
        file: with a prompt on each line, or None.

    Raises:
        ConfigError: the file is empty.
        CorpusError: it cannot be read or decoded, or a line is too long.
    """

    def __init__(self, text: str, read: options.Reading, file: Path | None) -> None:
        """Read the first two prompts: that there are none is told before a model is loaded."""
        self._file = file
        self._read = read
        self._n_empty = self._first_empty = 0
        self._rest = iter([text]) if file is None else read.lines(file)
        self._first = list(itertools.islice(self._rest, 2))
        if not self._first:
            raise ConfigError(f"{self._name} has no prompt in it: put one on each line")
        self.are_several = len(self._first) > 1
        self.can_be_read_again = file is None or (file != options.STDIN and file.is_file())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the prompts, and note those of a file that are empty."""
        lines: Iterable[str] = itertools.chain(self._first, self._rest)
        if self._file is not None and self.can_be_read_again:
            lines = self._read.lines(self._file)
        self._n_empty = self._first_empty = 0
        for number, text in enumerate(lines, 1):
            if not text and self._file is not None:
                self._n_empty += 1
                self._first_empty = self._first_empty or number
            yield text

    def tell_empty(self) -> None:
        """Say on stderr that lines are empty, for a blank line at the end is easily overlooked."""
        from charrnn.display.terminal import say

        which = f"{self.place(self._first_empty)} is empty: nothing is continued there"
        if self._n_empty > 1:
            which = f"{self._n_empty:,} prompts are empty, first {which.partition(' is empty')[0]}"
            which += ": nothing is continued there"
        if self._n_empty:
            say(which)

    @property
    def _name(self) -> str:
        return options.file_name(self._file)

    def place(self, number: int) -> str:
        """Return the name of a prompt, by its number from 1."""
        return "the prompt" if self._file is None else f"line {number:,} of {self._name}"


class Draw:
    """Draws the samples of a command: for each prompt and temperature, some of the seed."""

    def __init__(
        self,
        model: CharModel,
        config: SamplingConfig,
        temperatures: list[float],
        num: int,
        on_unknown: OnUnknown,
        device: str = "cpu",
    ) -> None:
        """Draw nothing yet."""
        self._device = device
        self._model = model
        self._config = config
        self._temperatures = temperatures
        self._num = num
        self._on_unknown = on_unknown

    def start(
        self,
        text: str,
        place: str,
        after: Start | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Start:
        """Read a text; `place` is its name in messages. See `CharModel.start`.

        Raises:
            UnknownCharacterError: it has unknown characters, and they are refused.
        """
        how = self._on_unknown
        with _refused(self._model, text, place):
            return self._model.start(
                text,
                after=after,
                on_unknown=how,
                precision=self._config.precision,
                progress=progress,
            )

    def check(self, given: Prompts) -> None:
        """See that all prompts can be read before anything is written.

        Raises:
            UnknownCharacterError: one has unknown characters, and they are refused.
        """
        for number, text in enumerate(given, 1):
            with _refused(self._model, text, given.place(number)):
                self._model.encode_prompt(text, self._on_unknown)

    def requests(self, given: Prompts) -> Iterator[Request]:
        """Yield what is to be drawn if nothing is dropped; each prompt is read when it is due."""
        for first, request in self._groups(given):
            yield from (request(first + k) for k in range(self._num))

    def samples(
        self, given: Prompts, index: NoveltyIndex | None, *, new_only: bool, unique: bool
    ) -> Iterator[tuple[Sample, Novelty | None]]:
        """Yield the samples, each with what is copied in it.

        Args:
            given: the prompts.
            index: of the text to look for copies in, or None.
            new_only: drop samples with anything copied, and draw others in their place.
            unique: drop samples that were there before.

        Raises:
            UnknownCharacterError: a prompt from a pipe has unknown characters, and they are
                refused; the samples of those before it are drawn first.
            CharRNNError: too many samples are dropped to find as many as were asked for.
        """
        if not (new_only or unique):
            errors: list[CharRNNError] = []
            requests = _until_error(self.requests(given), errors)
            for sample in self._drawn(requests):
                yield sample, None if index is None else index.check(sample.text, sample.prompt)
            if errors:
                raise errors[0]
            return
        seen: set[int] = set()
        n_written = n_wanted = 0
        for first, request in self._groups(given):
            n_kept = n_dropped = 0
            n_wanted += self._num
            for sample in self._endless(first, request):
                novelty = None if index is None else index.check(sample.text, sample.prompt)
                is_copied = novelty is not None and bool(novelty.spans)
                written = hash(sample.prompt + sample.text)
                if (new_only and is_copied) or (unique and written in seen):
                    n_dropped += 1
                else:
                    seen.update([written] if unique else [])
                    n_kept, n_dropped = n_kept + 1, 0
                    yield sample, novelty
                if n_kept == self._num or n_dropped == PATIENCE:
                    break
            n_written += n_kept
        if n_written < n_wanted:
            what = [name for name, is_on in (("copied", new_only), ("repeated", unique)) if is_on]
            raise CharRNNError(
                f"{n_written:,} of {n_wanted:,} samples written: for the others, {PATIENCE} drawn "
                f"in a row were all {' or '.join(what)}; try a higher --temp or a smaller --num"
            )

    def _groups(self, given: Prompts) -> Iterator[tuple[int, Callable[[int], Request]]]:
        """Yield for each prompt and temperature the first index, and what makes the requests."""
        from charrnn.display.sample import prompt_progress
        from charrnn.sampling.writer import Request

        for number, text in enumerate(given):
            with prompt_progress(len(text)) as progress:
                start = self.start(text, given.place(number + 1), progress=progress)
            for temperature in self._temperatures:
                # each prompt has numbers of its own, whatever --num is
                yield number * MAX_NUM, partial(Request, start, text, temperature)

    def _drawn(self, requests: Iterable[Request]) -> Iterator[Sample]:
        return self._model.sample_requests(requests, self._config, device=self._device)

    def _endless(self, first: int, request: Callable[[int], Request]) -> Iterator[Sample]:
        """Yield one sample after another; each is the same in rounds of any size."""
        size = min(self._num, ROUND)
        while True:
            some = [request(k) for k in range(first, first + size)]
            yield from self._drawn(some)
            first, size = first + size, min(2 * size, ROUND)


def _until_error(requests: Iterable[Request], errors: list[CharRNNError]) -> Iterator[Request]:
    """Yield requests up to one that cannot be made, and put its error into the list."""
    try:
        yield from requests
    except CharRNNError as error:
        errors.append(error)


@contextmanager
def _refused(model: CharModel, text: str, place: str) -> Iterator[None]:
    """Let an error about unknown characters say where they are and which option allows them.

    Args:
        model: which does not know them.
        text: what is read.
        place: its name in the message.

    Raises:
        UnknownCharacterError: the text has unknown characters, and they are refused.
    """
    try:
        yield
    except UnknownCharacterError as error:
        characters, hint = unknown_in(model, text)
        raise UnknownCharacterError(
            f"{place} has characters the model has never seen: {characters}; leave them out, or "
            f"set --on-unknown to unk or skip{hint}"
        ) from error


def unknown_in(model: CharModel, text: str) -> tuple[str, str]:
    """Name the characters of a text that the model does not know, and say why that may be."""
    from charrnn.display.score import unknown_hint
    from charrnn.normalize import normalize
    from charrnn.vocab import list_unknown

    vocabulary = model.saved.vocabulary
    unknown = vocabulary.unknown(normalize(text, model.saved.text.normalize))
    return list_unknown(unknown), unknown_hint((one.character for one in unknown), vocabulary)
