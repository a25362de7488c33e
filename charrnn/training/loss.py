"""The loss of a network on a text, and the temperature that calibrates it.

A network is overconfident on text it was not trained on. At every evaluation, the temperature that
fits the validation text best is found, and the output weights of the model that is saved are
divided by it: temperature scaling, Guo et al. 2017. So models are judged as they will be used. One
number fitted to thousands of characters leaves the validation text as good a judge as before.

Shapes: B batch rows, T characters of a window, N targets that count, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches.documents import document_windows
from charrnn.batches.windows import IGNORE, Window, evaluation_windows
from charrnn.corpus.corpus import Corpus
from charrnn.models.network import CharNetwork, Ensemble, NetworkState, detach, select_rows
from charrnn.training.records import real
from charrnn.training.system import autocast
from charrnn.vocab import UNK_ID, Ids

ROWS, WINDOW, WARMUP = 64, 128, 256
"""Batch rows that read a text to measure it, their window, and the uncounted characters that each
reads before its part."""
FIT_CHARS, FIT_LOGITS = 50_000, 2**25
"""Characters that the temperature is fitted to; fewer where a large alphabet makes more logits
(128 MiB) of them."""
FIT_ROUNDS, FIT_STEP = 2, 0.1
FIT_RANGE = 0.5, 1.5
"""Of the inverse temperature."""

Network = CharNetwork | Ensemble


@dataclass(frozen=True)
class Measured:
    """What reading a text has shown. Characters that the model does not know are read, and no
    figure counts them: nothing could be learned of them."""

    loss: float
    """Mean cross-entropy at this temperature, in nats per character; infinite where none counts."""
    temperature: float = 1.0
    """What the logits were divided by."""
    unknown_share: float = 0.0
    """Share of the characters that are unknown."""
    unigram: float = math.inf
    """Loss of the best model that knows only how often each character occurs in this text."""


class Meter:
    """A running mean that does not wait for the device: sums there, division when asked for."""

    def __init__(self, device: torch.device) -> None:
        """Start empty."""
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0.0

    def add(self, loss: Tensor, count: int) -> None:
        """Take a summed loss and the number of characters in it."""
        self._sum += loss
        self._count += count

    def mean(self) -> float | None:
        """Return the mean in nats per character; None if empty."""
        return float(self._sum) / self._count if self._count else None

    def fade(self) -> None:
        """Let what has been added so far count half."""
        self._sum *= 0.5
        self._count *= 0.5

    def take(self) -> float | None:
        """Return the mean and start again."""
        mean = self.mean()
        self.load([0.0, 0])
        return mean

    def state(self) -> list[float]:
        """Return sum and count as JSON values."""
        return [float(self._sum), self._count]

    def load(self, state: list[float]) -> None:
        """Restore what `state` returned."""
        total, count = state
        self._sum.fill_(real(total))
        self._count = real(count)


def window_loss(
    network: Network, window: Window, state: NetworkState, device: torch.device, dtype: str
) -> tuple[Tensor, NetworkState]:
    """Return the summed cross-entropy of a window in nats, and the state to carry on.

    Targets marked `IGNORE` add nothing to the sum. The state returned is not detached; after a
    stateless window it is the one that was given.
    """
    logits_BTV, targets_BT, after = _read(network, window, state, device, dtype)
    loss = F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        targets_BT.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, after


def corpus_windows(
    corpus: Corpus, *, validation: bool, limit: int | None = None
) -> Iterator[Window]:
    """Yield windows that measure one part of a corpus: its text, or its documents with EOS.

    Args:
        corpus: encoded text.
        validation: the validation part, or else the training part.
        limit: stop after this number of ids.
    """
    if corpus.documents is None:
        ids = corpus.val_ids if validation else corpus.train_ids
        yield from text_windows(ids, limit=limit)
        return
    left = math.inf if limit is None else limit
    for spans in corpus.documents.all_spans(validation=validation):
        lengths = np.cumsum(spans[:, 1] - spans[:, 0])
        spans = spans[: int(np.searchsorted(lengths, left)) + 1]
        yield from document_windows(corpus.ids, spans, batch_size=ROWS, bptt=WINDOW)
        left -= int(lengths[-1]) if len(lengths) else 0
        if left <= 0:
            return


def text_windows(ids: Ids, *, limit: int | None = None) -> Iterator[Window]:
    """Return windows that measure a text, in up to `ROWS` rows that are warmed up."""
    n = len(ids) if limit is None else min(limit, len(ids))
    rows = max(1, min(ROWS, n // (2 * WARMUP)))
    return evaluation_windows(ids, batch_size=rows, bptt=WINDOW, warmup=WARMUP, limit=limit)


@torch.no_grad()
def measure(
    network: Network,
    windows: Iterable[Window],
    device: torch.device,
    dtype: str,
    *,
    temperature: float | None = 1.0,
) -> Measured:
    """Read a text once, without learning from it.

    Args:
        network: what to measure.
        windows: of the text.
        device: where to compute.
        dtype: precision of the products.
        temperature: divides the logits; None for the one that fits the first windows best.
    """
    was_training = network.training
    network.eval()
    predictions = _predictions(network, windows, device, dtype)
    first: list[tuple[Tensor, Tensor]] = []
    if temperature is None:
        first = _first(predictions)
        temperature = fit_temperature(
            lambda trial: sum(float(_loss(*prediction, trial)) for prediction in first)
        )
    total = torch.zeros((), dtype=torch.float64, device=device)
    counts_V = torch.zeros(network.config.vocab_size, dtype=torch.float64, device=device)
    for logits_NV, targets_N in chain(first, predictions):
        total += _loss(logits_NV, targets_N, temperature).double()
        counts_V += torch.bincount(targets_N, minlength=len(counts_V))
    network.train(was_training)
    n_all = float(counts_V.sum())
    counts_V[UNK_ID] = 0
    count = float(counts_V.sum())
    if not count:
        return Measured(math.inf, 1.0, unknown_share=1.0)
    entropy = math.log(count) - float(torch.xlogy(counts_V, counts_V).sum()) / count
    return Measured(float(total) / count, temperature, 1 - count / n_all, entropy)


def fit_temperature(loss_at: Callable[[float], float]) -> float:
    """Return the temperature of least loss, to three digits.

    The loss is convex in the inverse temperature. Its minimum is that of the parabola through three
    points, laid a second time around the first minimum found.

    Args:
        loss_at: the loss at a temperature.
    """
    inverse = 1.0 - FIT_STEP
    for _ in range(FIT_ROUNDS):
        below, here, above = (loss_at(1 / (inverse + k * FIT_STEP)) for k in (-1, 0, 1))
        curvature = below - 2 * here + above
        if curvature <= 0:  # nearly a straight line: no minimum in sight
            return 1.0
        inverse -= FIT_STEP * (above - below) / (2 * curvature)
        inverse = min(FIT_RANGE[1], max(FIT_RANGE[0], inverse))
    return round(1 / inverse, 3)


def _read(
    network: Network, window: Window, state: NetworkState, device: torch.device, dtype: str
) -> tuple[Tensor, Tensor, NetworkState]:
    """Return the logits of a window, its targets, and the state to carry on."""
    inputs_BT = torch.from_numpy(window.inputs_BT).to(device, non_blocking=True)
    targets_BT = torch.from_numpy(window.targets_BT).to(device, non_blocking=True)
    with autocast(device, dtype):
        logits_BTV, after = network(inputs_BT, _state_before(network, window, state))
    return logits_BTV, targets_BT, state if window.stateless else after


def _state_before(network: Network, window: Window, state: NetworkState) -> NetworkState:
    """Return the state in which each row of the window begins."""
    if window.stateless or not window.keep_B.any():
        return network.initial_state(len(window.inputs_BT))
    if window.rows_B is not None:
        state = select_rows(state, window.rows_B)
    if window.keep_B.all():
        return state
    return detach(state, window.keep_B)


def _predictions(
    network: Network, windows: Iterable[Window], device: torch.device, dtype: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits `[N, V]` and the targets `[N]` that count, window by window."""
    state: NetworkState = []
    for window in windows:
        logits_BTV, targets_BT, state = _read(network, window, state, device, dtype)
        logits_NV, targets_N = logits_BTV.float().flatten(0, 1), targets_BT.flatten()
        if window.n_targets < len(targets_N):
            counts_N = targets_N != IGNORE
            logits_NV, targets_N = logits_NV[counts_N], targets_N[counts_N]
        yield logits_NV, targets_N


def _first(predictions: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Take the predictions that the temperature is fitted to."""
    taken, n_chars, n_logits = [], 0, 0
    for logits_NV, targets_N in predictions:
        taken.append((logits_NV, targets_N))
        n_chars += len(targets_N)
        n_logits += logits_NV.numel()
        if n_chars >= FIT_CHARS or n_logits >= FIT_LOGITS:
            break
    return taken


def _loss(logits_NV: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    """Return the summed cross-entropy of the known targets in nats, at a temperature."""
    return F.cross_entropy(logits_NV / temperature, targets_N, ignore_index=UNK_ID, reduction="sum")
