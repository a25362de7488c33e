"""A sample on its way, alone or in a batch."""

from __future__ import annotations

from charrnn.config import SamplingConfig
from charrnn.sampling.prompt import Request
from charrnn.sampling.sample import Sample, StopReason
from charrnn.sampling.writer import WatchfulWriter, Writer, is_watchful
from charrnn.vocab import Vocabulary


class Draft:
    """What belongs to one sample while it is drawn.

    Attributes:
        request: what was asked for.
        writer: its text.
        logprobs: log-probability of each id under the model, if asked for.
        sampling_logprobs: the same under the distribution that was drawn from.
    """

    def __init__(self, vocabulary: Vocabulary, request: Request, config: SamplingConfig) -> None:
        """Begin an empty one."""
        self.request = request
        watchful = is_watchful(vocabulary, config)
        self.writer = (WatchfulWriter if watchful else Writer)(vocabulary, config)
        self.logprobs: list[float] = []
        self.sampling_logprobs: list[float] = []
        self._vocabulary = vocabulary
        self._config = config

    @property
    def stop_reason(self) -> StopReason:
        """Why the text ended; `length` while it goes on, because that is all that is sure."""
        return self.writer.stop_reason or "length"

    def finish(self, text: str) -> Sample:
        """Return the sample, whose writer has given `text`."""
        asked = self._config.logprobs
        # a stop text was drawn, and is not in the text
        kept = len(self._vocabulary.encode(text)) + (self.stop_reason == "eos") if asked else 0
        return Sample(
            text=text,
            prompt=self.request.prompt,
            seed=self._config.seed,
            index=self.request.index,
            temperature=self.request.temperature,
            stop_reason=self.stop_reason,
            logprobs=tuple(self.logprobs[:kept]) if asked else None,
            sampling_logprobs=tuple(self.sampling_logprobs[:kept]) if asked else None,
        )
