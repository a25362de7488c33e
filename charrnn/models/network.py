"""The networks that torch trains: ids in, logits out; no loss, no files, no choice of device.

A model is an ensemble of networks, often of one, and its logits are their mean.

Shapes: M members, B batch rows, T characters, E embedding, H hidden units, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn.config import REVERSE, ModelConfig
from charrnn.models.gru import gru, simple_gru
from charrnn.models.peephole import peephole_lstm
from charrnn.storage.merge import reverse_part, split_weights, stack_weights
from charrnn.storage.model_file import SavedModel, Weights
from charrnn.vocab import FIRST_CHARACTER_ID, Vocabulary

BothSides = tuple[Tensor, Tensor]
"""What a network reads from the right: `[B, T]` ids, and the position that each stands beside."""
NetworkState = list[Any]
"""Of a `CharNetwork`: per layer `(h_BH, c_BH)` for the LSTMs, `(h_BH,)` for the other cells. Of an
`Ensemble`: such a list per member."""


class CharNetwork(nn.Module):
    """Embedding (or one-hot) → stacked recurrent layers → logits.

    Dropout (Zaremba et al. 2014) acts on the input at a rate of its own, and between layers and
    before the output. One mask is drawn per row and window and kept for all its characters (Gal &
    Ghahramani 2016). Recurrent dropout hides hidden units from the recurrent weights of their
    layer, the same ones in all rows for a whole window: a mask on the columns of the weights.

    Initialisation, per layer:
        recurrent weights  orthogonal in each gate (Saxe et al. 2014); for the relu RNN the
                           identity (Le et al. 2015)
        input weights      Glorot uniform in each gate (Glorot & Bengio 2010); for the relu RNN
                           He normal (He et al. 2015)
        biases             0, the LSTMs' forget gate 1 (Gers et al. 2000, Jozefowicz et al. 2015)
        peepholes          0: training begins with the plain LSTM
        embedding          normal of variance 1/E
        output             zero bias, uniform weights within ±1/√H
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build and initialise with torch's current random generator.

        Args:
            config: the shape, of one network.
            dropout: rate between layers and before the output.
            input_dropout: rate on the input.
            recurrent_dropout: rate on the recurrent weights.
            generator: of the masks, on the device; None for torch's current one.
        """
        super().__init__()
        assert config.members == 1
        self.config = config
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.generator = generator
        self.embedding = (
            nn.Embedding(config.vocab_size, config.embedding_size)
            if config.embedding_size
            else None
        )
        self.layers = nn.ModuleList(self._make_layer(k) for k in range(config.num_layers))
        self.output = nn.Linear(config.hidden_size, config.vocab_size)
        self._initialise()

    def _make_layer(self, k: int) -> nn.Module:
        """Return a layer whose arrays have torch's names: `weight_ih_l0` and so on."""
        config, inputs, hidden = self.config, self.config.input_size(k), self.config.hidden_size
        if config.cell == "lstm":
            return nn.LSTM(inputs, hidden)
        if config.cell == "gru":
            return nn.GRU(inputs, hidden)
        if config.cell == "rnn":
            return nn.RNN(inputs, hidden, nonlinearity=config.nonlinearity)
        return nn.ParameterDict(  # of pairs: a dict would be sorted
            [
                (f"{name.removeprefix(f'layers.{k}.')}_l0", torch.empty(shape))
                for name, shape in config.weight_shapes().items()
                if name.startswith(f"layers.{k}.")
            ]
        )

    @torch.no_grad()
    def _initialise(self) -> None:
        hidden = self.config.hidden_size
        relu = self.config.nonlinearity == "relu"
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(self.config.embedding_size))
        arrays = dict(self.named_parameters())
        for k in range(self.config.num_layers):
            blocks_ih = torch.split(arrays[f"layers.{k}.weight_ih_l0"], hidden)
            blocks_hh = torch.split(arrays[f"layers.{k}.weight_hh_l0"], hidden)
            for w_ih, w_hh in zip(blocks_ih, blocks_hh, strict=True):
                if relu:
                    nn.init.kaiming_normal_(w_ih, nonlinearity="relu")
                    nn.init.eye_(w_hh)
                else:
                    nn.init.xavier_uniform_(w_ih)
                    nn.init.orthogonal_(w_hh)
            nn.init.zeros_(arrays[f"layers.{k}.bias_ih_l0"])
            nn.init.zeros_(arrays[f"layers.{k}.bias_hh_l0"])
            if self.config.has_memory:
                arrays[f"layers.{k}.bias_ih_l0"][hidden : 2 * hidden] = 1.0
            if self.config.cell == "peephole-lstm":
                nn.init.zeros_(arrays[f"layers.{k}.peephole_l0"])
        bound = 1 / math.sqrt(hidden)
        nn.init.uniform_(self.output.weight, -bound, bound)
        nn.init.zeros_(self.output.bias)

    def initial_state(self, batch: int) -> NetworkState:
        """Return a zero state for `batch` rows, on the device and in the type of the weights."""
        parts = 2 if self.config.has_memory else 1
        zeros = self.output.weight.new_zeros(batch, self.config.hidden_size)
        return [(zeros,) * parts for _ in self.layers]

    def forward(
        self, ids_BT: Tensor, state: NetworkState, from_right: BothSides | None = None
    ) -> tuple[Tensor, NetworkState]:
        """Return the logits after each character `[B, T, V]`, and the state after the last.

        Args:
            ids_BT: integer ids `[B, T]`.
            state: state before the first character, as returned here or by `initial_state`.
            from_right: None; a `BidirectionalNetwork` reads it.
        """
        assert from_right is None
        x_TBI = self._read(ids_BT.t())
        after: NetworkState = []
        for k, (layer, parts) in enumerate(zip(self.layers, state, strict=True)):
            x_TBI = self._drop(x_TBI, self.dropout if k else self.input_dropout)
            x_TBI, ends = self._run(x_TBI, parts, self._weights_of(layer))
            after.append(ends)
        logits_TBV = self.output(self._drop(x_TBI, self.dropout))
        return logits_TBV.transpose(0, 1), after

    def step(self, ids_B: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """Return the logits `[B, V]` after one character, and the state.

        The same function as `forward`, and the h of each layer is one node of the graph: all that
        is computed later depends on it.
        """
        x_TBI = self._read(ids_B[None])
        after: NetworkState = []
        for layer, parts in zip(self.layers, state, strict=True):
            _, ends = self._run(x_TBI, parts, self._weights_of(layer))
            after.append(ends)
            x_TBI = ends[0][None]
        return self.output(x_TBI[0]), after

    def _read(self, ids_TB: Tensor) -> Tensor:
        """Return the input of the first layer `[T, B, I]`."""
        if self.embedding is not None:
            embedded: Tensor = self.embedding(ids_TB)
            return embedded
        ids_V = torch.arange(self.config.vocab_size, device=ids_TB.device)
        return (ids_TB[..., None] == ids_V).to(self.output.weight.dtype)

    def _weights_of(self, layer: nn.Module) -> list[Tensor]:
        """Return w_ih, w_hh, b_ih, b_hh and peepholes of a layer, with recurrent dropout."""
        weights: list[Tensor] = list(layer.parameters())
        if not self.training or self.recurrent_dropout == 0:
            return weights
        weights[1] = self._drop(weights[1], self.recurrent_dropout)
        is_cudnn = weights[1].is_cuda and isinstance(layer, nn.RNNBase)
        return in_one_buffer(weights) if is_cudnn else weights

    def _run(
        self, x_TBI: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the outputs of a layer `[T, B, H]` and its state after the last character."""
        cell, is_relu = self.config.cell, self.config.nonlinearity == "relu"
        if cell == "peephole-lstm":
            x_TBI, *ends = peephole_lstm(x_TBI, *parts, *weights)
            return x_TBI, tuple(ends)
        if cell == "gru-simple" or (cell == "gru" and x_TBI.device.type == "cpu"):
            loop = gru if cell == "gru" else simple_gru
            x_TBI, h = loop(x_TBI, *parts, *weights)
            return x_TBI, (h,)
        if cell == "rnn" and x_TBI.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # autocast keeps its copies in a cache that members on other threads empty meanwhile
            weights = [weight.to(torch.get_autocast_dtype("cpu")) for weight in weights]
        before = [part.unsqueeze(0) for part in parts]
        # with biases, one layer, no dropout of its own, one direction, time first
        how = (weights, True, 1, 0.0, self.training, False, False)
        if cell == "lstm":
            x_TBI, *ends = torch.lstm(x_TBI, before, *how)
        else:
            run = torch.gru if cell == "gru" else torch.rnn_relu if is_relu else torch.rnn_tanh
            x_TBI, *ends = run(x_TBI, before[0], *how)
        return x_TBI, tuple(end.squeeze(0) for end in ends)

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        """Apply one dropout mask, of the shape of a row, to all rows: `[T, B, I]` or `[G, H]`."""
        if not self.training or rate == 0:
            return x
        keep = 1 - rate
        return x * torch.empty_like(x[0]).bernoulli_(keep, generator=self.generator).div_(keep)

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the arrays under the names of `ModelConfig.weight_shapes`."""
        return {
            name.removesuffix("_l0"): value.detach().to("cpu", torch.float32, copy=True).numpy()
            for name, value in self.named_parameters()
        }

    @torch.no_grad()
    def import_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of a model file."""
        for name, value in self.named_parameters():
            value.copy_(torch.from_numpy(np.asarray(weights[name.removesuffix("_l0")])))


class BidirectionalNetwork(nn.Module):
    """A bidirectional RNN that predicts each character from all others (Schuster & Paliwal 1997).

    It is two networks, of which one reads the text from left to right and one from right to left;
    the logits at a place are the sum of theirs,

        logits_t = V h→_{t-1} + b + V' h←_{t+1} + b',

    where h→_{t-1} has read all characters before the place, and h←_{t+1} all behind it. The layers
    of the two do not meet: in a stack in which they did, the states that reach a place would have
    read its own character. The state that is carried is that of the first; the second begins with
    a zero state at the end of each window.
    """

    def __init__(self, forwards: CharNetwork, backwards: CharNetwork) -> None:
        """Take the networks as they are."""
        super().__init__()
        self.config = replace(forwards.config, bidirectional=True)
        self.forwards, self.backwards = forwards, backwards
        self.generator = forwards.generator
        assert backwards.generator is self.generator

    def initial_state(self, batch: int) -> NetworkState:
        """Return a zero state for `batch` rows."""
        return self.forwards.initial_state(batch)

    def forward(
        self, ids_BT: Tensor, state: NetworkState, from_right: BothSides | None = None
    ) -> tuple[Tensor, NetworkState]:
        """Return the logits at each place `[B, T, V]`, and the left-to-right state after the last.

        Args:
            ids_BT: the character before each place.
            state: state before the first of them.
            from_right: see `charrnn.batches.windows.from_both_sides`.
        """
        assert from_right is not None
        reversed_BT, order_BT = from_right
        logits_BTV, after = self.forwards(ids_BT, state)
        others_BTV, _ = self.backwards(reversed_BT, self.initial_state(len(ids_BT)))
        order_BTV = order_BT[..., None].expand_as(others_BTV)
        return logits_BTV + others_BTV.gather(1, order_BTV), after

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the arrays under the names of `ModelConfig.weight_shapes`."""
        backwards = self.backwards.export_weights()
        return self.forwards.export_weights() | {
            f"{REVERSE}{name}": array for name, array in backwards.items()
        }

    def import_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of a model file."""
        self.forwards.import_weights(weights)
        self.backwards.import_weights(reverse_part(weights))


Member = CharNetwork | BidirectionalNetwork


def build_member(config: ModelConfig, **how: Any) -> Member:
    """Return one network of a model, of the config's kind; keywords as for `CharNetwork`."""
    one = replace(config, members=1, bidirectional=False)
    network = CharNetwork(one, **how)
    if not config.bidirectional:
        return network
    return BidirectionalNetwork(network, CharNetwork(one, **how))


def in_one_buffer(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return equal weights that lie behind one another in one buffer.

    cuDNN uses such weights in place, as `flatten_parameters` lays them out; weights that lie apart
    it would gather anew at every window, with a warning.
    """
    buffer = torch.cat([weight.flatten() for weight in weights])
    parts = torch.split(buffer, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def select_rows(state: NetworkState, rows: Tensor) -> NetworkState:
    """Return the batch rows of a state that have the numbers `rows`, in their order."""
    return map_state(lambda part: part.index_select(0, rows), state)


def detach(state: NetworkState, keep_B: Tensor | None = None) -> NetworkState:
    """Cut a state off from its history, and zero the batch rows where `keep_B` is 0, not 1."""
    if keep_B is None:
        return map_state(Tensor.detach, state)
    return map_state(lambda part: part.detach() * keep_B[:, None].to(part.dtype), state)


def map_state(function: Callable[[Tensor], Tensor], state: NetworkState) -> NetworkState:
    """Apply a function to every tensor of a state."""

    def mapped(part: Any) -> Any:
        return function(part) if isinstance(part, Tensor) else type(part)(map(mapped, part))

    result: NetworkState = mapped(state)
    return result


class Ensemble(nn.Module):
    """Networks of one shape on one device.

    Shapes: M members, B batch rows, T characters, V ids.
    """

    members: list[Member]

    def __init__(self, members: Sequence[Member]) -> None:
        """Take the networks as they are."""
        super().__init__()
        self.config = replace(members[0].config, members=len(members))
        self.members = nn.ModuleList(members)  # type: ignore[assignment]

    def initial_state(self, batch: int) -> NetworkState:
        """Return a zero state for `batch` rows."""
        return [member.initial_state(batch) for member in self.members]

    def forward(
        self, ids_BT: Tensor, state: NetworkState, from_right: BothSides | None = None
    ) -> tuple[Tensor, NetworkState]:
        """Return the mean logits after each character `[B, T, V]`, and the state after the last."""
        outcomes = [
            member(ids_BT, before, from_right)
            for member, before in zip(self.members, state, strict=True)
        ]
        after = [end for _, end in outcomes]
        if len(outcomes) == 1:
            return outcomes[0][0], after
        logits_MBTV = torch.stack([logits_BTV for logits_BTV, _ in outcomes])
        exact = torch.promote_types(logits_MBTV.dtype, torch.float32)  # also of bfloat16
        return logits_MBTV.mean(0, dtype=exact), after

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the arrays, as in `ModelConfig.weight_shapes`."""
        return stack_weights([member.export_weights() for member in self.members])

    def import_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of a model file."""
        for member, part in zip(self.members, split_weights(self.config, weights), strict=True):
            member.import_weights(part)


def transfer_weights(
    saved: SavedModel, vocabulary: Vocabulary, fresh: Weights
) -> dict[str, NDArray[Any]]:
    """Return a model's weights for `vocabulary`, which has at least the model's characters.

    Rows (of a one-hot input: columns) that belong to a character go where that character is now;
    new characters keep the rows of a freshly initialised network.

    Args:
        saved: the trained model.
        vocabulary: the new alphabet.
        fresh: weights of a new network of the same shape with the new alphabet.
    """
    places = {c: k for k, c in enumerate(vocabulary.characters, FIRST_CHARACTER_ID)}
    ids = [*range(FIRST_CHARACTER_ID), *(places[c] for c in saved.vocabulary.characters)]
    # from the end, because ensembles have an axis of members before the others
    alphabet_axes = {"embedding.weight": -2, "output.weight": -2, "output.bias": -1}
    if not saved.config.embedding_size:
        alphabet_axes["layers.0.weight_ih"] = -1
    alphabet_axes |= {f"{REVERSE}{name}": axis for name, axis in alphabet_axes.items()}
    weights = {name: np.array(old) for name, old in saved.weights.items()}
    for name, axis in alphabet_axes.items():
        if name in weights:
            old, weights[name] = weights[name], np.array(fresh[name])
            np.moveaxis(weights[name], axis, 0)[ids] = np.moveaxis(old, axis, 0)
    return weights
