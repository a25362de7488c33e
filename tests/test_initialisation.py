"""A new network starts where the docstring of `CharNetwork` says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import reference
import torch

from charrnn.models.network import CharNetwork

GATES = {
    "lstm": 4, "peephole-lstm": 4, "gru": 3, "gru-simple": 2, "rnn-tanh": 1, "rnn-relu": 1
}  # fmt: skip
ORTHOGONAL = [cell for cell in reference.CELLS if cell != "rnn-relu"]
H, E, V = 48, 80, 40


def new_weights(cell, layers=2):
    config = reference.make_config(cell, layers=layers, embedding=E, vocab_size=V, hidden=H)
    torch.manual_seed(3)
    return CharNetwork(config).export_weights()


@pytest.mark.parametrize("cell", ORTHOGONAL)
def test_recurrent_weights_are_orthogonal_in_each_gate(cell):
    weights = new_weights(cell)
    for k in range(2):
        blocks = np.split(weights[f"layers.{k}.weight_hh"], GATES[cell])
        for block in blocks:
            np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-5)
        for one, other in itertools.pairwise(blocks):
            assert not np.allclose(one, other)


def test_the_relu_rnn_starts_with_the_identity_and_he_weights():
    weights = new_weights("rnn-relu")
    for k, inputs in enumerate((E, H)):
        np.testing.assert_array_equal(weights[f"layers.{k}.weight_hh"], np.eye(H))
        std = weights[f"layers.{k}.weight_ih"].std()
        assert std == pytest.approx(math.sqrt(2 / inputs), rel=0.05)


@pytest.mark.parametrize("cell", ORTHOGONAL)
def test_input_weights_are_glorot_uniform_in_each_gate(cell):
    weights = new_weights(cell)
    for k, inputs in enumerate((E, H)):
        bound = math.sqrt(6 / (inputs + H))
        for block in np.split(weights[f"layers.{k}.weight_ih"], GATES[cell]):
            assert 0.95 * bound < np.abs(block).max() <= bound
            assert block.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("cell", reference.CELLS)
def test_biases_are_zero_but_for_the_forget_gate(cell):
    weights = new_weights(cell)
    for k in range(2):
        total = weights[f"layers.{k}.bias_ih"] + weights[f"layers.{k}.bias_hh"]
        expected = np.zeros(GATES[cell] * H)
        if cell.endswith("lstm"):
            expected[H : 2 * H] = 1
        np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(weights["output.bias"], np.zeros(V))


def test_peepholes_are_closed():
    """Training begins with the plain LSTM, and opens them."""
    weights = new_weights("peephole-lstm")
    for k in range(2):
        np.testing.assert_array_equal(weights[f"layers.{k}.peephole"], np.zeros(3 * H))


def test_embedding_and_output_weights():
    weights = new_weights("lstm")
    assert weights["embedding.weight"].std() == pytest.approx(1 / math.sqrt(E), rel=0.05)
    bound = 1 / math.sqrt(H)
    assert 0.95 * bound < np.abs(weights["output.weight"]).max() <= bound


def test_the_seed_decides():
    first, second = new_weights("lstm"), new_weights("lstm")
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_dropout_keeps_one_mask_for_all_characters_of_a_row():
    """With constant hidden units, what is left of them can be read off the logits."""
    rows, keep = 400, 0.7
    config = reference.make_config("rnn-tanh", vocab_size=5, hidden=5)
    network = CharNetwork(config, dropout=1 - keep)
    weights = {name: np.zeros(shape) for name, shape in config.weight_shapes().items()}
    weights["layers.0.bias_ih"] += 0.5  # h = tanh(0.5) whatever is read
    weights["output.weight"] = np.eye(5)
    network.import_weights(weights)
    ids = torch.zeros(rows, 6, dtype=torch.int64)
    with torch.no_grad():
        logits = network.train()(ids, network.initial_state(rows))[0].numpy()
        calm = network.eval()(ids, network.initial_state(rows))[0].numpy()
    np.testing.assert_allclose(calm, math.tanh(0.5), rtol=1e-6)
    np.testing.assert_array_equal(logits, np.repeat(logits[:, :1], 6, axis=1))
    kept = logits[:, 0] / math.tanh(0.5)
    np.testing.assert_allclose(kept * (kept - 1 / keep), 0, atol=1e-6)  # 0 or 1/keep
    assert np.mean(kept > 0) == pytest.approx(keep, abs=0.04)
    assert len(np.unique(kept > 0, axis=0)) > 10  # rows have masks of their own


@pytest.mark.parametrize("cell", ORTHOGONAL)
def test_recurrent_dropout_is_a_mask_on_the_columns_of_the_recurrent_weights(cell, monkeypatch):
    """The same units for all gates, rows and characters; gradients of hidden units are zero."""
    hidden, rows = 6, 3
    config = reference.make_config(cell, vocab_size=5, hidden=hidden, layers=2)
    network = CharNetwork(config, recurrent_dropout=0.5)
    ids = torch.randint(5, (rows, 4))
    state = [
        tuple(torch.randn_like(part) for part in parts) for parts in network.initial_state(rows)
    ]
    kept = torch.tensor([[1.0, 0, 1, 0, 0, 1], [0, 1.0, 1, 1, 0, 1]])
    masks = list(kept)
    monkeypatch.setattr(torch.Tensor, "bernoulli_", lambda x, _, generator: x.copy_(masks.pop(0)))
    logits = network.train()(ids, state)[0]
    assert not masks
    gradients = torch.autograd.grad(logits.sum(), [*network.layers.parameters()])
    by_name = dict(zip(dict(network.layers.named_parameters()), gradients, strict=True))
    for k, mask in enumerate(kept):
        columns = by_name[f"{k}.weight_hh_l0"].abs().sum(0)
        np.testing.assert_array_equal((columns > 0).numpy(), mask.numpy() > 0)
    with torch.no_grad():
        for layer, mask in zip(network.layers, kept, strict=True):
            layer.weight_hh_l0 *= mask / 0.5
        torch.testing.assert_close(logits, network.eval()(ids, state)[0])
