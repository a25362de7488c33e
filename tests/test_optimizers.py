"""Muon against its definition, and which weights it gets."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch

from charrnn.config import TrainingConfig
from charrnn.models.network import CharNetwork
from charrnn.training.optimizers import Muon, build_optimizers, orthogonalise

H = 16


def gradient(seed, blocks=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(blocks * H, H))).float()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalised_blocks_keep_their_singular_vectors(scale):
    """U S V^T becomes about U V^T: singular values near 1, whatever the size of the block."""
    block = gradient(0)
    u, _, vh = np.linalg.svd(block.double().numpy())
    found = u.T @ orthogonalise(scale * block[None])[0].double().numpy() @ vh.T
    assert (np.diag(found) > 0.5).all()
    assert (np.diag(found) < 1.3).all()
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.1


def stepped(gradients, *, start=None, **options):
    """The parameter after one step for each gradient."""
    parameter = torch.nn.Parameter(torch.zeros_like(gradients[0]) if start is None else start)
    optimizer = Muon([parameter], **options)
    for each in gradients:
        parameter.grad = each.clone()
        optimizer.step()
    return parameter.detach()


def test_momentum_is_carried_from_step_to_step():
    """m ← 0.9 m + 0.1 g, and the step looks ahead (Nesterov): 0.1 g + 0.9 m."""
    one, two = gradient(1), gradient(2)
    first = 0.1 * one
    second = 0.9 * first + 0.1 * two
    expected = sum(
        -0.5 * orthogonalise((0.1 * g + 0.9 * m)[None])[0] for g, m in ((one, first), (two, second))
    )
    found = stepped([one, two], lr=0.5, momentum=0.9, renewed_every=1)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)


def test_an_update_is_used_for_several_steps_and_no_gradient_is_lost():
    """Steps 1 to 3 follow the first gradient, step 4 what all four have left in the momentum."""
    gradients = [gradient(seed) for seed in range(5, 9)]
    momentum = sum(0.1 * 0.9 ** (3 - k) * each for k, each in enumerate(gradients))
    first = orthogonalise(gradients[0][None])[0]
    fourth = orthogonalise((0.1 * gradients[3] + 0.9 * momentum)[None])[0]
    options = {"lr": 0.5, "momentum": 0.9, "renewed_every": 3}
    three = stepped(gradients[:3], **options)
    torch.testing.assert_close(three, -1.5 * first, rtol=0.02, atol=0.01)
    four = stepped(gradients, **options)
    torch.testing.assert_close(four - three, -0.5 * fourth, rtol=0.02, atol=0.01)


def test_each_gate_is_treated_alone():
    whole = gradient(3, blocks=3)
    whole[H : 2 * H] *= 100
    found = stepped([whole], lr=1.0)
    for k in range(3):
        rows = slice(k * H, (k + 1) * H)
        alone = stepped([whole[rows]], lr=1.0)
        torch.testing.assert_close(found[rows], alone, rtol=0.02, atol=0.01)


def test_weight_decay_is_decoupled():
    start = gradient(4)
    found = stepped([torch.zeros(H, H)], start=start.clone(), lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(found, start * 0.95)


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (3, 4)])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_weight_has_one_optimizer(cell, layers, embedding, kind):
    network = CharNetwork(reference.make_config(cell, layers=layers, embedding=embedding))
    optimizers = build_optimizers(network, TrainingConfig(optimizer=kind, steps=1))
    names = {parameter: name for name, parameter in network.named_parameters()}
    given = [
        (names[parameter], isinstance(optimizer, Muon))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(name for name, _ in given) == sorted(names.values())
    inner = {f"layers.{k}.weight_hh_l0" for k in range(layers)}
    inner |= {f"layers.{k}.weight_ih_l0" for k in range(1, layers)}
    assert {name for name, is_muon in given if is_muon} == (inner if kind == "muon" else set())
