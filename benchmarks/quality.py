"""Validation loss within given limits, for recipes side by side.

    python benchmarks/quality.py TEXT --time 120                  the defaults for two minutes
    python benchmarks/quality.py TEXT --chars 3e6 --recipes all   recipes on the same characters
    python benchmarks/quality.py TEXT --chars 6e6 --limit 2e5 --recipes "base;weight decay 0.2"
                                              the same on a short text, read thirty times
    python benchmarks/quality.py TEXT --time 600 --recipes "default;members=2,hidden_size=384"
    python benchmarks/quality.py TEXT --time 600 --plot curve.png --json curve.json

The last tenth of the text is the validation part. Three figures, in nats per character: `rows` is
what training shows (64 warmed-up rows, in the precision of training), `carried` is the whole
validation text in one row with carried state in float32, which is what `charrnn score` says, and
`windows` is the mean over 400 random windows of 256 characters, each from a zero state, as nanoGPT
evaluates. `pauses` is the share of the time from the first step to the last that evaluating, saving
and showing samples took. With `--seeds`, the mean and the range of `carried`, and that of all
seeds' models merged into one.
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

from charrnn.api import load
from charrnn.display.format import architecture
from charrnn.events import Evaluated, Progressed, Sampled
from charrnn.model import CharModel
from charrnn.storage.merge import merge_models
from charrnn.training.prepare import prepare_training

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "base": {},
    "AdamW": {"optimizer": "adamw"},
    "AdamW, a third of the rate": {"optimizer": "adamw", "learning_rate": 4e-3},
    "half the rate": {"learning_rate": 6e-3},
    "twice the rate": {"learning_rate": 2.4e-2},
    "8 rows": {"batch_size": 8},
    "32 rows": {"batch_size": 32},
    "64 rows": {"batch_size": 64},
    "windows of 32": {"bptt": 32},
    "windows of 128": {"bptt": 128},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 0.1": {"weight_decay": 0.1},
    "weight decay 0.2": {"weight_decay": 0.2},
    "weight decay 0.4": {"weight_decay": 0.4},
    "dropout 0.25": {"dropout": 0.25},
    "dropout 0.5": {"dropout": 0.5},
    "weight decay 0.2, dropout 0.25": {"weight_decay": 0.2, "dropout": 0.25},
    "dropout 0.5, weight decay 0.1": {"dropout": 0.5, "weight_decay": 0.1},
    "recurrent dropout 0.2": {"recurrent_dropout": 0.2},
    "dropout 0.25, recurrent dropout 0.2": {"dropout": 0.25, "recurrent_dropout": 0.2},
    "calibrated": {"calibrate": True},
    "input dropout 0.1": {"input_dropout": 0.1},
    "5 % of the input as UNK": {"unknown_rate": 0.05},
    "two layers": {"num_layers": 2},
    "384 units": {"hidden_size": 384},
    "512 units": {"hidden_size": 512},
    "embedding 64": {"embedding_size": 64},
    "one-hot": {"embedding_size": 0},
    "two members": {"members": 2},
    "three members": {"members": 3},
    "four members": {"members": 4},
    "GRU": {"cell": "gru"},
    "RNN": {"cell": "rnn"},
}
"""Settings that differ from the defaults, or with `--chars` from `BASE`."""
BASE = {
    "hidden_size": 256,
    "batch_size": 16,
    "bptt": 64,
    "learning_rate": 1.2e-2,
    "weight_decay": 0.05,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "calibrate": False,
}
WINDOW, WINDOWS = 256, 400


def train(
    parts: tuple[Path, Path], options: dict[str, Any], seed: int, folder: Path
) -> tuple[CharModel, dict[str, float], list[dict[str, float]]]:
    """Train once; return the model, its figures and the curve of its validation loss."""
    started = time.monotonic()
    text, held_out = parts
    trainer = prepare_training(
        [text], {"seed": seed, **options}, out=folder, held_out=[held_out], started=started
    )
    curve: list[dict[str, float]] = []
    stepped_at = began = paused_s = 0.0
    for event in trainer.run():
        now = time.monotonic()
        if isinstance(event, Progressed):  # a step is done, and an evaluation may come now
            stepped_at, began = now, began or now
        elif isinstance(event, (Evaluated, Sampled)):
            paused_s, stepped_at = paused_s + now - stepped_at, now
        if isinstance(event, Evaluated) and event.val_loss is not None:
            curve.append({"seconds": event.elapsed_s, "val_loss": event.val_loss})
    seconds = time.monotonic() - started
    model = load(trainer.run_directory.model)
    figures = {
        "seconds": seconds,
        "epochs": model.saved.training["epochs"],
        "pauses": paused_s / (stepped_at - began),
        "rows": min(point["val_loss"] for point in curve),
    }
    return model, {**figures, **losses(model, held_out)}, curve


def losses(model: CharModel, held_out: Path) -> dict[str, float]:
    """Return a model's loss on a text, with carried state and in windows, and its size."""
    characters = held_out.read_text("utf-8")
    carried = model.score(characters, eos=False)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(characters) - WINDOW, WINDOWS)
    pieces = model.score_many([characters[a : a + WINDOW] for a in starts.tolist()], eos=False)
    return {
        "carried": -carried.logprob / carried.n_scored,
        "windows": -sum(p.logprob for p in pieces) / sum(p.n_scored for p in pieces),
        "parameters": model.saved.config.num_parameters(),
    }


