"""One process against two on one machine: characters trained on per second, side by side.

    python benchmarks/distributed.py [--rounds 3]

Each round trains the same number of steps with two processes of one thread each, then with one of
one thread, on as many rows in all. The figure is the median over the rounds of the ratio within a
round; the speed of a run is that of its last evaluation, in which starting and saving have no part.
The machine must be otherwise idle, for two processes need two cores at the same moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine

STEPS = 60
COMMON = ("--steps", STEPS, "--bptt", 64, "--embedding", 32, "--device", "cpu", "--sample-every", 0)
CASES = {
    "256 units, 16 rows": (256, 16, 1),
    "256 units, 64 rows": (256, 64, 1),
    "512 units, 64 rows": (512, 64, 1),
    "256 units, 16 rows, two members": (256, 16, 2),
}
"""Units, rows and members."""


def speed(folder: Path, size: int, shape: tuple[int, int, int]) -> float:
    """Return the characters a second of a run by so many processes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    units, rows, members = shape
    options = ("--hidden", units, "--batch", rows, "--members", members, "--out", run, "-q")
    command = [sys.executable, "-m", "charrnn", "train", "text.txt", *COMMON, *options]
    known = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, **known, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for rank in range(size)
    ]
    assert not any(process.wait() for process in processes)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    result: float = last["chars_per_s"]
    return result


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        letters = "".join(random.Random(0).choices("abcdefgh \n", k=300_000))
        (folder / "text.txt").write_text(letters, encoding="utf-8")
        for label, shape in CASES.items():
            ratios = [speed(folder, 2, shape) / speed(folder, 1, shape) for _ in range(rounds)]
            listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{label:32} {statistics.median(ratios):.2f} times ({listed})", flush=True)


if __name__ == "__main__":
    main()
