"""Dynamic evaluation: a model that learns from the text it has just scored.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic Evaluation of Neural Sequence Models". A window of
text is scored first, then its gradient changes the weights for the next windows. Every character
is predicted from text before it only, so the figure is as honest as the static one.

With gradient g of the window's mean loss and v, the mean of g² over the windows so far,

    θ ← θ - step · g / (√v + ε)      θ ← θ + decay · (θ_trained - θ)

The paper takes v from the training data, which a model file does not hold; the mean over the text
itself is as good after some dozen windows. Embedding and output, which hold what is particular to
characters, follow the text faster than the recurrent weights between them. Each member of an
ensemble learns as it would alone.

Shapes: T characters of a window, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches.windows import shifted
from charrnn.config import shown, typed
from charrnn.engine.network import target_logprobs
from charrnn.errors import ConfigError, ModelFileError
from charrnn.models.network import NetworkState, detach
from charrnn.models.runner import copy_of, state_rows
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import THE_TEXT, Scorer, block_score
from charrnn.storage.model_file import SavedModel, require_one_way
from charrnn.vocab import UNK_ID

EPSILON = 1e-8
MAX_STEP = 100.0
MAX_WINDOW = 1 << 16
"""Characters: its gradient needs the states of all of them."""
OUTER_SPEED = 4.0
"""Steps of embedding and output, as a multiple of the step of the recurrent layers."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How fast a model follows the text.

    The defaults were tuned on text that is neither the training text nor the one reported on.

    Raises:
        ConfigError: a value is out of range.
    """

    step: float = 3e-4
    """Learning rate, about the change of each recurrent weight per window."""
    decay: float = 1e-3
    """Share of the way back to the trained weights after each window."""
    window: int = 32
    """Characters between two changes of the weights."""

    def __post_init__(self) -> None:
        """Check every field."""
        step, decay = typed("step", self.step, float), typed("decay", self.decay, float)
        window = typed("window", self.window, int)
        if not 0 < step <= MAX_STEP:
            raise ConfigError(f"must be in (0, {MAX_STEP:g}], got {step:g}", field="step")
        if not 0 <= decay <= 1:
            raise ConfigError(f"must be in [0, 1], got {decay:g}", field="decay")
        if not 1 <= window <= MAX_WINDOW:
            raise ConfigError(
                f"must be from 1 to {MAX_WINDOW:,}, got {shown(window)}", field="window"
            )


class Adapter:
    """A copy of a model that learns from the texts it scores; the model itself stays as it is.

    Args:
        saved: the model.
        scorer: the rules, and the static model.
        config: how fast it learns.
    """

    def __init__(
        self, saved: SavedModel, scorer: Scorer, config: AdaptationConfig | None = None
    ) -> None:
        """Copy the weights.

        Raises:
            ConfigError: the model is bidirectional.
        """
        require_one_way(saved)
        self._scorer = scorer
        self._config = config or AdaptationConfig()
        self._network = copy_of(saved.config, saved.weights)
        self._weights = list(self._network.parameters())
        self._steps = [
            self._config.step * (1.0 if "layers." in name else OUTER_SPEED)
            for name, _ in self._network.named_parameters()
        ]
        self._trained = [weight.detach().clone() for weight in self._weights]
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self._n_windows = 0

    def score(
        self, pieces: Iterable[str], *, what: str = THE_TEXT
    ) -> Iterator[tuple[Score, Score]]:
        """Yield the static and the adapted score of each block of one text.

        The state starts afresh with each text, the weights continue from the text before. `what`
        is the text's name in a message.

        Raises:
            UnknownCharacterError: see `charrnn.vocab.encode_known`.
            ModelFileError: the adapted weights overflow.
        """
        beginning = self._scorer.beginning
        state, last = state_rows([beginning.state]), beginning.last
        for block in self._scorer.read(pieces, what=what):
            static = block_score(block)
            logprobs = np.empty(len(block.targets))
            for start in range(0, len(block.targets), self._config.window):
                part = slice(start, start + self._config.window)
                targets = block.targets[part]
                logprobs[part], state = self._read(shifted(targets, last), targets, state)
                last = int(targets[-1])
            unknown = (block.targets == UNK_ID) & (static.n_unknown > 0)
            yield (
                static,
                replace(
                    static,
                    logprob=math.fsum(logprobs),
                    unknown_logprob=math.fsum(logprobs[unknown]),
                ),
            )

    def _read(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], state: NetworkState
    ) -> tuple[NDArray[np.float64], NetworkState]:
        """Score a window `[T]`, then learn from it."""
        logits_BTV, state = self._network(torch.from_numpy(inputs)[None], state)
        loss = F.cross_entropy(logits_BTV[0], torch.from_numpy(targets))
        logits_TV = logits_BTV[0].detach().numpy()
        if not np.isfinite(logits_TV).all():
            raise ModelFileError(
                "the model has learned from the text until its numbers overflowed: score it "
                "without dynamic evaluation (--adapt)"
            )
        logprobs = target_logprobs(logits_TV, targets)
        self._learn(torch.autograd.grad(loss, self._weights))
        return logprobs, detach(state)

    @torch.no_grad()
    def _learn(self, gradients: tuple[Tensor, ...]) -> None:
        self._n_windows += 1
        for weight, step, trained, gradient, square in zip(
            *(self._weights, self._steps, self._trained, gradients, self._squares), strict=True
        ):
            square.lerp_(gradient * gradient, 1 / self._n_windows)
            weight.addcdiv_(gradient, square.sqrt().add_(EPSILON), value=-step)
            weight.lerp_(trained, self._config.decay)
