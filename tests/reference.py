"""The networks' equations, transcribed one unit at a time in float64: the judge of both engines.

Sources: LSTM Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, peepholes Gers
& Schmidhuber 2000; GRU Cho et al. 2014 in cuDNN's variant, the reset gate after the recurrent
product; RNN Elman 1990. Written for reading, and without a look at how the engines compute the
same thing.

Arrays are those of `ModelConfig.weight_shapes()`: gate blocks one below the other, LSTM in the
order input, forget, cell, output, its peepholes input, forget, output, GRU in the order reset,
update, new, of which the simple GRU has the last two; an ensemble's have a leading axis of its
members.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from charrnn.config import ModelConfig

CELLS = ("lstm", "peephole-lstm", "gru", "gru-simple", "rnn-tanh", "rnn-relu")


def cell_and_nonlinearity(cell):
    """The two settings of one of `CELLS`."""
    return ("rnn", cell.removeprefix("rnn-")) if cell.startswith("rnn-") else (cell, "tanh")


def make_config(
    cell, *, layers=1, embedding=0, vocab_size=7, hidden=5, members=1, bidirectional=False
):
    """A small config of one of `CELLS`."""
    name, nonlinearity = cell_and_nonlinearity(cell)
    return ModelConfig(
        vocab_size=vocab_size,
        cell=name,
        nonlinearity=nonlinearity,
        hidden_size=hidden,
        num_layers=layers,
        embedding_size=embedding,
        members=members,
        bidirectional=bidirectional,
    )


def random_weights(config, seed=0, scale=0.6):
    """Normal weights and biases in float64, nothing zero that an engine could forget."""
    rng = np.random.default_rng(seed)
    return {name: scale * rng.normal(size=shape) for name, shape in config.weight_shapes().items()}


def zero_state(config):
    """Per layer the pair (h, c); c is used by the LSTMs only."""
    return [(np.zeros(config.hidden_size), np.zeros(config.hidden_size))] * config.num_layers


def sigmoid(a):
    return 1.0 / (1.0 + math.exp(-a))


def lstm_step(x, h, c, W, U, b, d):
    """One LSTM step; W, b act on the input, U, d on the state."""
    H = len(h)
    new_h, new_c = np.empty(H), np.empty(H)
    for j in range(H):
        i, f, g, o = (W[k] @ x + b[k] + U[k] @ h + d[k] for k in (j, H + j, 2 * H + j, 3 * H + j))
        new_c[j] = sigmoid(f) * c[j] + sigmoid(i) * math.tanh(g)
        new_h[j] = sigmoid(o) * math.tanh(new_c[j])
    return new_h, new_c


def peephole_lstm_step(x, h, c, W, U, b, d, p):
    """One LSTM step whose gates see c, the output gate the new one."""
    H = len(h)
    new_h, new_c = np.empty(H), np.empty(H)
    for j in range(H):
        i, f, g, o = (W[k] @ x + b[k] + U[k] @ h + d[k] for k in (j, H + j, 2 * H + j, 3 * H + j))
        new_c[j] = sigmoid(f + p[H + j] * c[j]) * c[j] + sigmoid(i + p[j] * c[j]) * math.tanh(g)
        new_h[j] = sigmoid(o + p[2 * H + j] * new_c[j]) * math.tanh(new_c[j])
    return new_h, new_c


def gru_step(x, h, c, W, U, b, d):
    """One GRU step, reset gate after the product: n = tanh(W x + b + r (U h + d))."""
    H = len(h)
    new_h = np.empty(H)
    for j in range(H):
        r, u, n = j, H + j, 2 * H + j
        reset = sigmoid(W[r] @ x + b[r] + U[r] @ h + d[r])
        update = sigmoid(W[u] @ x + b[u] + U[u] @ h + d[u])
        new = math.tanh(W[n] @ x + b[n] + reset * (U[n] @ h + d[n]))
        new_h[j] = (1 - update) * new + update * h[j]
    return new_h, c


def simple_gru_step(x, h, c, W, U, b, d):
    """One step of the GRU without reset gate; z is the share of the old state that is kept."""
    H = len(h)
    new_h = np.empty(H)
    for j in range(H):
        z, n = (W[k] @ x + b[k] + U[k] @ h + d[k] for k in (j, H + j))
        new_h[j] = (1 - sigmoid(z)) * math.tanh(n) + sigmoid(z) * h[j]
    return new_h, c


def tanh_step(x, h, c, W, U, b, d):
    """One step of the simple RNN with tanh."""
    return np.array([math.tanh(W[j] @ x + b[j] + U[j] @ h + d[j]) for j in range(len(h))]), c


def relu_step(x, h, c, W, U, b, d):
    """One step of the simple RNN with relu."""
    return np.array([max(0.0, W[j] @ x + b[j] + U[j] @ h + d[j]) for j in range(len(h))]), c


def cell_step(config):
    if config.cell == "rnn":
        return {"tanh": tanh_step, "relu": relu_step}[config.nonlinearity]
    return {
        "lstm": lstm_step,
        "peephole-lstm": peephole_lstm_step,
        "gru": gru_step,
        "gru-simple": simple_gru_step,
    }[config.cell]


def run(config, weights, ids, state=None):
    """Read ids `[T]` and return the logits `[T, V]` after each, and the state after the last."""
    step = cell_step(config)
    state = list(zero_state(config) if state is None else state)
    logits = []
    for i in ids:
        if config.embedding_size:
            x = weights["embedding.weight"][i]
        else:
            x = np.zeros(config.vocab_size)
            x[i] = 1.0
        for k in range(config.num_layers):
            parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
            parts += ["peephole"] * (config.cell == "peephole-lstm")
            state[k] = step(x, *state[k], *(weights[f"layers.{k}.{part}"] for part in parts))
            x = state[k][0]
        logits.append(weights["output.weight"] @ x + weights["output.bias"])
    return np.array(logits), state


def members(config, weights):
    """Config and weights of each member."""
    one = dataclasses.replace(config, members=1)
    if config.members == 1:
        return [(one, weights)]
    return [(one, {name: a[m] for name, a in weights.items()}) for m in range(config.members)]


def run_ensemble(config, weights, ids):
    """Read ids `[T]` and return the mean logits `[T, V]`, and each member's state at the end."""
    outcomes = [run(*member, ids) for member in members(config, weights)]
    mean = sum(logits for logits, _ in outcomes) / config.members
    return mean, [state for _, state in outcomes]


def run_both_sides(config, weights, ids):
    """Return the mean logits `[T, V]` at each place of a text, given all its other characters."""
    EOS, sums = 1, 0.0
    for one, arrays in members(config, weights):
        reverse = {k.removeprefix("reverse."): a for k, a in arrays.items() if "reverse." in k}
        before, _ = run(one, arrays, [EOS, *ids[:-1]])
        behind, _ = run(one, reverse, [EOS, *ids[:0:-1]])
        sums = sums + before + behind[::-1]
    return sums / config.members


def logprobs(logits):
    """Natural log-probabilities `[T, V]` from logits."""
    return np.array([row - math.log(math.fsum(map(math.exp, row))) for row in logits])


def loss(config, weights, inputs, targets, state=None):
    """Summed cross-entropy of one batch row in nats; a negative target does not count."""
    logits, _ = run(config, weights, inputs, state)
    return -sum(row[t] for row, t in zip(logprobs(logits), targets, strict=True) if t >= 0)
