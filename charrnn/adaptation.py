"""Dynamic evaluation: a model that goes on learning from the text it has just scored.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic Evaluation of Neural Sequence Models". A window of
text is scored first, then its gradient changes the weights for the next windows. Every character
is predicted from text before it only, so the figure is as honest as the static one.

With gradient g of the window's mean loss and v, the mean of g² over the windows so far,

    θ ← θ - step · g / (√v + ε)      θ ← θ + decay · (θ_trained - θ)

The paper takes v from the training data, which a model file does not hold; the mean over the text
itself is as good after some dozen windows. Embedding and output, which hold what is particular to
characters, follow the text faster than the recurrent weights between them. And a window is not
forgotten: with each new one a few of those before it are read again, drawn at random, and the
gradient of their loss is added in part (experience replay, Lin 1992).

Shapes: T characters of a window, R windows read again, V ids.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.engine import State
from charrnn.errors import ConfigError
from charrnn.modelfile import SavedModel
from charrnn.network import CharNetwork, NetworkState, detach
from charrnn.scoring import Score, Scorer, target_logprobs
from charrnn.scoring.text import block_score
from charrnn.vocab import UNK_ID

EPSILON = 1e-8
OUTER_SPEED = 4.0
"""Steps of embedding and output, as a multiple of the step of the recurrent layers."""
MOST_REMEMBERED = 8192
"""Windows kept to be read again: a quarter of a million characters, 40 MB with 640 units."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How fast a model follows the text.

    The defaults were tuned on text that is neither the training text nor the one reported on.

    Raises:
        ConfigError: a value is out of range.
    """

    step: float = 4e-4
    """Learning rate, about the change of each recurrent weight per window."""
    decay: float = 3e-4
    """Share of the way back to the trained weights after each window."""
    window: int = 32
    """Characters between two changes of the weights."""
    replays: int = 8
    """Windows read again with each new one."""
    replay_share: float = 0.5
    """What their mean loss counts beside that of the new window."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0 < self.step < math.inf:
            raise ConfigError(f"the adaptation step must be a positive number, got {self.step}")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"the adaptation decay must be in [0, 1], got {self.decay}")
        if self.window < 1:
            raise ConfigError(f"the adaptation window must be at least 1, got {self.window}")
        if self.replays < 0:
            raise ConfigError(f"the adaptation replays must not be negative, got {self.replays}")
        if not 0 <= self.replay_share < math.inf:
            raise ConfigError(
                f"the share of adaptation replays must not be negative, got {self.replay_share}"
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
        """Copy the weights."""
        self._scorer = scorer
        self._config = config or AdaptationConfig()
        self._network = CharNetwork(saved.config)
        self._network.import_weights(saved.weights)
        self._network.eval()
        self._weights = list(self._network.parameters())
        self._steps = [
            self._config.step * (1.0 if name.startswith("layers.") else OUTER_SPEED)
            for name, _ in self._network.named_parameters()
        ]
        self._trained = [weight.detach().clone() for weight in self._weights]
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self._n_windows = 0
        self._past = _Past(self._config.window)

    def score(self, pieces: Iterable[str]) -> Iterator[tuple[Score, Score]]:
        """Yield the static and the adapted score of each block of one text.

        The state starts afresh with each text, the weights go on from the text before.

        Raises:
            UnknownCharacterError: see `Scorer.encode`.
        """
        beginning = self._scorer.beginning
        state, last = _torch_state(beginning.state), beginning.last
        for block in self._scorer.read(pieces):
            static = block_score(block)
            logprobs = np.empty(len(block.targets))
            for start in range(0, len(block.targets), self._config.window):
                part = slice(start, start + self._config.window)
                targets = block.targets[part]
                inputs = np.concatenate([[last], targets[:-1]])
                logprobs[part], state = self._read(inputs, targets, state)
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
        """Score a window `[T]`, then learn from it and from some of those before it."""
        window = _Window(torch.from_numpy(inputs)[None], torch.from_numpy(targets)[None], state)
        loss, logits_TV, after = self._loss(window)
        logprobs = target_logprobs(logits_TV.detach().numpy(), targets)
        if self._config.replays and (again := self._past.draw(self._config.replays)):
            loss = loss + self._config.replay_share * self._loss(again)[0]
        self._learn(torch.autograd.grad(loss, self._weights))
        self._past.add(window)
        return logprobs, detach(after)

    def _loss(self, window: _Window) -> tuple[Tensor, Tensor, NetworkState]:
        """Return the mean loss, the logits `[R·T, V]` and the state after the window."""
        logits_RTV, after = self._network(window.inputs_RT, window.state)
        logits_NV = logits_RTV.flatten(0, 1)
        return F.cross_entropy(logits_NV, window.targets_RT.flatten()), logits_NV, after

    @torch.no_grad()
    def _learn(self, gradients: tuple[Tensor, ...]) -> None:
        self._n_windows += 1
        for weight, step, trained, gradient, square in zip(
            self._weights, self._steps, self._trained, gradients, self._squares, strict=True
        ):
            square.lerp_(gradient * gradient, 1 / self._n_windows)
            weight.addcdiv_(gradient, square.sqrt().add_(EPSILON), value=-step)
            weight.lerp_(trained, self._config.decay)


@dataclass(frozen=True)
class _Window:
    """Windows side by side: inputs and targets `[R, T]`, and the state they begin in."""

    inputs_RT: Tensor
    targets_RT: Tensor
    state: NetworkState


class _Past:
    """The windows read last, to be read again; what is drawn depends on their number alone.

    Args:
        length: characters of a window; shorter ones, at the end of a text, are not kept.
    """

    def __init__(self, length: int) -> None:
        """Remember nothing yet."""
        self._length = length
        self._windows: deque[_Window] = deque(maxlen=MOST_REMEMBERED)
        self._rng = np.random.Generator(np.random.PCG64(0))

    def add(self, window: _Window) -> None:
        """Remember one window."""
        if window.inputs_RT.shape[1] == self._length:
            self._windows.append(window)

    def draw(self, n: int) -> _Window | None:
        """Return some windows side by side, `n` if there are as many; None if there are none."""
        if not self._windows:
            return None
        drawn = self._rng.integers(len(self._windows), size=min(n, len(self._windows)))
        windows = [self._windows[k] for k in drawn.tolist()]
        layers = zip(*(window.state for window in windows), strict=True)
        return _Window(
            torch.cat([window.inputs_RT for window in windows]),
            torch.cat([window.targets_RT for window in windows]),
            [tuple(torch.cat(parts) for parts in zip(*layer, strict=True)) for layer in layers],
        )


def _torch_state(state: State) -> NetworkState:
    """Return the state of one stream of the NumPy engine as one lane of the network."""

    def lane(part: NDArray[Any]) -> Tensor:
        return torch.from_numpy(part.astype(np.float32))[None]

    return [(lane(s.h), lane(s.c)) if s.c.size else (lane(s.h),) for s in state.layers]
