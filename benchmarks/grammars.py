"""What each cell learns of two grammars: strings with a symbol to remember, verbs to agree.

    python benchmarks/grammars.py                 both tables, as Markdown
    python benchmarks/grammars.py reber           one of them
    python benchmarks/grammars.py --seconds 20    train each model so long

`embedded-reber`: 10,000 training strings; the share of 1,000 samples that the grammar accepts, and
bits per character (EOS included) on 5,000 fresh strings beside the grammar's exact entropy.
`agreement`: accuracy on minimal pairs by the number of phrases between subject and verb.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from charrnn.api import train
from charrnn.config import Cell
from charrnn.scoring.score import Score

REBER_RATE = 5e-3
CELLS: tuple[Cell, ...] = ("lstm", "peephole-lstm", "gru", "gru-simple", "rnn")
CORPORA = Path(__file__).resolve().parent.parent / "corpora"
TRAINING_STRINGS, FRESH_STRINGS, SAMPLES = 10_000, 5_000, 1_000


def recipe(name: str) -> ModuleType:
    """Load a recipe by its path: corpora/ is no package, and its scripts share a module there."""
    if str(CORPORA) not in sys.path:
        sys.path.append(str(CORPORA))
    spec = importlib.util.spec_from_file_location(name, CORPORA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def reber(folder: Path, seconds: float) -> None:
    """Print the table of the embedded Reber grammar."""
    grammar = recipe("reber").GRAMMARS["embedded-reber"]
    rng = random.Random(0)
    text = folder / "embedded-reber.txt"
    text.write_text("".join(grammar.generate(rng) + "\n" for _ in range(TRAINING_STRINGS)))
    fresh = [grammar.generate(rng) for _ in range(FRESH_STRINGS)]
    exact = grammar.entropy_bits_per_char()
    print(f"\nembedded-reber: entropy {exact:.4f} bits per character\n")
    print("| cell | accepted samples | outer symbol right | bits per character | above entropy |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for cell in CELLS:
        model = train(
            text, out=folder / f"reber-{cell}", documents="line", cell=cell, hidden_size=64,
            embedding_size=0, time_s=seconds, learning_rate=REBER_RATE, sample_every=0,
        )  # fmt: skip
        samples = [str(sample) for sample in model.sample(num=SAMPLES, seed=1, length=1000)]
        accepted = sum(map(grammar.accepts, samples)) / SAMPLES
        remembered = sum(len(s) > 3 and s[1] == s[-2] for s in samples) / SAMPLES
        total = Score.total(model.score_many(fresh, eos=True))
        found = total.bits_per_char
        shares = f"{accepted:.1%} | {remembered:.1%}"
        print(f"| {cell} | {shares} | {found:.4f} | {found / exact - 1:.1%} |", flush=True)


def agreement(folder: Path, seconds: float) -> None:
    """Print the table of subject-verb agreement."""
    module = recipe("agreement")
    text, pairs = folder / "agreement.txt", folder / "pairs.tsv"
    module.main(["--out", str(text), "--pairs", str(pairs)])
    rows = [line.split("\t") for line in pairs.read_text().splitlines()]
    groups = sorted({row[2] for row in rows})
    print("\nagreement: share of minimal pairs whose right sentence is more probable\n")
    print(f"| cell | {' | '.join(groups)} | all |")
    print(f"| --- |{' ---: |' * (len(groups) + 1)}")
    for cell in CELLS:
        model = train(
            text, out=folder / f"agreement-{cell}", documents="line", cell=cell, hidden_size=128,
            time_s=seconds, bptt=256, batch_size=8, sample_every=0,
        )  # fmt: skip
        good = model.score_many([row[0] for row in rows], eos=True)
        bad = model.score_many([row[1] for row in rows], eos=True)
        right = [g.logprob > b.logprob for g, b in zip(good, bad, strict=True)]
        shares = [
            [r for r, row in zip(right, rows, strict=True) if row[2] == group] for group in groups
        ]
        cells = " | ".join(f"{sum(part) / len(part):.1%}" for part in [*shares, right])
        print(f"| {cell} | {cells} |", flush=True)


def main() -> None:
    """Run the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="?", choices=("reber", "agreement", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.table != "agreement":
            reber(Path(folder), arguments.seconds)
        if arguments.table != "reber":
            agreement(Path(folder), arguments.seconds)


if __name__ == "__main__":
    main()
