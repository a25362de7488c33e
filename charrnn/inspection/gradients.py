"""How the influence of a character fades with distance: gradients through time.

Of the probability that the model gives to a character x_t, which it predicts from the state after
x_{t-1}, the gradient with respect to the hidden state h_{t-k} after the character k places before
it (Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013). Where its norm vanishes,
nothing that far back can be learned.

Shapes: M members, L layers, B positions, H hidden units, K distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.batches.windows import shifted
from charrnn.errors import ConfigError
from charrnn.inspection.activations import Array, require_left_to_right
from charrnn.models.network import CharNetwork, Ensemble, NetworkState
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID

ROWS = 32
"""Positions followed side by side."""
MAX_DISTANCE = 10_000


class GradientFlow(NamedTuple):
    """Norms of gradients, averaged over places in a text."""

    norms: tuple[float, ...]
    """[k - 1]: of the gradient of log P(x_t), in nats, with respect to h_{t-k}; k from 1 on."""
    n_positions: int
    """Places in the text that they are the mean of."""


def network_of(saved: SavedModel) -> Ensemble:
    """Return a model as a network of torch, to be differentiated; one that is not bidirectional.

    It computes in float64: the gradients of a plain RNN soon leave the range of float32.
    """
    require_left_to_right(saved.config)
    one = replace(saved.config, members=1)
    network = Ensemble([CharNetwork(one) for _ in range(saved.config.members)]).double()
    network.import_weights(saved.weights)
    network.requires_grad_(False)
    network.eval()
    return network


def gradient_flow(
    network: Ensemble,
    ids: Array,
    *,
    distance: int,
    positions: int,
    layers: Sequence[int] | None = None,
    members: Sequence[int] | None = None,
) -> GradientFlow:
    """Return the mean norm of the gradient for each distance from 1 to `distance`.

    The norm is that of the hidden states of all layers and members together, or of some. The
    gradient with respect to the state of a layer goes through the layers above it, too.

    Args:
        network: the model.
        ids: of the text `[T]`; an EOS among them begins anew.
        distance: the largest.
        positions: places in the text, evenly spaced; fewer where it is shorter.
        layers: of which the states are meant; None for all.
        members: the same of members.

    Raises:
        ConfigError: the text is not longer than the distance.
    """
    inputs = np.asarray(shifted(np.asarray(ids, np.int64), EOS_ID))
    places = _places(inputs, distance)
    if not len(places):
        raise ConfigError(
            f"must be shorter than the text: {distance} characters back from a character, and none "
            f"of the {len(ids):,} is so far from the beginning",
            field="distance",
        )
    chosen = np.unique(places[np.linspace(0, len(places) - 1, positions).round().astype(int)])
    starts = chosen - distance + 1
    states = _states_before(network, inputs, starts)
    total = torch.zeros(distance, dtype=torch.float64)
    for begin in range(0, len(chosen), ROWS):
        rows = slice(begin, begin + ROWS)
        windows_BK = np.stack([inputs[s : s + distance] for s in starts[rows]])
        total += _norms(
            network,
            torch.from_numpy(windows_BK),
            torch.from_numpy(np.asarray(ids, np.int64)[chosen[rows]]),
            _joined(states[rows]),
            layers,
            members,
        ).sum(0)
    return GradientFlow(tuple((total / len(chosen)).tolist()), len(chosen))


def _places(inputs: Array, distance: int) -> NDArray[np.int64]:
    """Return the places whose text goes back at least `distance` characters."""
    begins = np.flatnonzero(inputs == EOS_ID)
    places = np.arange(len(inputs))
    since = places - begins[np.searchsorted(begins, places, "right") - 1]
    return places[since >= distance]


@torch.no_grad()
def _states_before(network: Ensemble, inputs: Array, starts: Array) -> list[NetworkState]:
    """Return the states before some places `[B]` of a text, which is read once, of one row each."""
    found: list[NetworkState] = []
    state, at = network.initial_state(1), 0
    for start in starts.tolist():
        while at < start:
            if inputs[at] == EOS_ID:
                state = network.initial_state(1)
            later = np.flatnonzero(inputs[at + 1 : start] == EOS_ID)
            end = at + 1 + int(later[0]) if len(later) else start
            _, state = network(torch.from_numpy(inputs[None, at:end]), state)
            at = end
        found.append(state)
    return found


def _joined(states: Sequence[NetworkState]) -> NetworkState:
    """Return the states of single rows as that of a batch."""
    return [
        [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*layers, strict=True)]
        for layers in zip(*states, strict=True)
    ]


def _norms(
    network: Ensemble,
    windows_BK: Tensor,
    targets_B: Tensor,
    state: NetworkState,
    layers: Sequence[int] | None,
    members: Sequence[int] | None,
) -> Tensor:
    """Return the norms `[B, K]` of some windows, the nearest distance first.

    Args:
        network: the model.
        windows_BK: the ids read one after another.
        targets_B: the ids that follow them.
        state: before the windows.
        layers: see `gradient_flow`.
        members: see `gradient_flow`.
    """
    state = [
        [tuple(part.requires_grad_() for part in parts) for parts in member] for member in state
    ]  # the graph begins here
    networks = [one for one in network.members if isinstance(one, CharNetwork)]
    nodes: list[list[Tensor]] = []
    outcomes: list[tuple[Tensor, Any]] = []
    for ids_B in windows_BK.unbind(1):
        outcomes = [one.step(ids_B, before) for one, before in zip(networks, state, strict=True)]
        state = [after for _, after in outcomes]
        nodes.append(
            [
                parts[0]
                for m, after in enumerate(state)
                for k, parts in enumerate(after)
                if (layers is None or k in layers) and (members is None or m in members)
            ]
        )
    logits_BV = torch.stack([logits for logits, _ in outcomes]).mean(0)
    chosen = torch.log_softmax(logits_BV, -1).gather(1, targets_B[:, None]).sum()
    gradients = iter(torch.autograd.grad(chosen, [node for several in nodes for node in several]))
    squares_KB = [
        torch.stack([next(gradients).double().square().sum(-1) for _ in one]).sum(0)
        for one in nodes
    ]
    return torch.stack(squares_KB[::-1], 1).sqrt()
