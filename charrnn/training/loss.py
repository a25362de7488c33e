"""Measuring a network on a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches.documents import document_windows
from charrnn.batches.evaluation import evaluation_windows
from charrnn.batches.windows import IGNORE, Window
from charrnn.corpus.corpus import Corpus
from charrnn.models.ensemble import Network
from charrnn.models.network import NetworkState, detach
from charrnn.training.calibration import MOST_CHARS, MOST_LOGITS, fit_scale
from charrnn.training.system import autocast
from charrnn.vocab import Ids

LANES = 64
WINDOW = 128
WARMUP = 256


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
    """Return the state in which each lane of the window begins."""
    if window.stateless or not window.keep_B.any():
        return network.initial_state(len(window.inputs_BT))
    if window.rows_B is not None:
        rows = torch.from_numpy(window.rows_B).to(state[0][0].device)
        state = [tuple(part[rows] for part in parts) for parts in state]
    if window.keep_B.all():
        return state
    return detach(state, torch.from_numpy(window.keep_B).to(state[0][0].device))


@dataclass(frozen=True)
class Measured:
    """What a reading of a text has shown."""

    loss: float
    """Mean cross-entropy with the logits scaled, in nats per character."""
    logit_scale: float
    """Factor of the logits."""


def text_windows(ids: Ids, *, limit: int | None = None) -> Iterator[Window]:
    """Return windows that measure a text.

    It is read in up to `LANES` lanes, each warmed up on the characters before its part.
    """
    n = len(ids) if limit is None else min(limit, len(ids))
    lanes = max(1, min(LANES, n // (2 * WARMUP)))
    return evaluation_windows(ids, batch_size=lanes, bptt=WINDOW, warmup=WARMUP, limit=limit)


def corpus_windows(
    corpus: Corpus, *, validation: bool, limit: int | None = None
) -> Iterator[Window]:
    """Yield windows that measure one part of a corpus: its text, or its documents with EOS.

    Args:
        corpus: encoded text.
        validation: the validation part, or else the training part.
        limit: stop after so many ids.
    """
    if corpus.documents is None:
        ids = corpus.val_ids if validation else corpus.train_ids
        yield from text_windows(ids, limit=limit)
        return
    left = math.inf if limit is None else limit
    for spans in corpus.documents.all_spans(validation=validation):
        lengths = np.cumsum(spans[:, 1] - spans[:, 0])
        spans = spans[: int(np.searchsorted(lengths, left)) + 1]
        yield from document_windows(corpus.ids, spans, batch_size=LANES, bptt=WINDOW)
        left -= int(lengths[-1]) if len(lengths) else 0
        if left <= 0:
            return


@torch.no_grad()
def measure(
    network: Network,
    windows: Iterable[Window],
    device: torch.device,
    dtype: str,
    *,
    logit_scale: float | None = 1.0,
) -> Measured:
    """Read a text once, without learning from it.

    Args:
        network: what to measure.
        windows: of the text.
        device: where to compute.
        dtype: precision of the products.
        logit_scale: factor of the logits; None for the one that fits the first windows best.
    """
    was_training = network.training
    network.eval()
    predictions = _predictions(network, windows, device, dtype)
    first: list[tuple[Tensor, Tensor]] = []
    if logit_scale is None:
        first = _first(predictions)
        logit_scale = fit_scale(lambda scale: sum(float(_loss(*pair, scale)) for pair in first))
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for logits_NV, targets_N in chain(first, predictions):
        total += _loss(logits_NV, targets_N, logit_scale).double()
        count += len(targets_N)
    network.train(was_training)
    return Measured(float(total) / count, logit_scale)


def _predictions(
    network: Network, windows: Iterable[Window], device: torch.device, dtype: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the targets that count, and the logits they were expected with, window by window."""
    state: NetworkState = []
    for window in windows:
        logits_BTV, targets_BT, state = _read(network, window, state, device, dtype)
        logits_NV, targets_N = logits_BTV.float().flatten(0, 1), targets_BT.flatten()
        if window.n_targets < len(targets_N):
            counts_N = targets_N != IGNORE
            logits_NV, targets_N = logits_NV[counts_N], targets_N[counts_N]
        yield logits_NV, targets_N


def _first(predictions: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Take as many predictions as the factor is fitted to."""
    taken, n_chars, n_logits = [], 0, 0
    for logits_NV, targets_N in predictions:
        taken.append((logits_NV, targets_N))
        n_chars += len(targets_N)
        n_logits += logits_NV.numel()
        if n_chars >= MOST_CHARS or n_logits >= MOST_LOGITS:
            break
    return taken


def _loss(logits_NV: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Return the summed cross-entropy with all logits times `scale`, in nats."""
    return F.cross_entropy(logits_NV * scale, targets_N, reduction="sum")
