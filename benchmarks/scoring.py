"""Speed of scoring, as ratios measured side by side in one run, and what `--rows` costs.

    python benchmarks/scoring.py                          speed, about a minute
    python benchmarks/scoring.py --model M --text FILE    and the cost of rows on that text
    python benchmarks/scoring.py --json F                 write the figures as JSON, too

"bare products" are those of benchmarks/sampling.py: the matrix products that reading a character
cannot do without, one step at a time, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from measure import machine, side_by_side
from sampling import SIZES, VOCABULARY, bare_matrices, bare_vectors, random_model, show

from charrnn.api import load
from charrnn.engine.network import Engine
from charrnn.scoring.batch import BATCH_SIZE, score_many
from charrnn.scoring.rows import score_in_rows
from charrnn.scoring.score import Score, bits
from charrnn.scoring.scorer import Scorer, score_pieces
from charrnn.storage.model_file import SavedModel

ROWS = (16, 64, 128)
WARMUPS = (0, 16, 64, 256)


def random_text(n_chars: int, seed: int = 0) -> str:
    """Return characters of the benchmark's alphabet."""
    return "".join(random.Random(seed).choices(VOCABULARY.characters, k=n_chars))


def scorer_of(model: SavedModel) -> Scorer:
    """Return the rules with the end counted, as for lines."""
    return Scorer(Engine(model.config, model.weights), model.vocabulary, eos=True)


def drain(scorer: Scorer, texts: list[str]) -> Score:
    """Score all texts."""
    return Score.total(score_many(scorer, texts))


def one_text() -> list[dict[str, Any]]:
    """Compare one long text in one row with the bare matrix-vector products."""
    rows = []
    for cell in ("lstm", "gru"):
        for layers, hidden in SIZES:
            model = random_model(cell, layers, hidden)
            steps = max(1024, 400_000_000 // (model.config.num_parameters() * 100))
            scorer, text = scorer_of(model), random_text(steps)

            def ours(scorer: Scorer = scorer, text: str = text) -> None:
                score_pieces(scorer, [text])

            times = side_by_side({"ours": ours, "bare": bare_vectors(model, steps)})
            rows.append(
                {
                    "model": f"{cell} {layers}×{hidden}, one text",
                    "char_per_s": steps / times["ours"],
                    "share_of_bare": times["bare"] / times["ours"],
                }
            )
            show(rows[-1])
    return rows


def many_texts() -> list[dict[str, Any]]:
    """Compare sentences of 20 to 120 characters, and names, with the bare matrix products."""
    rows = []
    rng = random.Random(1)
    for (layers, hidden), what, count, low, high in (
        ((1, 256), "sentences", 1024, 20, 120),
        ((2, 512), "sentences", 256, 20, 120),
        ((1, 256), "names", 16_384, 3, 10),
    ):
        model = random_model("lstm", layers, hidden)
        texts = [random_text(rng.randint(low, high), k) for k in range(count)]
        steps = sum(len(text) + 1 for text in texts) // BATCH_SIZE
        scorer = scorer_of(model)

        def ours(scorer: Scorer = scorer, texts: list[str] = texts) -> None:
            drain(scorer, texts)

        times = side_by_side({"ours": ours, "bare": bare_matrices(model, steps, BATCH_SIZE)}, 3)
        rows.append(
            {
                "model": f"lstm {layers}×{hidden}, {count:,} {what}",
                "char_per_s": steps * BATCH_SIZE / times["ours"],
                "texts_per_s": count / times["ours"],
                "share_of_bare": times["bare"] / times["ours"],
            }
        )
        show(rows[-1])
    return rows


def side_by_side_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """Compare several rows with one: speed, and bits per character lost."""
    model = load(path)
    scorer = model.scorer(eos=False)
    start = time.perf_counter()
    exact = score_pieces(scorer, [text])
    alone_s = time.perf_counter() - start
    rows = []
    for count in ROWS:
        for warmup in WARMUPS:
            start = time.perf_counter()
            found = score_in_rows(scorer, [text], rows=count, warmup=warmup)
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "model": f"{count} rows, {warmup} warm-up",
                    "times_one_row": alone_s / seconds,
                    "bits_per_char_lost": found.score.bits_per_char - exact.bits_per_char,
                    "bits_per_char_estimated": bits(found.cost_logprob) / len(text),
                }
            )
            show(rows[-1])
    return rows


def main() -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, help="a trained model, for the cost of rows")
    parser.add_argument("--text", type=Path, help="a text for it")
    arguments = parser.parse_args()
    print(machine())
    started = time.time()
    figures: dict[str, Any] = {
        "machine": machine(),
        "one_text": one_text(),
        "many_texts": many_texts(),
    }
    if arguments.model and arguments.text:
        figures["rows"] = side_by_side_rows(arguments.model, arguments.text.read_text("utf-8"))
    print(f"{time.time() - started:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
