"""Speed of sampling, as ratios measured side by side in one run.

    python benchmarks/sampling.py                      all tables, about five minutes
    python benchmarks/sampling.py --cells              the cells beside each other only
    python benchmarks/sampling.py --json F             write the figures as JSON, too
    python benchmarks/sampling.py --cost MODEL TEXT    what int8 adds to the loss, instead

int8 is the precision of `charrnn sample --precision int8`, with the package numkong if it is
installed. torch is measured in two ways, and the faster counts: its LSTMCell or GRUCell called step
by step, and its LSTM or GRU with weights quantised dynamically to int8.

"bare products" are the matrix products that a step cannot do without, with the same weights, and
nothing else: the recurrent product of every layer, the input product of every layer but the first
(the first layer's is a table of rows by character), and the output product. "per weight" is the
number of weights in these products times the characters a second, beside the LSTM's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from measure import machine, side_by_side
from numpy.typing import NDArray

from charrnn.api import load
from charrnn.config import Cell, EnginePrecision, ModelConfig, SamplingConfig
from charrnn.engine.network import Engine
from charrnn.engine.quantized import numkong
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, read_prompt
from charrnn.scoring.compare import added_bits
from charrnn.storage.merge import merge_models
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import EOS_ID, Vocabulary

VOCABULARY = Vocabulary(chr(33 + k) for k in range(65))
SIZES = ((1, 256), (2, 512), (2, 1024))
COST_SHARE, COST_PIECE = 10, 2048
"""The cost is measured on the last tenth of a text, in pieces that are read side by side."""


def random_model(cell: Cell, layers: int, hidden: int, seed: int = 0) -> SavedModel:
    """Return a model with random weights that never ends a text by itself."""
    config = ModelConfig(
        vocab_size=len(VOCABULARY), cell=cell, hidden_size=hidden, num_layers=layers
    )
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in config.weight_shapes().items()
    }
    weights["output.bias"][EOS_ID] = -50.0
    return SavedModel(config=config, vocabulary=VOCABULARY, weights=weights, training={})


def products(model: SavedModel) -> list[NDArray[np.float32]]:
    """Return the matrices of the bare products of one step."""
    config = model.config
    names = [f"layers.{k}.weight_hh" for k in range(config.num_layers)]
    names += [f"layers.{k}.weight_ih" for k in range(1, config.num_layers)]
    return [np.ascontiguousarray(model.weights[name]) for name in [*names, "output.weight"]]


def bare_vectors(model: SavedModel, steps: int) -> Any:
    """Return a task: the matrix-vector products of `steps` characters of one stream."""
    triples = [
        (w, np.ones(w.shape[1], np.float32), np.empty(w.shape[0], np.float32))
        for w in products(model)
    ]

    def task() -> None:
        for _ in range(steps):
            for w, x, out in triples:
                np.dot(w, x, out=out)

    return task


def bare_matrices(model: SavedModel, steps: int, batch: int) -> Any:
    """Return a task: the matrix products of `steps` characters of `batch` streams."""
    triples = [
        (
            np.ascontiguousarray(w.T),
            np.ones((batch, w.shape[1]), np.float32),
            np.empty((batch, w.shape[0]), np.float32),
        )
        for w in products(model)
    ]

    def task() -> None:
        for _ in range(steps):
            for w, x, out in triples:
                np.dot(x, w, out=out)

    return task


def sampling(
    model: SavedModel, steps: int, streams: int, precision: EnginePrecision = "float32"
) -> Any:
    """Return a task: `streams` samples of `steps` characters, in batches of the usual size."""
    engine = Engine(model.config, model.weights, precision=precision)
    start = read_prompt(engine, np.array([], dtype=np.int64))
    config = SamplingConfig(length=steps, temperature=0.8, seed=1)
    requests = [Request(start, "", 0.8, index) for index in range(streams)]

    def task() -> None:
        if streams == 1:
            for _ in Stream(engine, VOCABULARY, requests[0], config):
                pass
        else:
            for _ in sample_batch(engine, VOCABULARY, requests, config):
                pass

    return task


def torch_cells(config: ModelConfig) -> Any:
    """Return torch's cells as a function: one-hot `[B, V]` and state → logits and state."""
    import torch

    kind = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[config.cell]
    cells = [kind(config.input_size(k), config.hidden_size) for k in range(config.num_layers)]
    output = torch.nn.Linear(config.hidden_size, config.vocab_size)

    def step(x: Any, state: Any) -> tuple[Any, Any]:
        states = []
        for cell, before in zip(cells, state or [None] * len(cells), strict=True):
            states.append(cell(x, before))
            x = states[-1][0] if config.cell == "lstm" else states[-1]
        return output(x), states

    return step


