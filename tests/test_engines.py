"""The NumPy engine and the torch network compute the equations of `reference.py`."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import reference
import torch

from charrnn.engine.network import Engine
from charrnn.models.network import CharNetwork

CASES = [
    pytest.param(cell, layers, embedding, id=f"{cell}-{layers}-{embedding or 'onehot'}")
    for cell in reference.CELLS
    for layers in (1, 2, 3)
    for embedding in (0, 4)
]
every_network = pytest.mark.parametrize(("cell", "layers", "embedding"), CASES)

T, B = 9, 3


@pytest.fixture
def case(cell, layers, embedding):
    """Config, weights, ids `[B, T]` and the reference's logits `[B, T, V]` and final states."""
    config = reference.make_config(cell, layers=layers, embedding=embedding)
    weights = reference.random_weights(config, seed=layers)
    ids = np.random.default_rng(5).integers(config.vocab_size, size=(B, T))
    results = [reference.run(config, weights, row) for row in ids]
    return config, weights, ids, np.array([r[0] for r in results]), [r[1] for r in results]


def torch_network(config, weights, dtype=torch.float64):
    network = CharNetwork(config).to(dtype)
    network.import_weights(weights)
    return network.eval()


def assert_state(state, expected, b, atol=1e-10):
    """Row `b` of an engine's state against the reference's state of that row."""
    for layer, (h, c) in zip(state.layers, expected, strict=True):
        np.testing.assert_allclose(layer.h[b], h, atol=atol)
        if layer.c.size:
            np.testing.assert_allclose(layer.c[b], c, atol=atol)


# NumPy engine


@every_network
def test_engine_run_is_exact_in_float64(case):
    config, weights, ids, expected, states = case
    engine = Engine(config, weights, np.float64)
    state = engine.initial_state(B)
    np.testing.assert_allclose(engine.run(ids, state), expected, rtol=0, atol=1e-10)
    for b in range(B):
        assert_state(state, states[b], b)


@every_network
def test_engine_is_close_in_float32(case):
    config, weights, ids, expected, _ = case
    engine = Engine(config, weights)
    logits = engine.run(ids, engine.initial_state(B))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@every_network
def test_step_is_run_of_one_character(case):
    config, weights, ids, expected, states = case
    engine = Engine(config, weights, np.float64)
    state = engine.initial_state(B)
    for t in range(T):
        logits = engine.step(ids[:, t], state)
        np.testing.assert_allclose(logits, expected[:, t], rtol=0, atol=1e-10)
        logits[...] = math.nan  # the caller's: it may be overwritten
    for b in range(B):
        assert_state(state, states[b], b)


@every_network
def test_one_stream_without_a_batch_axis(case):
    config, weights, ids, expected, states = case
    engine = Engine(config, weights, np.float64)
    run_state, step_state = engine.initial_state(), engine.initial_state()
    logits = engine.run(ids[0], run_state)
    assert logits.shape == (T, config.vocab_size)
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-10)
    for t, i in enumerate(ids[0].tolist()):
        stepped = engine.step(i, step_state)
        assert stepped.shape == (config.vocab_size,)
        np.testing.assert_allclose(stepped, expected[0, t], rtol=0, atol=1e-10)
    assert_state(run_state, states[0], ...)
    assert_state(step_state, states[0], ...)


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("batch", [None, B])
def test_the_path_without_a_table_of_input_products(cell, batch, monkeypatch):
    """A large vocabulary's table would not fit; then the embedding is looked up each time."""
    monkeypatch.setattr("charrnn.engine.network.TABLE_BYTES", 0)
    config = reference.make_config(cell, layers=2, embedding=4)
    weights = reference.random_weights(config)
    engine = Engine(config, weights, np.float64)
    ids = np.array([3, 1, 4, 1, 5])
    expected, _ = reference.run(config, weights, ids)
    shaped = ids if batch is None else np.tile(ids, (batch, 1))
    np.testing.assert_allclose(
        engine.run(shaped, engine.initial_state(batch)),
        expected if batch is None else np.tile(expected, (batch, 1, 1)),
        atol=1e-10,
    )
    state = engine.initial_state(batch)
    for t, i in enumerate(ids):
        logits = engine.step(int(i) if batch is None else np.full(batch, i), state)
        np.testing.assert_allclose(np.atleast_2d(logits)[0], expected[t], atol=1e-10)


