"""A finished sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

StopReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text drawn from a model."""

    text: str
    """What was written, without the prompt."""
    prompt: str
    seed: int
    index: int
    """Which sample of the seed it is."""
    temperature: float
    stop_reason: StopReason
    """`eos`: the model ended it; `stop`: a stop text came; `length`: it reached the limit."""
    logprobs: tuple[float, ...] | None = None
    """If asked for: log-probability of each character under the model (temperature 1, nats), and
    last that of EOS when `stop_reason` is `eos`."""
    sampling_logprobs: tuple[float, ...] | None = None
    """The same under the distribution that was drawn from, filters and temperature applied."""

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready record; the log-probabilities only if there are any."""
        record: dict[str, Any] = {
            "text": self.text,
            "prompt": self.prompt,
            "seed": self.seed,
            "index": self.index,
            "temperature": self.temperature,
            "stop_reason": self.stop_reason,
        }
        if self.logprobs is not None and self.sampling_logprobs is not None:
            record["logprobs"] = list(self.logprobs)
            record["sampling_logprobs"] = list(self.sampling_logprobs)
        return record