def split(text: Path, limit: int | None, folder: Path) -> tuple[Path, Path]:
    """Write the last tenth of a text, and what comes before it, and return the two files.

    Args:
        text: the whole.
        limit: keep so many characters of what comes before, the last ones.
        folder: where to write.
    """
    whole = text.read_text("utf-8")
    cut = len(whole) - len(whole) // 10
    train = whole[:cut] if limit is None else whole[cut - limit : cut]
    paths = folder / "train.txt", folder / "held-out.txt"
    for path, part in zip(paths, (train, whole[cut:]), strict=True):
        path.write_text(part, "utf-8")
    return paths


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


def settings(recipe: str, chars: float | None, seconds: float | None) -> dict[str, Any]:
    """Return the options of a recipe with a limit in characters or seconds, or with none."""
    if "=" in recipe:
        pairs = (setting.split("=") for setting in recipe.split(","))
        options = {name: json.loads(value) for name, value in pairs}
    else:
        options = dict(RECIPES[recipe])
    if chars is not None:
        options = {**BASE, **options}
        options["steps"] = int(chars / (options["batch_size"] * options["bptt"]))
    elif seconds is not None:
        options["time_s"] = seconds
    return options


def run_recipe(
    recipe: str, parts: tuple[Path, Path], options: dict[str, Any], seeds: int
) -> list[dict[str, Any]]:
    """Train a recipe with each seed, print the figures, and return them with their curves."""
    rows: list[dict[str, Any]] = []
    models = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            model, figures, curve = train(parts, options, seed, Path(folder) / "run")
        models.append(model.saved)
        rows.append({"recipe": recipe, "seed": seed, **figures, "curve": curve})
        shape = architecture(model.saved.config)
        shown = "  ".join(f"{k} {figures[k]:.4f}" for k in ("rows", "carried", "windows"))
        print(
            f"{recipe:30s} seed {seed}  {figures['seconds']:5.0f} s  "
            f"{figures['epochs']:5.2f} epochs  pauses {figures['pauses']:.1%}  {shown}  {shape}",
            flush=True,
        )
    if seeds > 1:
        carried = [row["carried"] for row in rows]
        merged = losses(CharModel(merge_models(models)), parts[1])
        print(
            f"{recipe:30s} mean {sum(carried) / seeds:.4f}  from {min(carried):.4f} to "
            f"{max(carried):.4f}  merged {merged['carried']:.4f}",
            flush=True,
        )
        rows.append({"recipe": f"{recipe}, merged", **merged})
    return rows


def main() -> None:
    """Train the recipes asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--time", type=float, help="limit in seconds")
    parser.add_argument("--chars", type=float, help="or in training characters")
    parser.add_argument("--limit", type=float, help="train on so many characters of the text only")
    parser.add_argument(
        "--recipes", default="default", help="names or settings, separated by ;, or all"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    chosen = list(RECIPES) if arguments.recipes == "all" else arguments.recipes.split(";")
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        limit = None if arguments.limit is None else int(arguments.limit)
        parts = split(arguments.text, limit, Path(folder))
        for recipe in chosen:
            options = settings(recipe, arguments.chars, arguments.time)
            rows += run_recipe(recipe, parts, options, arguments.seeds)
    if arguments.json:
        results = {"machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    if arguments.plot:
        curves = {f"{r['recipe']}, seed {r['seed']}": r["curve"] for r in rows if "curve" in r}
        plot(arguments.plot, curves)


if __name__ == "__main__":
    main()
