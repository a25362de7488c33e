"""Measuring a network on a text."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches import IGNORE, Window, evaluation_windows
from charrnn.network import CharNetwork, NetworkState, detach
from charrnn.training.machine import autocast
from charrnn.vocab import Ids

LANES = 64
WINDOW = 128
WARMUP = 256


def window_loss(
    network: CharNetwork, window: Window, state: NetworkState, device: torch.device, dtype: str
) -> tuple[Tensor, NetworkState]:
    """Return the summed cross-entropy of a window in nats, and the state after it.

    Raises nothing; targets marked `IGNORE` add nothing to the sum.
    """
    inputs_BT = torch.from_numpy(window.inputs_BT).to(device, non_blocking=True)
    targets_BT = torch.from_numpy(window.targets_BT).to(device, non_blocking=True)
    if not window.keep_B.all():
        state = detach(state, torch.from_numpy(window.keep_B).to(device))
    with autocast(device, dtype):
        logits_BTV, state = network(inputs_BT, state)
    loss = F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        targets_BT.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, state


@torch.no_grad()
def mean_loss(
    network: CharNetwork,
    ids: Ids,
    device: torch.device,
    dtype: str,
    *,
    limit: int | None = None,
) -> float:
    """Return the mean cross-entropy over a text in nats per character.

    The text is read in up to `LANES` lanes, each warmed up on the characters before its part.
    """
    was_training = network.training
    network.eval()
    n = len(ids) if limit is None else min(limit, len(ids))
    lanes = max(1, min(LANES, n // (2 * WARMUP)))
    state = network.initial_state(lanes)
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for window in evaluation_windows(
        ids, batch_size=lanes, bptt=WINDOW, warmup=WARMUP, limit=limit
    ):
        loss, state = window_loss(network, window, state, device, dtype)
        total += loss.double()
        count += window.n_targets
    network.train(was_training)
    return float(total) / count
