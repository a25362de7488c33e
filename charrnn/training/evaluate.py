"""Measuring a network on a text."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches import IGNORE, Window, document_windows, evaluation_windows
from charrnn.corpus import Corpus
from charrnn.ensemble import Network
from charrnn.network import NetworkState, detach
from charrnn.training.machine import autocast
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
    inputs_BT = torch.from_numpy(window.inputs_BT).to(device, non_blocking=True)
    targets_BT = torch.from_numpy(window.targets_BT).to(device, non_blocking=True)
    with autocast(device, dtype):
        logits_BTV, after = network(inputs_BT, _state_before(network, window, state))
    loss = F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        targets_BT.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, state if window.stateless else after


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


def mean_loss(
    network: Network,
    ids: Ids,
    device: torch.device,
    dtype: str,
    *,
    limit: int | None = None,
) -> float:
    """Return the mean cross-entropy over a text in nats per character.

    The text is read in up to `LANES` lanes, each warmed up on the characters before its part.
    """
    n = len(ids) if limit is None else min(limit, len(ids))
    lanes = max(1, min(LANES, n // (2 * WARMUP)))
    windows = evaluation_windows(ids, batch_size=lanes, bptt=WINDOW, warmup=WARMUP, limit=limit)
    return _mean(network, windows, device, dtype)


def mean_document_loss(
    network: Network,
    corpus: Corpus,
    device: torch.device,
    dtype: str,
    *,
    validation: bool,
    limit: int | None = None,
) -> float:
    """Return the mean cross-entropy over documents, in nats per character and EOS.

    Args:
        network: what to measure.
        corpus: one with documents.
        device: where to compute.
        dtype: precision of the products.
        validation: the validation documents, or else the training documents.
        limit: stop after so many ids.
    """
    documents = corpus.documents
    assert documents is not None

    def windows() -> Iterator[Window]:
        left = math.inf if limit is None else limit
        for spans in documents.all_spans(validation=validation):
            lengths = np.cumsum(spans[:, 1] - spans[:, 0])
            spans = spans[: int(np.searchsorted(lengths, left)) + 1]
            yield from document_windows(corpus.ids, spans, batch_size=LANES, bptt=WINDOW)
            left -= int(lengths[-1]) if len(lengths) else 0
            if left <= 0:
                return

    return _mean(network, windows(), device, dtype)


@torch.no_grad()
def _mean(network: Network, windows: Iterator[Window], device: torch.device, dtype: str) -> float:
    was_training = network.training
    network.eval()
    state: NetworkState = []
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for window in windows:
        loss, state = window_loss(network, window, state, device, dtype)
        total += loss.double()
        count += window.n_targets
    network.train(was_training)
    return float(total) / count
