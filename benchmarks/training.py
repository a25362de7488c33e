"""Speed of training, beside what the matrix products alone would take.

    python benchmarks/training.py            all cells and sizes, about three minutes
    python benchmarks/training.py --cells    the layers of all cells beside nn.LSTM, and no more
    python benchmarks/training.py --json F   write the figures as JSON, too

A training step cannot do without its matrix products: for every character of a window one product
with the recurrent weights forwards and one backwards, for few batch rows; and for the whole
window at once the products of the input, of the output and of the gradients. "share of products" is
the time that torch takes for these products alone, of the same shapes, in the same precision, with
weights packed beforehand where torch can do that, as a share of the time of the recurrent layer
(forwards and backwards) or of the whole step (with embedding, loss, clipping and optimiser).
"times torch" compares a layer with torch's own module, where ours is another, and "times LSTM" the
speed of each cell's layer with that of `nn.LSTM` of the same shape, in the same run. The last rows
compare one network with two trained side by side on half the threads each, by the characters that
all read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from measure import machine, side_by_side
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.config import Cell, ModelConfig, TrainingConfig
from charrnn.models.network import CharNetwork
from charrnn.training.optimizers import RENEWED_EVERY, build_optimizers
from charrnn.training.system import Workers, autocast, load_torch

CPU = torch.device("cpu")
VOCAB_SIZE, EMBEDDING_SIZE = 67, 32
HIDDEN = (256, 384, 512)
WINDOWS = ((16, 64), (32, 64))
"""Batch rows and characters."""
PEAK_SIZE = 2048

Task = Callable[[], None]


def product(weight: Tensor, rows: int) -> Callable[[Tensor], Any]:
    """Return the fastest way torch has to compute x W^T for x of few rows."""
    packing = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    if weight.dtype == torch.bfloat16 and packing is not None:
        packed = packing(weight, rows)
        multiply = torch.ops.mkldnn._linear_pointwise.default
        return lambda x: multiply(x, packed, None, "none", [], "")
    return lambda x: F.linear(x, weight)


def products(config: ModelConfig, batch: int, window: int, dtype: torch.dtype) -> tuple[Task, Task]:
    """Return two tasks: the products of the recurrent layer, and of the whole step."""
    hidden, inputs = config.hidden_size, config.embedding_size
    gates = config.gates * hidden
    n = batch * window

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape).to(dtype)

    h_BH, z_BG = noise(batch, hidden), noise(batch, gates)
    forwards = product(noise(gates, hidden), batch)
    backwards = product(noise(hidden, gates), batch)
    z_NG, h_NH = noise(n, gates), noise(n, hidden)
    x_NI, w_GI = noise(n, inputs), noise(gates, inputs)
    y_NV, w_VH = noise(n, config.vocab_size), noise(config.vocab_size, hidden)

    @torch.no_grad()
    def layer() -> None:
        for _ in range(window):
            forwards(h_BH)
            backwards(z_BG)
        torch.mm(z_NG.t(), h_NH)
        torch.mm(x_NI, w_GI.t())
        torch.mm(z_NG.t(), x_NI)
        torch.mm(z_NG, w_GI)

    @torch.no_grad()
    def step() -> None:
        layer()
        torch.mm(h_NH, w_VH.t())
        torch.mm(y_NV.t(), h_NH)
        torch.mm(y_NV, w_VH)

    return layer, step


def layer_task(config: ModelConfig, batch: int, window: int, dtype: str) -> Task:
    """Return a task: the recurrent layer of a network forwards and backwards."""
    network = CharNetwork(config)
    weights: list[Tensor] = list(network.layers[0].parameters())
    x = torch.randn(window, batch, config.embedding_size, requires_grad=True)
    (state,) = network.initial_state(batch)
    gradient = torch.randn(window, batch, config.hidden_size)

    def task() -> None:
        with autocast(CPU, dtype):
            y, _ = network._run(x, state, weights)
        torch.autograd.backward(y, gradient.to(y.dtype))

    return task


def torch_task(config: ModelConfig, batch: int, window: int, dtype: str) -> Task:
    """Return a task: torch's own module of the cell forwards and backwards."""
    module = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell](
        config.embedding_size, config.hidden_size
    )
    x = torch.randn(window, batch, config.embedding_size, requires_grad=True)
    gradient = torch.randn(window, batch, config.hidden_size)

    def task() -> None:
        with autocast(CPU, dtype):
            y, _ = module(x)
        torch.autograd.backward(y, gradient.to(y.dtype))

    return task


def step_task(config: ModelConfig, batch: int, window: int, dtype: str) -> Task:
    """Return a task: a whole training step, optimiser included."""
    network = CharNetwork(config, dropout=0.25)
    optimizers = build_optimizers(network, TrainingConfig(steps=1))
    ids = torch.randint(2, config.vocab_size, (batch, window))
    state = network.initial_state(batch)

    def task() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, dtype):
            logits, _ = network(ids, state)
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids.flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(list(network.parameters()), 1.0)
        for optimizer in optimizers:
            optimizer.step()

    return task


