"""The NumPy engine and the torch network compute the equations of `reference.py`."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch

from charrnn.engine.cells import Matrix
from charrnn.engine.network import Engine
from charrnn.models.network import CharNetwork, Ensemble
from charrnn.storage.model_file import MAX_WEIGHT

CASES = [
    pytest.param(cell, layers, embedding, id=f"{cell}-{layers}-{embedding or 'onehot'}")
    for cell in reference.CELLS
    for layers in (1, 2, 3)
    for embedding in (0, 4)
]
every_shape = pytest.mark.parametrize(("cell", "layers", "embedding"), CASES)
every_number = pytest.mark.parametrize("members", [1, 3])

T, B = 9, 3


@pytest.fixture
def case(cell, layers, embedding, members):
    """Config, weights, ids `[B, T]` and the reference's logits `[B, T, V]` and final states."""
    config = reference.make_config(cell, layers=layers, embedding=embedding, members=members)
    weights = reference.random_weights(config, seed=layers)
    ids = np.random.default_rng(5).integers(config.vocab_size, size=(B, T))
    results = [reference.run_ensemble(config, weights, row) for row in ids]
    return config, weights, ids, np.array([r[0] for r in results]), [r[1] for r in results]


def torch_network(config, weights, dtype=torch.float64):
    one = replace(config, members=1)
    network = Ensemble([CharNetwork(one) for _ in range(config.members)]).to(dtype)
    network.import_weights(weights)
    return network.eval()


def assert_state(state, expected, b, atol=1e-10):
    """Row `b` of an engine's state against the reference's state of that row, per member."""
    for m, layers in enumerate(expected):
        for layer, (h, c) in zip(state.layers, layers, strict=True):
            np.testing.assert_allclose(layer.h[m, b], h, atol=atol)
            if layer.c.size:
                np.testing.assert_allclose(layer.c[m, b], c, atol=atol)


# NumPy engine


@every_shape
@every_number
def test_engine_run_is_exact_in_float64(case):
    config, weights, ids, expected, states = case
    engine = Engine(config, weights, np.float64)
    state = engine.initial_state(B)
    np.testing.assert_allclose(engine.run(ids, state), expected, rtol=0, atol=1e-10)
    for b in range(B):
        assert_state(state, states[b], b)


@every_shape
@every_number
def test_engine_is_close_in_float32(case):
    config, weights, ids, expected, _ = case
    engine = Engine(config, weights)
    logits = engine.run(ids, engine.initial_state(B))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@every_shape
@every_number
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


@every_shape
@every_number
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
@every_number
def test_the_path_without_a_table_of_input_products(cell, batch, members, monkeypatch):
    """A large vocabulary's table would not fit; then the embedding is looked up each time."""
    monkeypatch.setattr("charrnn.engine.network.TABLE_BYTES", 0)
    config = reference.make_config(cell, layers=2, embedding=4, members=members)
    weights = reference.random_weights(config)
    engine = Engine(config, weights, np.float64)
    ids = np.array([3, 1, 4, 1, 5])
    expected, _ = reference.run_ensemble(config, weights, ids)
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


@every_shape
@every_number
def test_two_windows_with_carried_state_are_one_long_window(case):
    config, weights, ids, expected, _ = case
    engine = Engine(config, weights, np.float64)
    state = engine.initial_state(B)
    halves = [engine.run(ids[:, :4], state), engine.run(ids[:, 4:], state)]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), expected, atol=1e-10)


@pytest.mark.parametrize("cell", reference.CELLS)
@every_number
def test_copied_states_are_independent(cell, members):
    config = reference.make_config(cell, layers=2, members=members)
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
@every_number
def test_rows_of_a_state_can_be_copied_in_any_order_and_number(cell, members):
    config = reference.make_config(cell, layers=2, members=members)
    engine = Engine(config, reference.random_weights(config), np.float64)
    state = engine.initial_state(B)
    engine.run(np.arange(B * 2).reshape(B, 2), state)
    rows = np.array([2, 0, 2, 2])
    chosen = engine.copy_state(state, rows)
    next_ids = np.array([1, 3, 2])
    whole = engine.step(next_ids, state)
    np.testing.assert_allclose(engine.step(next_ids[rows], chosen), whole[rows], atol=1e-12)


@pytest.mark.parametrize("cell", reference.CELLS)
@every_number
def test_the_state_of_one_stream_is_put_into_rows_of_a_batch(cell, members):
    config = reference.make_config(cell, layers=2, members=members)
    engine = Engine(config, reference.random_weights(config), np.float64)
    one, all_rows, some = engine.initial_state(), engine.initial_state(B), engine.initial_state(B)
    engine.run(np.arange(5), one)
    all_rows.assign(one)
    some.assign_rows([2, 0], one)
    ids = np.array([3, 3, 3])
    zero = engine.step(3, engine.initial_state()).copy()
    expected = engine.step(3, one)
    assert np.abs(expected - zero).max() > 0.01
    np.testing.assert_allclose(engine.step(ids, all_rows), np.tile(expected, (B, 1)), atol=1e-12)
    found = engine.step(ids, some)
    np.testing.assert_allclose(found, [expected, zero, expected], atol=1e-12)


