"""What every unit does while a model reads a text: a plain loop over the equations.

The engine keeps no activations: its buffers are overwritten at every step. This loop computes the
same function, one character after another, and keeps everything.

Shapes: M members, L layers, T ids of the text, H hidden units, G·H gate rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.engine.network import QUIETLY, require_finite
from charrnn.errors import ConfigError
from charrnn.normalize import normalize
from charrnn.storage.merge import split_weights
from charrnn.storage.model_file import ModelRecord, SavedModel, Weights
from charrnn.vocab import EOS_ID, Unknown, utf8

Array = NDArray[Any]

GATES: dict[str, tuple[str, ...]] = {
    "lstm": ("input", "forget", "candidate", "output"),
    "peephole-lstm": ("input", "forget", "candidate", "output"),
    "gru": ("reset", "update", "candidate"),
    "gru-simple": ("update", "candidate"),
    "rnn": (),
}
"""By cell, the blocks of its weights in their order; an rnn has one block and no gate."""
CANDIDATE = "candidate"
"""What a gate lets in, c̃: no gate itself."""
MAX_VALUES = 1 << 27
"""Numbers of all activations of a text together: half a gigabyte in float32."""


def require_left_to_right(config: ModelConfig) -> None:
    """Refuse a model whose units cannot be followed along the text.

    Raises:
        ConfigError: it is bidirectional.
    """
    if config.bidirectional:
        raise ConfigError(
            "the model is bidirectional, and half of its units read from right to left: look into "
            "one that was trained without --bidirectional"
        )


class ReadText(NamedTuple):
    """A text as a model reads it."""

    text: str
    """In the model's Unicode form."""
    ids: Array
    """`[T]`. In a model of lines, a line end is EOS, after which the network begins anew."""
    ends: Array
    """For each character, the place in `ids` where it has been read: in a byte model that of its
    last byte."""
    unknown: tuple[Unknown, ...]
    """Characters that the model has never seen; they are read as UNK."""


def read_text(saved: ModelRecord, text: str) -> ReadText:
    """Return a text in ids.

    Raises:
        ConfigError: it is empty.
    """
    text = normalize(text, saved.text.normalize)
    if not text:
        raise ConfigError("is empty: give at least one character", field="text")
    vocabulary = saved.vocabulary
    in_lines = saved.text.documents == "line"
    parts: list[Array] = []
    for line in text.split("\n") if in_lines else [text]:
        parts += [np.array([EOS_ID]), vocabulary.encode(line).astype(np.int64)]
    lengths = [len(utf8(c)) for c in text] if vocabulary.unit == "byte" else [1] * len(text)
    unknown = (one for one in vocabulary.unknown(text) if not (in_lines and one.character == "\n"))
    return ReadText(text, np.concatenate(parts[1:]), np.cumsum(lengths) - 1, tuple(unknown))


def most_ids(config: ModelConfig) -> int:
    """Return how many ids a text may have, for all its activations to be kept."""
    arrays = 2 + len(GATES[config.cell])
    return MAX_VALUES // (arrays * config.members * config.num_layers * config.hidden_size)


def gates_of(config: ModelConfig) -> list[str]:
    """Return the names of the gates of a model's cell."""
    return [name for name in GATES[config.cell] if name != CANDIDATE]


def memory_of(config: ModelConfig) -> str:
    """Return the array that carries what a unit remembers: c where there is a memory cell."""
    return "c" if config.has_memory else "h"


@QUIETLY
def activations(saved: SavedModel, ids: Array, dtype: Any = np.float32) -> dict[str, Array]:
    """Return the activations after each id of a text, which begins after EOS and a zero state.

    Args:
        saved: the model.
        ids: `[T]`; an EOS among them begins anew from a zero state.
        dtype: to compute in.

    Returns:
        Arrays `[M, L, T, H]` by name: `h`, the hidden state; of a cell with a memory, `c`; the
        gates of the cell and its `candidate` (`GATES`). The `update` gate of a GRU is that of
        lectures, the share of the candidate in the new state: 1 - z, or 1 - u, of libraries.

    Raises:
        ConfigError: the text is too long, or the model bidirectional.
        ModelFileError: a state is not finite.
    """
    config = saved.config
    require_left_to_right(config)
    if len(ids) > most_ids(config):
        raise ConfigError(
            f"has {len(ids):,} ids, and the activations of this model fit into memory for "
            f"{most_ids(config):,}: give a shorter text",
            field="text",
        )
    inputs = np.concatenate([[EOS_ID], ids])
    names = ["h", *(["c"] if memory_of(config) == "c" else []), *GATES[config.cell]]
    shape = (config.members, config.num_layers, len(ids), config.hidden_size)
    found = {name: np.empty(shape, dtype) for name in names}
    for m, member in enumerate(split_weights(config, saved.weights)):
        for k, arrays in enumerate(_member(config, member, inputs, dtype)):
            for name, values in arrays.items():
                found[name][m, k] = values[1:]
    require_finite(found[memory_of(config)])
    return found


def _member(
    config: ModelConfig, weights: Weights, inputs: Array, dtype: Any
) -> Sequence[dict[str, Array]]:
    """Return the activations `[T, H]` of each layer of one network."""
    layers: list[dict[str, Array]] = []
    begins = inputs == EOS_ID
    x_TI = np.empty((0, 0))
    if config.embedding_size:
        x_TI = np.asarray(weights["embedding.weight"], dtype)[inputs]
    for k in range(config.num_layers):
        parts = {
            name.rpartition(".")[2]: np.asarray(array, dtype)
            for name, array in weights.items()
            if name.startswith(f"layers.{k}.")
        }
        w_ih = parts["weight_ih"]
        is_one_hot = k == 0 and not config.embedding_size
        z_TG = w_ih.T[inputs] if is_one_hot else x_TI @ w_ih.T
        z_TG = z_TG + parts["bias_ih"]
        layers.append(_STEPS[config.cell](config, z_TG, begins, parts))
        x_TI = layers[-1]["h"]
    return layers


