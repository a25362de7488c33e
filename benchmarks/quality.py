"""Validation loss that a budget buys, for recipes side by side.

    python benchmarks/quality.py TEXT --time 120                  the defaults for two minutes
    python benchmarks/quality.py TEXT --chars 6e6 --recipes all   recipes on the same characters
    python benchmarks/quality.py TEXT --time 600 --plot curve.png --json curve.json

The last tenth of the text is the validation part. Three figures, in nats per character: `lanes` is
what training shows (64 warmed-up lanes, in the precision of training), `carried` is the whole
validation text in one lane with carried state in float32, which is what `charrnn score` says, and
`windows` is the mean over 400 random windows of 256 characters, each from a zero state, as nanoGPT
evaluates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine

from charrnn import api
from charrnn.events import Evaluated

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "256 adamw": {"hidden_size": 256, "optimizer": "adamw"},
    "256 muon": {"hidden_size": 256},
    "256 muon, half the rate": {"hidden_size": 256, "learning_rate": 6e-3},
    "256 muon, 64 lanes of 32": {"hidden_size": 256, "batch_size": 64, "bptt": 32},
    "256 muon, 32 lanes of 32": {"hidden_size": 256, "batch_size": 32, "bptt": 32},
    "256 muon, dropout 0.1": {"hidden_size": 256, "dropout": 0.1},
    "2×256 muon": {"hidden_size": 256, "num_layers": 2},
    "384 muon": {"hidden_size": 384},
    "512 muon": {"hidden_size": 512},
}
WINDOW, WINDOWS = 256, 400


def measure(
    text: Path, options: dict[str, Any], seed: int, folder: Path
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train once; return the figures and the curve."""
    started = time.monotonic()
    trainer = api.prepare_training(
        [text], out=folder, val_fraction=0.1, sample_every=0, seed=seed, started=started, **options
    )
    curve: list[dict[str, float]] = []
    for event in trainer.run():
        if isinstance(event, Evaluated) and event.val_loss is not None:
            curve.append({"seconds": event.elapsed_s, "val_loss": event.val_loss})
    seconds = time.monotonic() - started
    model = api.load(trainer.run_directory.model)
    val = trainer.corpus.val_ids
    characters = model.saved.vocabulary.decode(val.tolist())
    carried = model.score(characters, eos=False)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(characters) - WINDOW, WINDOWS)
    pieces = model.score_many([characters[a : a + WINDOW] for a in starts.tolist()], eos=False)
    figures = {
        "seconds": seconds,
        "lanes": min(point["val_loss"] for point in curve),
        "carried": -carried.logprob / carried.n_scored,
        "windows": -sum(p.logprob for p in pieces) / sum(p.n_scored for p in pieces),
        "parameters": model.saved.config.num_parameters(),
    }
    return figures, curve


def plot(path: Path, curves: dict[str, list[dict[str, float]]]) -> None:
    """Draw validation loss against time, one curve per recipe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, curve in curves.items():
        axes.plot([p["seconds"] for p in curve], [p["val_loss"] for p in curve], label=name)
    axes.set_xlabel("seconds, start-up included")
    axes.set_ylabel("validation loss, nats per character")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Train the recipes asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--time", type=float, help="budget in seconds")
    parser.add_argument("--chars", type=float, help="or in training characters")
    parser.add_argument("--recipes", default="default", help="names, comma-separated, or all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    chosen = list(RECIPES) if arguments.recipes == "all" else arguments.recipes.split(",")
    print(machine())
    results: dict[str, Any] = {"machine": machine(), "rows": []}
    curves: dict[str, list[dict[str, float]]] = {}
    for name in chosen:
        for seed in range(arguments.seeds):
            options = dict(RECIPES[name])
            if arguments.chars:
                lanes = options.setdefault("batch_size", 16) * options.setdefault("bptt", 64)
                options["steps"] = int(arguments.chars / lanes)
                options.setdefault("dropout", 0.0)
            elif arguments.time:
                options["time_s"] = arguments.time
            with tempfile.TemporaryDirectory() as folder:
                figures, curve = measure(arguments.text, options, seed, Path(folder) / "run")
            curves[f"{name}, seed {seed}" if arguments.seeds > 1 else name] = curve
            results["rows"].append({"recipe": name, "seed": seed, **figures, "curve": curve})
            print(
                f"{name:28s} seed {seed}  {figures['seconds']:5.0f} s  "
                + "  ".join(f"{key} {figures[key]:.4f}" for key in ("lanes", "carried", "windows")),
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    if arguments.plot:
        plot(arguments.plot, curves)


if __name__ == "__main__":
    main()
