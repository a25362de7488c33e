"""The time loops of our own: the GRU against torch's module, the others against finite differences.

`test_engines.py` and `test_gradients.py` hold all of them to the equations.
"""

from __future__ import annotations

import pytest
import torch

from charrnn.config import ModelConfig
from charrnn.models.gru import gru, simple_gru
from charrnn.models.network import CharNetwork
from charrnn.models.peephole import peephole_lstm

T, B, E, H = 7, 3, 5, 8
LOOPS = {"gru": gru, "gru-simple": simple_gru, "peephole-lstm": peephole_lstm}
every_loop = pytest.mark.parametrize("cell", LOOPS)


def window(cell, dtype, size=(T, B, E, H)):
    """Arguments of a loop, all of which want gradients."""
    t, b, e, h = size
    config = ModelConfig(vocab_size=e, cell=cell, hidden_size=h)
    torch.manual_seed(0)
    shapes = [(t, b, e), *[(b, h)] * (1 + config.has_memory)]
    shapes += [shape for name, shape in config.weight_shapes().items() if "layers" in name]
    scales = [1.0] * (2 + config.has_memory) + [0.5] * (len(shapes) - 2 - config.has_memory)
    return [
        (scale * torch.randn(shape)).to(dtype).requires_grad_()
        for scale, shape in zip(scales, shapes, strict=True)
    ]


def outcome(loop, arguments, wanted=None):
    """The outputs, and the gradients of the arguments for random gradients of the outputs."""
    outputs = loop(*arguments)
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, wanted or arguments, gradients)]


def torchs_gru(x, h, *weights):
    y, last = torch.gru(x, h[None], weights, True, 1, 0.0, False, False, False)
    return y, last[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gru_and_all_its_gradients_are_those_of_torch(dtype, tolerance):
    arguments = window("gru", dtype)
    for theirs, ours in zip(outcome(torchs_gru, arguments), outcome(gru, arguments), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@every_loop
def test_gradients_are_the_finite_differences(cell):
    """Of every argument, through every output."""
    arguments = window(cell, torch.float64, size=(4, 2, 3, 3))
    assert torch.autograd.gradcheck(LOOPS[cell], arguments, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_without_peepholes_it_is_torchs_lstm():
    """Outputs and all other gradients."""
    *arguments, peephole = window("peephole-lstm", torch.float64)

    def theirs(x, h, c, *weights):
        y, h, c = torch.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, False, False, False)
        return y, h[0], c[0]

    def ours(*arguments):
        return peephole_lstm(*arguments, torch.zeros_like(peephole))

    pairs = zip(outcome(theirs, arguments), outcome(ours, arguments), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@every_loop
def test_in_bfloat16_it_is_as_close_as_bfloat16_can_be(cell):
    arguments = window(cell, torch.float32)
    exact = outcome(LOOPS[cell], arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rough = outcome(LOOPS[cell], arguments)
    assert rough[0].dtype == torch.bfloat16, "products in bfloat16"
    n_states = 1 + (cell == "peephole-lstm")
    assert all(y.dtype == torch.float32 for y in rough[1 : 1 + n_states]), "exact to carry on"
    for one, other in zip(exact, rough, strict=True):
        assert float((one - other.float()).detach().norm() / one.detach().norm()) < 0.02


@every_loop
def test_only_what_is_asked_for_gets_a_gradient(cell):
    n_states = 1 + (cell == "peephole-lstm")
    arguments = window(cell, torch.float32)
    states = [part.detach() for part in arguments[: 1 + n_states]]
    weights = arguments[1 + n_states :]
    y, *_ = LOOPS[cell](*states, *weights)
    torch.autograd.backward(y.sum())
    assert states[0].grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)


@every_loop
def test_the_network_uses_it(cell, monkeypatch):
    calls = []

    def spy(*arguments):
        calls.append(arguments)
        return LOOPS[cell](*arguments)

    monkeypatch.setattr(f"charrnn.models.network.{LOOPS[cell].__name__}", spy)
    network = CharNetwork(ModelConfig(vocab_size=9, cell=cell, hidden_size=H, num_layers=2))
    network(torch.ones(B, T, dtype=torch.int64), network.initial_state(B))
    assert len(calls) == 2