def _lstm(
    config: ModelConfig, z_TG: Array, begins: Array, parts: dict[str, Array]
) -> dict[str, Array]:
    """Γ = σ(z + U h + p ∘ c), c̃ = tanh(z + U h), c' = Γi ∘ c̃ + Γf ∘ c, h' = Γo ∘ tanh(c').

    The peepholes p of the input and forget gates see c, those of the output gate c'.
    """
    names = (*GATES[config.cell], "h", "c")
    hidden, u, b = config.hidden_size, parts["weight_hh"], parts["bias_hh"]
    found = np.empty((len(z_TG), len(names), hidden), z_TG.dtype)
    zero = np.zeros((3, hidden), z_TG.dtype)
    p_i, p_f, p_o = parts.get("peephole", zero).reshape(3, hidden)
    for t, (z, begin) in enumerate(zip(z_TG, begins, strict=True)):
        if begin:
            h = c = zero[0]
        i, f, g, o = (z + u @ h + b).reshape(4, hidden)
        i, f, g = _sigmoid(i + p_i * c), _sigmoid(f + p_f * c), np.tanh(g)
        c = i * g + f * c
        o = _sigmoid(o + p_o * c)
        h = o * np.tanh(c)
        found[t] = i, f, g, o, h, c
    return {name: found[:, k] for k, name in enumerate(names)}


def _gru(
    config: ModelConfig, z_TG: Array, begins: Array, parts: dict[str, Array]
) -> dict[str, Array]:
    """Γ = σ(z + U h), c̃ = tanh(z + Γr ∘ (U h)), h' = Γu ∘ c̃ + (1 - Γu) ∘ h.

    The file has z = 1 - Γu; the simple cell has no Γr.
    """
    names = (*GATES[config.cell], "h")
    hidden, u, b = config.hidden_size, parts["weight_hh"], parts["bias_hh"]
    blocks = len(GATES[config.cell])
    found = np.empty((len(z_TG), len(names), hidden), z_TG.dtype)
    for t, (z, begin) in enumerate(zip(z_TG, begins, strict=True)):
        if begin:
            h = np.zeros(hidden, z_TG.dtype)
        outer, inner = z.reshape(blocks, hidden), (u @ h + b).reshape(blocks, hidden)
        gates = _sigmoid(outer[:-1] + inner[:-1])
        reset, kept = gates[:-1], gates[-1]
        candidate = np.tanh(outer[-1] + (reset[0] if len(reset) else 1) * inner[-1])
        h = (1 - kept) * candidate + kept * h
        found[t] = (*reset, 1 - kept, candidate, h)
    return {name: found[:, k] for k, name in enumerate(names)}


def _rnn(
    config: ModelConfig, z_TG: Array, begins: Array, parts: dict[str, Array]
) -> dict[str, Array]:
    """h' = φ(z + U h), φ = tanh or relu."""
    hidden, u, b = config.hidden_size, parts["weight_hh"], parts["bias_hh"]
    found = np.empty((len(z_TG), hidden), z_TG.dtype)
    for t, (z, begin) in enumerate(zip(z_TG, begins, strict=True)):
        if begin:
            h = np.zeros(hidden, z_TG.dtype)
        a = z + u @ h + b
        h = np.maximum(a, 0) if config.nonlinearity == "relu" else np.tanh(a)
        found[t] = h
    return {"h": found}


_STEPS: dict[str, Callable[[ModelConfig, Array, Array, dict[str, Array]], dict[str, Array]]] = {
    "lstm": _lstm,
    "peephole-lstm": _lstm,
    "gru": _gru,
    "gru-simple": _gru,
    "rnn": _rnn,
}


def _sigmoid(a: Array) -> Array:
    half: Array = 0.5 * np.tanh(0.5 * a) + 0.5
    return half


def levels(values: Array, name: str) -> Array:
    """Return activations as levels from -1 to 1, for colours.

    A gate is -1 closed and 1 open. What leaves [-1, 1], as memory cells that count and the states
    of a relu RNN do, is divided by the largest value of its unit.

    Args:
        values: `[.., T, H]`.
        name: of the array in `activations`.
    """
    if name not in ("h", "c", CANDIDATE):
        gates: Array = 2 * values - 1
        return gates
    scaled: Array = values / np.abs(values).max(axis=-2, keepdims=True, initial=1.0)
    return scaled


def packed(values: Array) -> bytes:
    """Return levels `[M, L, N, H]` as bytes, 127 for 1: unit by unit, its text in a row."""
    whole = np.round(127 * np.clip(values, -1, 1)).astype(np.int8)
    return np.ascontiguousarray(whole.swapaxes(2, 3)).tobytes()


def require_index(given: int, size: int, field: str) -> int:
    """Return the number of a unit, layer or member if the model has it.

    Raises:
        ConfigError: it has not.
    """
    if not 0 <= given < size:
        which = "only 0" if size == 1 else f"0 to {size - 1:,}"
        raise ConfigError(f"must be one that the model has, {which}, got {given}", field=field)
    return given


def require_gate(config: ModelConfig, gate: str) -> str:
    """Return the name of a gate if the model's cell has it.

    Raises:
        ConfigError: it has not.
    """
    known = gates_of(config)
    if gate not in known:
        has = f"has {', '.join(known)}" if known else "has no gates"
        raise ConfigError(
            f"must be one that the model has: its {config.cell} cell {has}, got {gate}",
            field="gate",
        )
    return gate