def torch_int8(config: ModelConfig) -> Any:
    """Return the same of torch's whole network, quantised dynamically."""
    import torch

    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config.cell]
    network = torch.nn.ModuleDict(
        {
            "rnn": kind(config.vocab_size, config.hidden_size, config.num_layers),
            "output": torch.nn.Linear(config.hidden_size, config.vocab_size),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to move to another package
        quantize: Any = torch.ao.quantization.quantize_dynamic
        small = quantize(network, {kind, torch.nn.Linear})

    def step(x: Any, state: Any) -> tuple[Any, Any]:
        hidden, state = small["rnn"](x[None], state)
        return small["output"](hidden[0]), state

    return step


def torch_steps(step: Any, vocab_size: int, steps: int, batch: int) -> Any:
    """Return a task: a step of torch's, softmax and a draw for each character."""
    import torch

    eye = torch.eye(vocab_size)

    @torch.no_grad()
    def task() -> None:
        state = None
        ids = torch.ones(batch, dtype=torch.int64)
        for _ in range(steps):
            logits, state = step(eye[ids], state)
            p = torch.softmax(logits / 0.8, dim=-1)
            ids = torch.multinomial(p, 1)[:, 0]

    return task


def compared(model: SavedModel, streams: int, bare: Any, rounds: int) -> dict[str, Any]:
    """Compare our two precisions with the bare products and with torch's two, in one run."""
    config = model.config
    size = config.num_parameters() * streams**0.5
    steps, few = max(40, int(4e8 / size / 100)), max(10, int(4e7 / size / 100))
    peers = {"torch_cell": torch_cells(config), "torch_int8": torch_int8(config)}
    seconds = side_by_side(
        {
            "float32": sampling(model, steps, streams),
            "int8": sampling(model, steps, streams, "int8"),
            "bare": bare(model, steps),
            **{
                name: torch_steps(peer, config.vocab_size, few, streams)
                for name, peer in peers.items()
            },
        },
        rounds,
    )
    counts = {name: few if name in peers else steps for name in seconds}
    speed = {name: streams * counts[name] / seconds[name] for name in seconds}
    many = f", {streams} streams" if streams > 1 else ""
    row = {
        "model": f"{config.cell} {config.num_layers}×{config.hidden_size}{many}",
        **{f"{name}_char_per_s": one for name, one in speed.items() if name != "bare"},
        "float32_share_of_bare": speed["float32"] / speed["bare"],
        "int8_times_float32": speed["int8"] / speed["float32"],
        "times_torch": max(speed["float32"], speed["int8"]) / max(speed[name] for name in peers),
    }
    show(row)
    return row


def one_stream() -> list[dict[str, Any]]:
    """Compare one stream of each size."""
    cells: tuple[Cell, ...] = ("lstm", "gru")
    return [
        compared(random_model(cell, layers, hidden), 1, bare_vectors, 5)
        for cell in cells
        for layers, hidden in SIZES
    ]


def all_cells() -> list[dict[str, Any]]:
    """Compare one stream of each cell with one of the LSTM of the same shape."""
    rows = []
    for layers, hidden in SIZES:
        models = {cell: random_model(cell, layers, hidden) for cell in get_args(Cell)}
        sizes = {cell: sum(w.size for w in products(model)) for cell, model in models.items()}
        steps = max(200, 400_000_000 // (sizes["lstm"] * 100))
        times = side_by_side({cell: sampling(model, steps, 1) for cell, model in models.items()})
        row: dict[str, Any] = {
            "model": f"cells {layers}×{hidden}",
            "lstm_char_per_s": steps / times["lstm"],
        }
        for cell in models:
            row[f"{cell}_times_lstm"] = times["lstm"] / times[cell]
            rates = {one: sizes[one] / times[one] for one in (cell, "lstm")}
            row[f"{cell}_per_weight"] = rates[cell] / rates["lstm"]
        rows.append(row)
        show(row)
    return rows


def many_streams() -> list[dict[str, Any]]:
    """Compare 64 streams, and 1,000 short documents with the bare products."""
    cells: tuple[Cell, ...] = ("lstm", "gru")
    bare = partial(bare_matrices, batch=64)
    rows = [compared(random_model(cell, 2, 512), 64, bare, 3) for cell in cells]
    model, count, length = random_model("lstm", 1, 256), 1000, 20
    full = count * length // 64
    times = side_by_side(
        {
            "float32": sampling(model, length, count),
            "int8": sampling(model, length, count, "int8"),
            "bare": bare_matrices(model, full, 64),
        },
        5,
    )
    rows.append(
        {
            "model": "lstm 1×256, 1,000 documents of 20",
            "float32_char_per_s": count * length / times["float32"],
            "int8_char_per_s": count * length / times["int8"],
            "float32_share_of_bare": times["bare"] / times["float32"],
        }
    )
    show(rows[-1])
    return rows


def cost(path: str, text: str) -> dict[str, Any]:
    """Measure what int8 adds to a model's loss on the last tenth of a text."""
    model = load(path)
    with open(text, encoding="utf-8", newline="") as file:
        read = file.read()
    held_out = read[-(len(read) // COST_SHARE) :]
    pieces = [held_out[k : k + COST_PIECE] for k in range(0, len(held_out), COST_PIECE)]
    engine = Engine(model.saved.config, model.saved.weights, precision="int8")
    row = {
        "model": path,
        "characters": len(held_out),
        "int8_adds_bits_per_char": added_bits(model.saved, engine, pieces),
        "numkong": numkong is not None,
    }
    show(row)
    return row


def ensembles() -> list[dict[str, Any]]:
    """Measure ensembles, beside one network with a layer of all their units."""
    rows = []
    for members, hidden in ((2, 640), (4, 512)):
        parts = [random_model("lstm", 1, hidden, seed=seed) for seed in range(members)]
        ensemble, dense = merge_models(parts), random_model("lstm", 1, members * hidden)
        for streams, steps in ((1, 300), (64, 30)):
            seconds = side_by_side(
                {
                    "ensemble": sampling(ensemble, steps, streams),
                    "int8": sampling(ensemble, steps, streams, "int8"),
                    "dense": sampling(dense, steps, streams),
                }
            )
            row = {
                "model": f"lstm {members} × 1×{hidden}",
                "streams": streams,
                "float32_char_per_s": streams * steps / seconds["ensemble"],
                "int8_char_per_s": streams * steps / seconds["int8"],
                "times_dense": seconds["dense"] / seconds["ensemble"],
            }
            show(row)
            rows.append(row)
    return rows


def first_character() -> dict[str, Any]:
    """Compare the time to the first character of `charrnn sample` with `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, random_model("lstm", 2, 512))
        command = [sys.executable, "-m", "charrnn", "sample", "-m", str(path), "-n", "100000"]

        def ours() -> None:
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                process.stdout.read(1)
                process.kill()

        def torch_import() -> None:
            subprocess.run([sys.executable, "-c", "import torch"], check=True)

        times = side_by_side({"ours": ours, "torch": torch_import}, 5)
    row = {
        "model": "first character, cold",
        "seconds": times["ours"],
        "import_torch_seconds": times["torch"],
        "share_of_import_torch": times["ours"] / times["torch"],
    }
    show(row)
    return row


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    parts = [f"{row['model']:36s}"]
    for key, value in row.items():
        if key != "model":
            parts.append(f"{key} {value:,.0f}" if value >= 100 else f"{key} {value:.3g}")
    print("  ".join(parts), flush=True)


def main() -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--cells", action="store_true", help="compare the cells only")
    parser.add_argument(
        "--cost", nargs=2, metavar=("MODEL", "TEXT"), help="what int8 adds to the loss, instead"
    )
    arguments = parser.parse_args()
    print(f"{machine()}, numkong {'is' if numkong else 'is not'} installed")
    started = time.time()
    tables: dict[str, Callable[[], Any]] = {
        "cells": all_cells,
        "one_stream": one_stream,
        "many_streams": many_streams,
        "ensembles": ensembles,
        "first_character": first_character,
    }
    if arguments.cells:
        tables = {"cells": all_cells}
    if arguments.cost:
        tables = {"cost": partial(cost, *arguments.cost)}
    figures = {"machine": machine(), **{name: table() for name, table in tables.items()}}
    print(f"{time.time() - started:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