def cycle(step: Task) -> Task:
    """Return a task: the steps in which Muon's updates are recomputed once."""

    def task() -> None:
        for _ in range(RENEWED_EVERY):
            step()

    return task


def floating_point_operations(config: ModelConfig, characters: int) -> int:
    """Return those of the products of a step: two a weight forwards, four backwards."""
    layer = config.gates * config.hidden_size * (config.hidden_size + config.embedding_size)
    return 6 * characters * (layer + config.hidden_size * config.vocab_size)


def peak(dtype: torch.dtype) -> float:
    """Return the operations a second of a product of large square matrices."""
    a, b, out = (torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(3))

    def task() -> None:
        torch.mm(a, b, out=out)

    return 2 * PEAK_SIZE**3 / side_by_side({"task": task})["task"]


def shape(cell: Cell, hidden: int) -> ModelConfig:
    """Return a network of one layer."""
    return ModelConfig(
        vocab_size=VOCAB_SIZE, cell=cell, hidden_size=hidden, embedding_size=EMBEDDING_SIZE
    )


def measure(cell: Cell, hidden: int, batch: int, window: int, dtype: str) -> dict[str, Any]:
    """Return one row of the table."""
    config = shape(cell, hidden)
    bare_layer, bare_step = products(config, batch, window, getattr(torch, dtype))
    tasks = {
        "bare layer": bare_layer,
        "bare step": bare_step,
        "layer": layer_task(config, batch, window, dtype),
        "cycle": cycle(step_task(config, batch, window, dtype)),
    }
    if cell == "gru":
        tasks["torch"] = torch_task(config, batch, window, dtype)
    times = side_by_side(tasks)
    times["step"] = times["cycle"] / RENEWED_EVERY
    characters = batch * window
    row = {
        "model": f"{cell} 1×{hidden}, {batch}×{window}",
        "layer_char_per_s": characters / times["layer"],
        "layer_share_of_products": times["bare layer"] / times["layer"],
        "step_char_per_s": characters / times["step"],
        "step_share_of_products": times["bare step"] / times["step"],
        "step_gflop_per_s": floating_point_operations(config, characters) / times["step"] / 1e9,
    }
    if "torch" in times:
        row["layer_times_torch"] = times["torch"] / times["layer"]
    return row


def measure_cells(hidden: int, batch: int, window: int, dtype: str) -> dict[str, Any]:
    """Return the speed of each cell's layer as a multiple of that of `nn.LSTM`."""
    tasks = {
        cell: layer_task(shape(cell, hidden), batch, window, dtype)
        for cell in get_args(Cell)
        if cell != "lstm"
    }
    tasks["lstm"] = torch_task(shape("lstm", hidden), batch, window, dtype)
    times = side_by_side(tasks)
    return {
        "model": f"cells 1×{hidden}, {batch}×{window}",
        "lstm_char_per_s": batch * window / times["lstm"],
        **{f"{cell}_times_lstm": times["lstm"] / times[cell] for cell in get_args(Cell)},
    }


def measure_members(hidden: int, dtype: str) -> dict[str, Any]:
    """Return the characters that one network reads, and two together, each on half the threads."""
    config = shape("lstm", hidden)
    batch, window = WINDOWS[0]
    alone, *pair = (step_task(config, batch, window, dtype) for _ in range(3))
    workers = Workers(len(pair), CPU)

    def together() -> None:
        workers.map(lambda step: step(), pair)

    times = side_by_side({"one": cycle(alone), "two": cycle(together)})
    characters = RENEWED_EVERY * batch * window
    rates = {"one": characters / times["one"], "two": 2 * characters / times["two"]}
    return {
        "model": f"2 members, lstm 1×{hidden}",
        "one_char_per_s": rates["one"],
        "two_char_per_s": rates["two"],
        "two_times_one": rates["two"] / rates["one"],
    }


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    figures = "  ".join(
        f"{key} {value:,.0f}" if value >= 100 else f"{key} {value:.2f}"
        for key, value in row.items()
        if key != "model"
    )
    print(f"{row['model']:20s}  {figures}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--cells", action="store_true", help="compare the cells' layers only")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    arguments = parser.parse_args()
    load_torch()
    started, highest = time.time(), peak(getattr(torch, arguments.dtype))
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{arguments.dtype}: {highest / 1e9:,.0f} GFLOP/s in products of {PEAK_SIZE}×{PEAK_SIZE}")
    rows = []
    for hidden, (batch, window) in itertools.product(HIDDEN, WINDOWS):
        rows.append(measure_cells(hidden, batch, window, arguments.dtype))
        show(rows[-1])
    cells = () if arguments.cells else get_args(Cell)
    for cell, hidden, (batch, window) in itertools.product(cells, HIDDEN, WINDOWS):
        rows.append(measure(cell, hidden, batch, window, arguments.dtype))
        show(rows[-1])
    for hidden in () if arguments.cells else (128, *HIDDEN):
        rows.append(measure_members(hidden, arguments.dtype))
        show(rows[-1])
    print(f"{time.time() - started:.0f} s in all")
    if arguments.json:
        record = {"machine": machine(), "dtype": arguments.dtype, "peak": highest, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
