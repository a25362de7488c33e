"""What the literature offers, one change at a time beside the same base.

    python benchmarks/ablations.py TEXT --seeds 3                a text of any length, two million
                                                                 characters read
    python benchmarks/ablations.py TEXT --seeds 3 --limit 2e5 --chars 6e6
                                                                 a short text, thirty times
    python benchmarks/ablations.py TEXT --only "base;zoneout"

Each change trains as the base does (`BASE` of quality.py, and with `--limit` the dropout of short
texts) on the same number of characters, and is measured on the last tenth of the text, in nats per
character, in training's rows and float32. The variants of a layer that go character by character
in Python are slow because of that: their seconds say nothing about the variant.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine
from quality import BASE, split
from soap import Soap
from torch import nn
from torch.optim import Optimizer
from variant_layers import LayerNormalised, Residual, WeightDropped, WeightNoised, Zoneout

from charrnn.batches.windows import TextBatches
from charrnn.config import CorpusConfig
from charrnn.corpus.corpus import Corpus
from charrnn.corpus.encode import encode_corpus
from charrnn.models.network import CharNetwork
from charrnn.training.learner import Learner
from charrnn.training.loss import measure, text_windows
from charrnn.training.optimizers import Muon, build_optimizers
from charrnn.training.schedule import FINAL_RATE, WARMUP_STEPS
from charrnn.training.sizing import complete_settings

SHORT = {"dropout": 0.25, "recurrent_dropout": 0.2}
"""What `--limit` adds to the base."""
SOAP_RATE = 3e-3


def cosine(done: float) -> float:
    """Return the share of the peak rate when a share of the run is done."""
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    """Fall evenly to zero."""
    return 1 - done


def late(done: float) -> float:
    """Stay, and fall evenly to zero in the last third (warm-up, stable, decay)."""
    return min(1.0, 3 * (1 - done))


def constant(done: float) -> float:
    """Stay at the peak."""
    return 1.0


def no_change(learner: Learner, done: float, rng: np.random.Generator) -> None:
    """Leave everything as it is."""


def random_windows(learner: Learner, done: float, rng: np.random.Generator) -> None:
    """Draw the length of each window (Merity et al. 2018)."""
    learner.windows.bptt = max(8, int(rng.normal(64 if rng.random() < 0.95 else 32, 8)))


def growing_windows(learner: Learner, done: float, rng: np.random.Generator) -> None:
    """Read 16 characters at first, 32, 64, and 128 in the last quarter."""
    learner.windows.bptt = (16, 32, 64, 128)[min(3, int(4 * done))]


def growing_batches(learner: Learner, done: float, rng: np.random.Generator) -> None:
    """Go from 8 rows to 16 and to 32, after a third and two thirds."""
    rows = (8, 16, 32)[min(2, int(3 * done))]
    old = learner.windows
    if rows != old.batch_size:
        assert isinstance(old, TextBatches)
        learner.windows = TextBatches(
            old.ids, newline_id=old.newline_id, batch_size=rows, bptt=old.bptt, seed=rows
        )
        learner.windows.served = old.served
        learner.state = learner.network.initial_state(rows)


def soap(optimizers: list[Optimizer]) -> list[Optimizer]:
    """Give SOAP the matrices that Muon has."""
    adam, muon = optimizers
    (group,) = muon.param_groups
    return [adam, Soap(group["params"], lr=SOAP_RATE, weight_decay=group["weight_decay"])]


def renewed_every(steps: int) -> Callable[[list[Optimizer]], list[Optimizer]]:
    """Recompute Muon's orthogonalised updates every so many steps."""

    def change(optimizers: list[Optimizer]) -> list[Optimizer]:
        _, muon = optimizers
        assert isinstance(muon, Muon)
        muon.renewed_every = steps
        return optimizers

    return change


def tie(network: CharNetwork) -> None:
    """Let the output have the weights of the embedding (Press & Wolf 2017)."""
    assert network.embedding is not None
    network.output.weight = network.embedding.weight


@dataclass(frozen=True)
class Change:
    """What differs from the base."""

    options: dict[str, Any] = field(default_factory=dict)
    """Settings of charrnn's own."""
    layer: type[nn.LSTM] | None = None
    """What stands in place of each layer, of those above the first if it is `Residual`."""
    tie: bool = False
    optimizer: Callable[[list[Optimizer]], list[Optimizer]] | None = None
    before_step: Callable[[Learner, float, np.random.Generator], None] = no_change
    """Called with the share of the run that is done."""
    schedule: Callable[[float], float] = cosine
    warmup: int = WARMUP_STEPS
    """Steps."""
    average: float = 0.0
    """Share of the running mean of the weights kept at each step; 0: the last weights count."""


