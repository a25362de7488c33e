"""Speed of sampling, as ratios measured side by side in one run.

    python benchmarks/sampling.py            all tables, about two minutes
    python benchmarks/sampling.py --cells    one stream with all cells, and no more
    python benchmarks/sampling.py --json F   write the figures as JSON, too

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
from pathlib import Path
from typing import Any, get_args

import numpy as np
from measure import machine, side_by_side
from numpy.typing import NDArray

from charrnn.config import Cell, ModelConfig, SamplingConfig
from charrnn.engine.network import Engine
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, read_prompt
from charrnn.storage.merge import merge_models
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import EOS_ID, Vocabulary

VOCABULARY = Vocabulary(chr(33 + k) for k in range(65))
SIZES = ((1, 256), (2, 512), (2, 1024))


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


def sampling(model: SavedModel, steps: int, streams: int) -> Any:
    """Return a task: `streams` samples of `steps` characters, in batches of the usual size."""
    engine = Engine(model.config, model.weights)
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


def torch_steps(model: SavedModel, steps: int, batch: int) -> Any:
    """Return a task: torch's own recurrent module called one step at a time."""
    import torch

    from charrnn.models.network import CharNetwork

    config = model.config
    network = CharNetwork(config)
    rnn = torch.nn.LSTM(config.vocab_size, config.hidden_size, config.num_layers)
    eye = torch.eye(config.vocab_size)

    @torch.no_grad()
    def task() -> None:
        state = None
        ids = torch.ones(batch, dtype=torch.int64)
        for _ in range(steps):
            hidden, state = rnn(eye[ids].unsqueeze(0), state)
            p = torch.softmax(network.output(hidden[0]) / 0.8, dim=-1)
            ids = torch.multinomial(p, 1)[:, 0]

    return task


def one_stream() -> list[dict[str, Any]]:
    """Compare one stream with the bare products, and the LSTM with torch's."""
    rows = []
    cells: tuple[Cell, ...] = ("lstm", "gru")
    for cell in cells:
        for layers, hidden in SIZES:
            model = random_model(cell, layers, hidden)
            steps = max(200, 400_000_000 // (model.config.num_parameters() * 100))
            tasks = {"ours": sampling(model, steps, 1), "bare": bare_vectors(model, steps)}
            times = side_by_side(tasks)
            row = {
                "model": f"{cell} {layers}×{hidden}",
                "char_per_s": steps / times["ours"],
                "share_of_bare": times["bare"] / times["ours"],
            }
            if cell == "lstm" and hidden <= 512:
                few = 40 if hidden == 512 else 400
                other = side_by_side(
                    {"ours": sampling(model, few, 1), "torch": torch_steps(model, few, 1)}, 3
                )
                row["torch_char_per_s"] = few / other["torch"]
                row["times_torch"] = other["torch"] / other["ours"]
            rows.append(row)
            show(row)
    return rows


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
    """Compare 64 streams, and 1,000 short documents, with the bare products and with torch."""
    rows = []
    model, steps = random_model("lstm", 2, 512), 60
    times = side_by_side(
        {
            "ours": sampling(model, steps, 64),
            "bare": bare_matrices(model, steps, 64),
            "torch": torch_steps(model, 10, 64),
        },
        3,
    )
    rows.append(
        {
            "model": "lstm 2×512, 64 streams",
            "char_per_s": 64 * steps / times["ours"],
            "share_of_bare": times["bare"] / times["ours"],
            "torch_char_per_s": 640 / times["torch"],
            "times_torch": times["torch"] / 10 / (times["ours"] / steps),
        }
    )
    show(rows[-1])
    model, count, length = random_model("lstm", 1, 256), 1000, 20
    full = count * length // 64
    times = side_by_side(
        {"ours": sampling(model, length, count), "bare": bare_matrices(model, full, 64)}, 5
    )
    rows.append(
        {
            "model": "lstm 1×256, 1,000 documents of 20",
            "char_per_s": count * length / times["ours"],
            "share_of_bare": times["bare"] / times["ours"],
        }
    )
    show(rows[-1])
    return rows


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
                    "dense": sampling(dense, steps, streams),
                }
            )
            row = {
                "model": f"lstm {members} × 1×{hidden}",
                "streams": streams,
                "char_per_s": streams * steps / seconds["ensemble"],
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
    arguments = parser.parse_args()
    print(machine())
    started = time.time()
    tables = {
        "cells": all_cells,
        "one_stream": one_stream,
        "many_streams": many_streams,
        "ensembles": ensembles,
        "first_character": first_character,
    }
    if arguments.cells:
        tables = {"cells": all_cells}
    figures = {"machine": machine(), **{name: table() for name, table in tables.items()}}
    print(f"{time.time() - started:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
