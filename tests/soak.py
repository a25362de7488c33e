"""Trains and samples for long, and sees that memory and file descriptors stay flat.

    python tests/soak.py [--steps 20000] [--characters 1000000]

Each kind of run is measured at twenty points. What it holds in the second half may exceed what it
held in the first by no more than `TOLERANCE_BYTES`, and no descriptor may be added.
"""

from __future__ import annotations

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

import argparse
import gc
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import texts

from charrnn.api import load
from charrnn.model import CharModel
from charrnn.training.prepare import prepare_training

POINTS = 20
TOLERANCE_BYTES = 4 << 20
SMALL = {"hidden_size": 16, "embedding_size": 8, "batch_size": 4, "bptt": 16}
OPTIONS = {"dtype": "float32", "device": "cpu"}
TRAINING = {
    "LSTM, one text": {"cell": "lstm"},
    "GRU, documents of bytes, 2 members": {
        "cell": "gru", "documents": "line", "unit": "byte", "members": 2,
    },
}  # fmt: skip


def memory_bytes() -> int:
    """Return the memory that is held now; where that is not told, the most that was held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def watch(what: str, done: Iterable[int], total: int) -> None:
    """Go through work that says how far it is, and measure it on the way.

    Raises:
        AssertionError: memory or descriptors grow.
    """
    held: list[int] = []
    descriptors: list[int] = []
    begin = time.monotonic()
    for at in done:
        if at >= total * (len(held) + 1) / POINTS:
            gc.collect()
            held.append(memory_bytes())
            descriptors.append(len(os.listdir("/dev/fd")))
    assert len(held) >= POINTS - 1, f"{what}: measured at {len(held)} points only"
    half = len(held) // 2
    growth = max(held[half:]) - max(held[1:half])
    print(
        f"{what}: {total:,} in {time.monotonic() - begin:.0f} s, memory {held[1] >> 20} MB, "
        f"growth {growth / 2**20:+.1f} MB, descriptors {min(descriptors)} to {max(descriptors)}",
        flush=True,
    )
    assert growth <= TOLERANCE_BYTES, f"{what}: {[size >> 10 for size in held]} KB"
    assert len(set(descriptors[1:])) == 1, f"{what}: {descriptors}"


def train(text: Path, folder: Path, steps: int, settings: dict[str, object]) -> Iterator[int]:
    """Train for a number of steps, with evaluations, saves and samples."""
    trainer = prepare_training([text], {**SMALL, **OPTIONS, **settings, "steps": steps}, out=folder)
    for event in trainer.run():
        yield getattr(event, "step", 0)


def stream(model: CharModel, characters: int) -> Iterator[int]:
    """Draw one long sample."""
    return (
        n
        for n, _ in enumerate(
            model.stream("The ", length=characters, min_length=characters, seed=1), 1
        )
    )


def batches(model: CharModel, characters: int) -> Iterator[int]:
    """Draw many samples side by side, batch after batch."""
    num = min(64, 1 + characters // 10_000)
    drawn, seed = 0, 0
    while drawn < characters:
        drawn += sum(
            len(s.text) for s in model.sample(num=num, length=200, min_length=200, seed=seed)
        )
        seed += 1
        yield drawn


def scores(model: CharModel, characters: int) -> Iterator[int]:
    """Score texts, one after the other."""
    text = texts.english(2000)
    for n in range(1, characters // len(text) + 1):
        model.score(text)
        yield n * len(text)


def main() -> None:
    """Train each kind, and use its model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--characters", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_text(texts.english(20_000), encoding="utf-8")
        for number, (what, settings) in enumerate(TRAINING.items()):
            run = folder / str(number)
            watch(f"steps, {what}", train(text, run, options.steps, settings), options.steps)
            model = load(run)
            for work in (stream, batches, scores):
                n = options.characters
                watch(f"characters, {work.__name__}, {what}", work(model, n), n)


if __name__ == "__main__":
    main()