@every_network
def test_two_windows_with_carried_state_are_one_long_window(case):
    config, weights, ids, expected, _ = case
    engine = Engine(config, weights, np.float64)
    state = engine.initial_state(B)
    halves = [engine.run(ids[:, :4], state), engine.run(ids[:, 4:], state)]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), expected, atol=1e-10)


@pytest.mark.parametrize("cell", reference.CELLS)
def test_copied_states_are_independent(cell):
    config = reference.make_config(cell, layers=2)
    engine = Engine(config, reference.random_weights(config), np.float64)
    state = engine.initial_state(B)
    engine.run(np.arange(B * 2).reshape(B, 2), state)
    before = [layer.h.copy() for layer in state.layers]
    copy = engine.copy_state(state)
    expected = engine.copy_state(state)
    engine.step(np.zeros(B, int), copy)
    for layer, h in zip(state.layers, before, strict=True):
        np.testing.assert_array_equal(layer.h, h)
    np.testing.assert_array_equal(
        engine.step(np.zeros(B, int), expected), engine.step(np.zeros(B, int), state)
    )


@pytest.mark.parametrize("cell", reference.CELLS)
def test_rows_of_a_state_can_be_copied_in_any_order_and_number(cell):
    config = reference.make_config(cell, layers=2)
    engine = Engine(config, reference.random_weights(config), np.float64)
    state = engine.initial_state(B)
    engine.run(np.arange(B * 2).reshape(B, 2), state)
    rows = np.array([2, 0, 2, 2])
    chosen = engine.copy_state(state, rows)
    next_ids = np.array([1, 3, 2])
    whole = engine.step(next_ids, state)
    np.testing.assert_allclose(engine.step(next_ids[rows], chosen), whole[rows], atol=1e-12)


def test_an_engine_leaves_the_weights_alone():
    config = reference.make_config("lstm", embedding=4)
    weights = reference.random_weights(config)
    before = {name: array.copy() for name, array in weights.items()}
    engine = Engine(config, weights, np.float64)
    engine.run(np.arange(5), engine.initial_state())
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_large_alphabet_without_embedding_needs_no_square_matrix():
    config = reference.make_config("rnn-tanh", vocab_size=3000, hidden=2)
    weights = reference.random_weights(config)
    tracemalloc.start()
    try:
        Engine(config, weights)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# torch network


@every_network
def test_network_is_exact_in_float64(case):
    config, weights, ids, expected, states = case
    network = torch_network(config, weights)
    with torch.no_grad():
        logits, state = network(torch.from_numpy(ids), network.initial_state(B))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-10)
    for k, parts in enumerate(state):
        for j, part in enumerate(parts):
            want = np.array([states[b][k][j] for b in range(B)])
            np.testing.assert_allclose(part.numpy(), want, atol=1e-10)


@every_network
def test_network_carries_its_state(case):
    config, weights, ids, expected, _ = case
    network = torch_network(config, weights)
    with torch.no_grad():
        first, state = network(torch.from_numpy(ids[:, :4]), network.initial_state(B))
        second, _ = network(torch.from_numpy(ids[:, 4:]), state)
    np.testing.assert_allclose(torch.cat([first, second], 1).numpy(), expected, atol=1e-10)


@every_network
def test_exported_weights_are_those_of_the_file_and_come_back(case):
    config, weights, *_ = case
    network = torch_network(config, weights, torch.float32)
    exported = network.export_weights()
    assert {name: array.shape for name, array in exported.items()} == config.weight_shapes()
    for name, array in exported.items():
        np.testing.assert_array_equal(array, weights[name].astype(np.float32))
    other = CharNetwork(config)
    other.import_weights(exported)
    for name, array in other.export_weights().items():
        np.testing.assert_array_equal(array, exported[name])


def test_exported_weights_do_not_follow_training():
    network = CharNetwork(reference.make_config("lstm"))
    exported = network.export_weights()
    before = exported["output.weight"].copy()
    with torch.no_grad():
        network.output.weight += 1
    np.testing.assert_array_equal(exported["output.weight"], before)
