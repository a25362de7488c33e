"""LSTM layers that charrnn does not have, for `ablations.py`: each takes the place of an `nn.LSTM`.

Shapes: T characters, B batch rows, I inputs, H hidden units; gates in torch's order i, f, g, o.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

State = tuple[Tensor, Tensor]


class Layer(nn.LSTM):
    """What all have: torch's names and shapes."""

    weight_ih_l0: Tensor  # [4H, I]
    weight_hh_l0: Tensor  # [4H, H]
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor


class Residual(Layer):
    """The input is added to the output (He et al. 2016); for I = H."""

    def forward(self, x_TBI: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Return the sum, and the state of the layer."""
        y_TBH, state = super().forward(x_TBI, state)
        return y_TBH + x_TBI, state


class WeightDropped(Layer):
    """Single recurrent weights are dropped for a whole window (Merity et al. 2018)."""

    rate = 0.3

    def forward(self, x_TBI: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Return the hidden states, and the state after the last."""
        return _with_recurrent(
            self, x_TBI, state, F.dropout(self.weight_hh_l0, self.rate, self.training)
        )


class WeightNoised(Layer):
    """Noise is added to the recurrent weights for a whole window (Graves 2011)."""

    deviation = 0.02

    def forward(self, x_TBI: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Return the hidden states, and the state after the last."""
        noise = torch.randn_like(self.weight_hh_l0) * (self.deviation if self.training else 0.0)
        return _with_recurrent(self, x_TBI, state, self.weight_hh_l0 + noise)


def _with_recurrent(
    layer: Layer, x_TBI: Tensor, state: State, w_hh: Tensor
) -> tuple[Tensor, State]:
    weights = [layer.weight_ih_l0, w_hh, layer.bias_ih_l0, layer.bias_hh_l0]
    y_TBH, h, c = torch.lstm(x_TBI, state, weights, True, 1, 0.0, layer.training, False, False)
    return y_TBH, (h, c)


class Stepped(Layer):
    """The LSTM character by character, in pieces that others replace."""

    def forward(self, x_TBI: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Return the hidden states, and the state after the last."""
        h_BH, c_BH = state[0][0], state[1][0]
        hidden = []
        for zx_BG in self.from_input(F.linear(x_TBI, self.weight_ih_l0)).unbind():
            z_BG = zx_BG + self.from_state(F.linear(h_BH, self.weight_hh_l0))
            i, f, g, o = (z_BG + self.bias_ih_l0 + self.bias_hh_l0).chunk(4, 1)
            c_new = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
            h_new = torch.sigmoid(o) * torch.tanh(self.from_cell(c_new))
            h_BH, c_BH = self.kept(h_BH, h_new, c_BH, c_new)
            hidden.append(h_BH)
        return torch.stack(hidden), (h_BH.unsqueeze(0), c_BH.unsqueeze(0))

    def from_input(self, z_TBG: Tensor) -> Tensor:
        """Return what the inputs add to the gates, given their product with the weights."""
        return z_TBG

    def from_state(self, z_BG: Tensor) -> Tensor:
        """Return what the hidden state adds to the gates, given its product with the weights."""
        return z_BG

    def from_cell(self, c_BH: Tensor) -> Tensor:
        """Return what the output shows of the cell."""
        return c_BH

    def kept(self, h: Tensor, h_new: Tensor, c: Tensor, c_new: Tensor) -> State:
        """Return the state after a character, given that before it and the one computed."""
        return h_new, c_new


class LayerNormalised(Stepped):
    """What reaches the gates from the input and from the state, and the cell (Ba et al. 2016)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        """Begin with gains of 1 and, for the cell, no shift; the gates have their biases."""
        super().__init__(inputs, hidden)
        self.input_gain = nn.Parameter(torch.ones(4 * hidden))
        self.state_gain = nn.Parameter(torch.ones(4 * hidden))
        self.cell_gain = nn.Parameter(torch.ones(hidden))
        self.cell_shift = nn.Parameter(torch.zeros(hidden))

    def from_input(self, z_TBG: Tensor) -> Tensor:
        """Normalise."""
        return F.layer_norm(z_TBG.float(), z_TBG.shape[-1:], self.input_gain)

    def from_state(self, z_BG: Tensor) -> Tensor:
        """Normalise."""
        return F.layer_norm(z_BG.float(), z_BG.shape[-1:], self.state_gain)

    def from_cell(self, c_BH: Tensor) -> Tensor:
        """Normalise."""
        return F.layer_norm(c_BH, c_BH.shape[-1:], self.cell_gain, self.cell_shift)


class Zoneout(Stepped):
    """Some units keep their old state, others in each row and step (Krueger et al. 2017)."""

    cell_rate, hidden_rate = 0.2, 0.05

    def kept(self, h: Tensor, h_new: Tensor, c: Tensor, c_new: Tensor) -> State:
        """Mix old and new: by chance in training, by the expected share otherwise."""
        return self._mix(h, h_new, self.hidden_rate), self._mix(c, c_new, self.cell_rate)

    def _mix(self, old: Tensor, new: Tensor, rate: float) -> Tensor:
        if not self.training:
            return torch.lerp(new.float(), old.float(), rate)
        return torch.where(torch.rand_like(old) < rate, old, new)
