"""Torch's gradients of the truncated loss against finite differences of the reference loss."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch

from charrnn.batches.windows import IGNORE, Window
from charrnn.models.network import CharNetwork, detach, select_rows
from charrnn.training.loss import window_loss

CPU = torch.device("cpu")
STEP = 1e-5
COORDINATES = 4
"""Random coordinates that are checked in each array."""


def windows(config, seed=0):
    """Two windows of two rows; row 1 ends early in the first and starts anew in the second."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(config.vocab_size, size=(2, 13))
    first = Window(ids[:, 0:6], ids[:, 1:7].copy(), np.ones(2, np.float32), 10)
    first.targets_BT[1, 4:] = IGNORE
    second = Window(ids[:, 6:12], ids[:, 7:13].copy(), np.array([1, 0], np.float32), 12)
    return first, second


def reference_loss(config, weights, window, states):
    """Summed loss of a window from the rows' states, those of restarted rows zero."""
    zero = reference.zero_state(config)
    rows = zip(window.inputs_BT, window.targets_BT, window.keep_B, states, strict=True)
    return sum(
        reference.loss(config, weights, inputs, targets, state if keep else zero)
        for inputs, targets, keep, state in rows
    )


def reference_state(config, weights, window):
    return [reference.run(config, weights, row)[1] for row in window.inputs_BT]


def assert_gradients(network, config, weights, loss, *, rtol):
    """Compare `network`'s gradients with central differences of `loss(weights)`."""
    rng = np.random.default_rng(1)
    for name, parameter in network.named_parameters():
        array = weights[name.removesuffix("_l0")]
        scale = float(parameter.grad.abs().max())
        assert scale > 0, f"{name} has no gradient at all"
        for index in rng.choice(array.size, min(COORDINATES, array.size), replace=False):
            place = np.unravel_index(index, array.shape)
            kept = array[place]
            array[place] = kept + STEP
            above = loss(weights)
            array[place] = kept - STEP
            below = loss(weights)
            array[place] = kept
            slope = (above - below) / (2 * STEP)
            found = float(parameter.grad[place])
            assert found == pytest.approx(slope, rel=rtol, abs=rtol * scale), (name, place)


@pytest.fixture(params=["float64", "as trained"])
def summed_loss(request):
    """The loss of a window: in float64 throughout, and as the trainer computes it."""
    if request.param == "as trained":  # the cross-entropy is taken in float32
        return lambda *args: window_loss(*args, CPU, "float32"), 2e-5

    def exact(network, window, state):
        state = detach(state, torch.from_numpy(window.keep_B))
        logits_BTV, state = network(torch.from_numpy(window.inputs_BT), state)
        targets_BT = torch.from_numpy(window.targets_BT)
        loss = torch.nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        return loss, state

    return exact, 1e-7


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (2, 4)])
def test_gradients_of_a_window(cell, layers, embedding, summed_loss):
    compute, rtol = summed_loss
    config = reference.make_config(cell, layers=layers, embedding=embedding)
    weights = reference.random_weights(config, seed=2)
    network = CharNetwork(config).double()
    network.import_weights(weights)
    window, _ = windows(config)
    loss, _ = compute(network, window, network.initial_state(2))
    loss.backward()
    states = [reference.zero_state(config)] * 2
    assert loss.item() == pytest.approx(
        reference_loss(config, weights, window, states), rel=max(rtol, 1e-10)
    )
    assert_gradients(
        network,
        config,
        weights,
        lambda w: reference_loss(config, w, window, states),
        rtol=rtol,
    )


@pytest.mark.parametrize("cell", reference.CELLS)
def test_gradients_stop_at_the_window_before(cell, summed_loss):
    """The carried state counts as a constant, although it too depends on the weights."""
    compute, rtol = summed_loss
    config = reference.make_config(cell, layers=2, embedding=4)
    weights = reference.random_weights(config, seed=2)
    network = CharNetwork(config).double()
    network.import_weights(weights)
    first, second = windows(config)
    _, state = compute(network, first, network.initial_state(2))
    loss, _ = compute(network, second, detach(state))
    loss.backward()
    carried = reference_state(config, weights, first)  # of the weights as they are
    assert_gradients(
        network,
        config,
        weights,
        lambda w: reference_loss(config, w, second, carried),
        rtol=rtol,
    )


def test_detach_cuts_the_history_and_zeroes_restarted_rows():
    part = torch.ones(3, 2, requires_grad=True) * 2
    for state in ([(part,)], [[(part, part)], [(part, part)]]):  # of a network, of an ensemble
        for keep, expected in ((None, [[2, 2]] * 3), ([1.0, 0.0, 1.0], [[2, 2], [0, 0], [2, 2]])):
            found = detach(state, keep if keep is None else torch.tensor(keep))
            assert len(leaves(found)) == len(leaves(state))
            for cut in leaves(found):
                assert not cut.requires_grad
                assert cut.tolist() == expected


def test_rows_are_selected_in_any_order():
    part = torch.arange(3.0)[:, None]
    ((one,), (other, _)) = select_rows([(part,), (-part, part)], torch.tensor([2, 0]))
    assert (one.tolist(), other.tolist()) == ([[2], [0]], [[-2], [0]])


def leaves(state):
    """All tensors of a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for part in state for tensor in leaves(part)]
