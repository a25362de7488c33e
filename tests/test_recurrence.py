"""Our GRU on the CPU against torch's own module, which is slower but the judge."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from charrnn.config import ModelConfig
from charrnn.models.cells import gru
from charrnn.models.network import CharNetwork

T, B, E, H = 7, 3, 5, 8


def window(dtype):
    torch.manual_seed(0)
    module = nn.GRU(E, H).to(dtype)
    x = torch.randn(T, B, E, dtype=dtype, requires_grad=True)
    h = torch.randn(B, H, dtype=dtype, requires_grad=True)
    gradients = torch.randn(T, B, H, dtype=dtype), torch.randn(B, H, dtype=dtype)
    return module, x, h, gradients


def both(dtype):
    """Outputs and gradients of torch's module and of ours."""
    module, x, h, (dy, dh) = window(dtype)
    leaves = [x, h, *module.parameters()]
    theirs, their_last = module(x, h.unsqueeze(0))
    ours, our_last = gru(x, h, *module.parameters())
    return (
        [theirs, their_last[0], *torch.autograd.grad([theirs, their_last[0]], leaves, [dy, dh])],
        [ours, our_last, *torch.autograd.grad([ours, our_last], leaves, [dy.to(ours.dtype), dh])],
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gru_and_all_its_gradients_are_those_of_torch(dtype, tolerance):
    for theirs, ours in zip(*both(dtype), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_gru_in_bfloat16_is_as_close_as_bfloat16_can_be():
    exact, _ = both(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = both(torch.float32)
    assert rough[0].dtype == torch.bfloat16, "products in bfloat16"
    assert rough[1].dtype == torch.float32, "the state to carry on stays exact"
    for one, other in zip(exact, rough, strict=True):
        assert float((one - other.float()).detach().norm() / one.detach().norm()) < 0.02


def test_only_what_is_asked_for_gets_a_gradient():
    module, x, h, _ = window(torch.float32)
    y, _ = gru(x.detach(), h.detach(), *module.parameters())
    torch.autograd.backward(y.sum())
    assert x.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_the_network_uses_it(monkeypatch):
    calls = []

    def spy(*arguments):
        calls.append(arguments)
        return gru(*arguments)

    monkeypatch.setattr("charrnn.models.network.gru", spy)
    network = CharNetwork(ModelConfig(vocab_size=9, cell="gru", hidden_size=H, num_layers=2))
    network(torch.ones(B, T, dtype=torch.int64), network.initial_state(B))
    assert len(calls) == 2