@every_shape
@every_number
@pytest.mark.parametrize("has_table", [True, False])
def test_a_batch_may_become_empty(cell, layers, embedding, members, has_table, monkeypatch):
    """And a window may have no characters; the state is then what it was."""
    if not has_table:
        monkeypatch.setattr("charrnn.engine.network.TABLE_BYTES", 0)
    config = reference.make_config(cell, layers=layers, embedding=embedding, members=members)
    engine = Engine(config, reference.random_weights(config))
    state = engine.initial_state(2)
    engine.step(np.array([2, 3]), state)
    before = [layer.h.copy() for layer in state.layers]
    assert engine.run(np.zeros((2, 0), np.int64), state).shape == (2, 0, config.vocab_size)
    for layer, h in zip(state.layers, before, strict=True):
        np.testing.assert_array_equal(layer.h, h)
    nothing = np.zeros(0, np.int64)
    assert engine.run(nothing, engine.initial_state()).shape == (0, config.vocab_size)
    for empty in (engine.copy_state(state, nothing), engine.initial_state(0)):
        assert engine.step(nothing, empty).shape == (0, config.vocab_size)
        window = engine.run(np.zeros((0, 3), np.int64), empty)
        assert window.shape == (0, 3, config.vocab_size)
        assert engine.copy_state(empty).batch == engine.copy_state(empty, nothing).batch == 0
        empty.assign_rows(nothing, engine.initial_state())


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("cell", reference.CELLS)
def test_the_largest_weights_of_a_file_overflow_nowhere_but_in_the_relu_rnn(
    cell, embedding, members
):
    """Its states have no bound: its logits say so, and no floating-point error does."""
    config = reference.make_config(cell, layers=2, embedding=embedding, members=members)
    weights = {
        name: np.sign(array) * np.float32(MAX_WEIGHT)
        for name, array in reference.random_weights(config).items()
    }
    engine = Engine(config, weights)
    state, ids = engine.initial_state(), np.arange(60) % config.vocab_size
    with np.errstate(over="raise", invalid="raise"):
        stepped = np.array([engine.step(int(i), state).copy() for i in ids])
        run = engine.run(np.stack([ids, ids]), engine.initial_state(2))
    for logits in (stepped, run):
        assert np.isfinite(logits).all() == (cell != "rnn-relu")


def test_an_engine_leaves_the_weights_alone():
    config = reference.make_config("lstm", embedding=4, members=2)
    weights = reference.random_weights(config)
    before = {name: array.copy() for name, array in weights.items()}
    engine = Engine(config, weights, np.float64)
    engine.run(np.arange(5), engine.initial_state())
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrices_begin_at_cache_lines(dtype):
    rows = np.arange(30, dtype=dtype).reshape(2, 5, 3)[:, ::-1]
    for _ in range(20):  # NumPy's own arrays do so by chance
        matrix = Matrix(rows)
        assert matrix.rows.ctypes.data % 64 == 0
        assert matrix.rows.dtype == dtype
        np.testing.assert_array_equal(matrix.rows, rows)


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


@every_shape
@every_number
def test_network_is_exact_in_float64(case):
    config, weights, ids, expected, states = case
    network = torch_network(config, weights)
    with torch.no_grad():
        logits, state = network(torch.from_numpy(ids), network.initial_state(B))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-10)
    for m, layers in enumerate(state):
        for k, parts in enumerate(layers):
            for j, part in enumerate(parts):
                want = np.array([states[b][m][k][j] for b in range(B)])
                np.testing.assert_allclose(part.numpy(), want, atol=1e-10)


@every_shape
@every_number
def test_network_carries_its_state(case):
    config, weights, ids, expected, _ = case
    network = torch_network(config, weights)
    with torch.no_grad():
        first, state = network(torch.from_numpy(ids[:, :4]), network.initial_state(B))
        second, _ = network(torch.from_numpy(ids[:, 4:]), state)
    np.testing.assert_allclose(torch.cat([first, second], 1).numpy(), expected, atol=1e-10)


@every_shape
@every_number
def test_exported_weights_are_those_of_the_file_and_come_back(case):
    config, weights, *_ = case
    network = torch_network(config, weights, torch.float32)
    exported = network.export_weights()
    assert {name: array.shape for name, array in exported.items()} == config.weight_shapes()
    for name, array in exported.items():
        np.testing.assert_array_equal(array, weights[name].astype(np.float32))
    other = torch_network(config, exported, torch.float32)
    for name, array in other.export_weights().items():
        np.testing.assert_array_equal(array, exported[name])


def test_exported_weights_do_not_follow_training():
    network = CharNetwork(reference.make_config("lstm"))
    exported = network.export_weights()
    before = exported["output.weight"].copy()
    with torch.no_grad():
        network.output.weight += 1
    np.testing.assert_array_equal(exported["output.weight"], before)
