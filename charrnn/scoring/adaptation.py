"""Dynamic evaluation: a model that learns from the text it has just scored.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic Evaluation of Neural Sequence Models". A window of
text is scored first, then its gradient changes the weights for the next windows. Every character
is predicted from text before it only, so the figure is as honest as the static one.

With gradient g of the window's mean loss and v, the mean of g² over the windows so far,

    θ ← θ - step · g / (√v + ε)      θ ← θ + decay · (θ_trained - θ)

The paper takes v from the training data, which a model file does not hold; the mean over the text
itself is as good after some dozen windows. Embedding and output, which hold what is particular to
characters, follow the text faster than the recurrent weights between them. Each member of an
ensemble learns as it would alone, on a thread of its own where there are threads.

A `Mixer` behind it adds what has been counted to what the network has learned.

Shapes: T characters of a window, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.batches.windows import shifted
from charrnn.config import shown, typed
from charrnn.engine.network import log_softmax, target_logprobs
from charrnn.errors import ConfigError, ModelFileError
from charrnn.models.network import CharNetwork, NetworkState, detach
from charrnn.models.runner import copy_of, state_rows
from charrnn.scoring.mixing import Mixer
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import THE_TEXT, Block, Scorer, block_score
from charrnn.storage.model_file import SavedModel, require_one_way
from charrnn.vocab import UNK_ID

_T = TypeVar("_T")

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

    step: float = 3.5e-4
    """Learning rate, about the change of each recurrent weight per window."""
    decay: float = 1e-3
    """Share of the way back to the trained weights after each window."""
    window: int = 64
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
        mixer: counts of a corpus and of the texts scored, mixed with the model; None leaves it at
            dynamic evaluation.
    """

    def __init__(
        self,
        saved: SavedModel,
        scorer: Scorer,
        config: AdaptationConfig | None = None,
        mixer: Mixer | None = None,
    ) -> None:
        """Copy the weights.

        Raises:
            ConfigError: the model is bidirectional.
        """
        require_one_way(saved, "learn from what it has read")
        self._scorer = scorer
        self._config = config or AdaptationConfig()
        self._mixer = mixer
        self._network = copy_of(saved.config, saved.weights)
        networks = [one for one in self._network.members if isinstance(one, CharNetwork)]
        self._members = [_Member(one, self._config) for one in networks]
        threads = min(len(self._members), torch.get_num_threads())
        self._map: Callable[..., Iterable[Any]] = map
        if threads > 1:
            self._map = ThreadPoolExecutor(threads, "member", torch.set_num_threads, (1,)).map

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
        if self._mixer is not None:
            context = "".join(self._scorer.normalized([self._scorer.context]))
            self._mixer.begin(self._scorer.encode(context, what="the context").ids)
        for block, static in _ahead(_with_scores(self._scorer.read(pieces, what=what))):
            targets = block.targets
            logits = np.empty((len(targets), len(self._scorer.vocabulary)), np.float32)
            for start in range(0, len(targets), self._config.window):
                part = slice(start, start + self._config.window)
                logits[part] = self._read(shifted(targets[part], last), targets[part], state)
                last = int(targets[part][-1])
            logprobs = target_logprobs(logits, targets)
            if self._mixer is not None and len(targets):
                logprobs = self._mixer.score(targets, log_softmax(logits))
            unknown = (targets == UNK_ID) & (static.n_unknown > 0)
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
    ) -> NDArray[np.float32]:
        """Return the logits `[T, V]` of a window, change the state, and learn from the window."""
        ids_1T, targets_T = torch.from_numpy(inputs)[None], torch.from_numpy(targets)
        read = list(
            self._map(lambda member, before: member.read(ids_1T, before), self._members, state)
        )
        state[:] = [after for _, after in read]
        logits_MTV = [logits_TV for logits_TV, _ in read]
        mean_TV = torch.stack([one.detach() for one in logits_MTV]).mean(0)
        if not torch.isfinite(mean_TV).all():
            raise ModelFileError(
                "the model has learned from the text until its numbers overflowed: score it "
                "without --adapt"
            )
        # of the loss of the mean, each member gets its share; alone, it would get all of it
        error_TV = torch.softmax(mean_TV, -1)
        error_TV[torch.arange(len(targets_T)), targets_T] -= 1
        error_TV /= len(targets_T) * len(logits_MTV)
        list(
            self._map(
                lambda member, logits: member.learn(logits, error_TV), *(self._members, logits_MTV)
            )
        )
        return np.asarray(mean_TV.numpy())


class _Member:
    """One network that learns."""

    def __init__(self, network: CharNetwork, config: AdaptationConfig) -> None:
        self._network = network
        self._config = config
        self.weights = list(network.parameters())
        self.steps = [
            config.step * (1.0 if name.startswith("layers.") else OUTER_SPEED)
            for name, _ in network.named_parameters()
        ]
        self.trained = [weight.detach().clone() for weight in self.weights]
        self._squares = [torch.zeros_like(weight) for weight in self.weights]
        self._scales = [torch.zeros_like(weight) for weight in self.weights]
        self._n_windows = 0

    def read(self, ids_1T: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """Return the logits `[T, V]` after each id, and the state after the last."""
        logits_1TV, after = self._network(ids_1T, state)
        return logits_1TV[0], detach(after)

    def learn(self, logits_TV: Tensor, error_TV: Tensor) -> None:
        """Change the weights, given the gradient of the loss with respect to the logits."""
        gradients = torch.autograd.grad(logits_TV, self.weights, error_TV)
        self._n_windows += 1
        root = math.sqrt(self._n_windows)  # the squares are a sum, whose mean is v
        with torch.no_grad():
            for weight, gradient, square, scale, step, trained in zip(
                *(self.weights, gradients, self._squares, self._scales),
                *(self.steps, self.trained),
                strict=True,
            ):
                square.addcmul_(gradient, gradient)
                torch.sqrt(square, out=scale).add_(EPSILON * root)
                weight.addcdiv_(gradient, scale, value=-step * root)
                weight.lerp_(trained, self._config.decay)


def _with_scores(blocks: Iterable[Block]) -> Iterator[tuple[Block, Score]]:
    return ((block, block_score(block)) for block in blocks)


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yield items of which the next is made on another thread meanwhile."""
    with ThreadPoolExecutor(1, "static") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