CHANGES = {
    "base": Change(),
    "linear decay": Change(schedule=linear),
    "decay in the last third": Change(schedule=late),
    "no decay": Change(schedule=constant),
    "no decay, weights averaged": Change(schedule=constant, average=0.998),
    "weights averaged": Change(average=0.998),
    "no warm-up": Change(warmup=1),
    "warm-up over 500 steps": Change(warmup=500),
    "update recomputed every step": Change(optimizer=renewed_every(1)),
    "update recomputed every 2 steps": Change(optimizer=renewed_every(2)),
    "update recomputed every 8 steps": Change(optimizer=renewed_every(8)),
    "SOAP": Change(optimizer=soap),
    "random windows": Change(before_step=random_windows),
    "growing windows": Change(before_step=growing_windows),
    "growing batches": Change({"batch_size": 8}, before_step=growing_batches),
    "weight dropout": Change(layer=WeightDropped),
    "weight noise": Change(layer=WeightNoised),
    "zoneout": Change(layer=Zoneout),
    "zoneout, no recurrent dropout": Change({"recurrent_dropout": 0.0}, layer=Zoneout),
    "layer normalisation": Change(layer=LayerNormalised),
    "embedding of 256": Change({"embedding_size": 256}),
    "embedding of 256, tied": Change({"embedding_size": 256}, tie=True),
    "one-hot": Change({"embedding_size": 0}),
    "two layers": Change({"num_layers": 2}),
    "two layers, residual": Change({"num_layers": 2}, layer=Residual),
    "three layers": Change({"num_layers": 3}),
    "three layers, residual": Change({"num_layers": 3}, layer=Residual),
}


def prepare(corpus: Corpus, change: Change, base: dict[str, Any], seed: int) -> Learner:
    """Return a learner of the base, changed."""
    given = {**base, **change.options, "steps": 1, "seed": seed}
    model, training = complete_settings(corpus.n_train, len(corpus.vocabulary), given)
    learner = Learner(corpus, model, training)
    learner.settle_dtype()
    network = learner.network.members[0]
    assert isinstance(network, CharNetwork)
    for k, layer in enumerate(network.layers):
        if change.layer is not None and (k or change.layer is not Residual):
            variant = change.layer(layer.input_size, layer.hidden_size)
            variant.load_state_dict(layer.state_dict(), strict=False)
            network.layers[k] = variant
    if change.tie:
        tie(network)
    optimizers = build_optimizers(network, training)
    if change.optimizer is not None:
        optimizers = change.optimizer(optimizers)
    learner._optimizers = [optimizers]
    return learner


def train(learner: Learner, change: Change, characters: float, seed: int) -> CharNetwork:
    """Read so many characters, and return the network that counts."""
    network, rng = learner.network.members[0].train(), np.random.default_rng(seed)
    assert isinstance(network, CharNetwork)
    mean = copy.deepcopy(network)
    step, done = 0, 0.0
    while done < 1:
        change.before_step(learner, done, rng)
        learner.take_step(min((step + 1) / change.warmup, change.schedule(done)))
        step, done = step + 1, learner.windows.served / characters
        if change.average:
            kept = min(change.average, step / (step + 10))
            with torch.no_grad():
                for average, last in zip(mean.parameters(), network.parameters(), strict=True):
                    average.lerp_(last, 1 - kept)
    return mean if change.average else network


def main() -> None:
    """Train the changes asked for and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--chars", type=float, default=2e6, help="characters to read")
    parser.add_argument("--limit", type=float, help="train on so many characters of the text only")
    parser.add_argument("--only", help="names of changes, separated by ;")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    limit = None if arguments.limit is None else int(arguments.limit)
    base = {**BASE, **(SHORT if limit else {})}
    print(machine())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        text, held_out = split(arguments.text, limit, Path(folder))
        corpus = encode_corpus([text], Path(folder) / "corpus", CorpusConfig(), held_out=[held_out])
        for name in arguments.only.split(";") if arguments.only else CHANGES:
            change, losses = CHANGES[name], []
            started = time.monotonic()
            for seed in range(arguments.seeds):
                learner = prepare(corpus, change, base, seed)
                network = train(learner, change, arguments.chars, seed)
                windows = text_windows(corpus.val_ids)
                losses.append(measure(network, windows, learner.device, "float32").loss)
            seconds = (time.monotonic() - started) / arguments.seeds
            mean = sum(losses) / len(losses)
            spread = f"from {min(losses):.4f} to {max(losses):.4f}"
            print(f"{name:30s} {mean:.4f}  {spread}  {seconds:4.0f} s each", flush=True)
            rows.append({"change": name, "losses": losses, "seconds": seconds})
    if arguments.json:
        results = {"machine": machine(), "base": base, "rows": rows}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
