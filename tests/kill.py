"""Kills training runs at random instants, aimed at their saves, and sees that nothing is lost.

    python tests/kill.py [--kills 200] [--seed 0]

Every cell is trained on one long text and on documents, as one network and as two members, for a
number of steps. An undisturbed run of each kind is compared with runs that die by SIGKILL again and
again, each at a random instant or as soon as a temporary file appears, and are resumed:

- a model that is there loads, at every instant;
- the run can be continued, or begun anew as long as it has saved nothing;
- at the end its files are those of the undisturbed run, byte for byte (metrics without times), and
  no other file is left.

The commands run in children of a process that has imported torch already, which saves two seconds
a command.
"""

from __future__ import annotations

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import texts

import charrnn.display.train
import charrnn.training.trainer  # noqa: F401  (before the first child)
from charrnn.cli import main as command_line
from charrnn.config import Cell
from charrnn.storage.atomic import is_temporary
from charrnn.storage.model_file import load_model
from charrnn.storage.runs import RunDirectory, take_over

CELLS = (*((cell,) for cell in get_args(Cell)), ("rnn", "--nonlinearity", "relu"))
DOCUMENTS = (("none",), ("line",), ("line", "--unit", "byte"))
MEMBERS = (1, 2)
STEPS = 240
TEXT, VALIDATION = 20_000, 0.002
"""So little validation text that there are some twenty evaluations, each with its saves."""
SMALL = ("--hidden", 24, "--embedding", 8, "--batch", 8, "--bptt", 16, "--lr", "0.005")
EXACT = ("--dtype", "float32", "--device", "cpu", "--sample-every", 0, "-q")
TIMES = ("elapsed_s", "chars_per_s")
PROMPTLY_S = 120
"""A command that takes longer hangs."""


def start(folder: Path, *arguments: object) -> int:
    """Run a charrnn command in a child that writes its commentary to `stderr`; return its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["charrnn", *map(str, arguments)]
        command_line()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float = PROMPTLY_S) -> int:
    """Wait for a child and return its exit code; negative for the signal that ended it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("a command hangs")


def kill_at_some_instant(child: int, run: Path, rng: random.Random, usual_s: float) -> bool:
    """Kill a child: at a random time, or while it saves. Return False if it has ended before."""
    begin = time.monotonic()
    aims_at_save = rng.random() < 0.7
    wait_s = rng.uniform(0.0, usual_s)
    saves = rng.randrange(1, 30)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert os.waitstatus_to_exitcode(status) == 0, (run.parent / "stderr").read_text()
            return False
        if aims_at_save:
            names = os.listdir(run) if run.is_dir() else ()
            if any(is_temporary(Path(name)) for name in names):
                saves -= 1
                if saves <= 0:
                    time.sleep(rng.choice((0, 0, 1e-4, 1e-3)))
                    break
                time.sleep(0.002)
        elif time.monotonic() - begin > wait_s:
            break
        assert time.monotonic() - begin < PROMPTLY_S, "a command hangs"
        time.sleep(1e-4)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def contents(run: RunDirectory) -> dict[str, object]:
    """Return what must be the same in every run: all files, without what depends on the clock."""
    found: dict[str, object] = {}
    for path in sorted(run.path.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(run.path).as_posix()
        if path in (run.record_file, run.corpus / "corpus.json"):
            found[name] = "is there"
        elif path == run.resume:  # its arrays
            content = path.read_bytes()
            found[name] = content[8 + int.from_bytes(content[:8], "little") :]
        elif path == run.metrics:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
        else:
            found[name] = path.read_bytes()
    return found


def differences(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    """Name the files that are not the same."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


def check_kind(folder: Path, arguments: tuple[object, ...], kills: int, rng: random.Random) -> int:
    """Kill runs of one kind until the number is reached; return how many of them were resumed."""
    begin = time.monotonic()
    code = ended(start(folder, "train", "text.txt", "--out", "whole", *arguments))
    assert code == 0, (folder / "stderr").read_text()
    usual_s = time.monotonic() - begin
    expected = contents(RunDirectory(folder / "whole"))
    done = resumed = runs = 0
    while done < kills:
        run = RunDirectory(folder / f"run{runs}")
        runs += 1
        for attempt in itertools.count():
            if run.is_finished:  # killed after its last save, with its lock held
                take_over(run).release()
                break
            command = ("train", "text.txt", "--out", run.path.name)
            is_begun = run.resume.exists()
            child = start(folder, *command, *(("--resume", "-q") if is_begun else arguments))
            resumed += is_begun
            may_die = done < kills and attempt < 20
            was_killed = may_die and kill_at_some_instant(child, run.path, rng, usual_s)
            if may_die and not was_killed:
                break
            if not may_die:
                assert ended(child) == 0, (folder / "stderr").read_text()
                break
            done += 1
            for path in (run.model, run.last):
                if path.exists():
                    load_model(path)
        changed = differences(expected, contents(run))
        assert not changed, f"{run.path}: {changed}"
    return resumed


def main() -> None:
    """Go through all kinds, again and again until there have been as many kills as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kinds = list(itertools.product(CELLS, DOCUMENTS, MEMBERS))
    begin, done, resumed = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        for number, (cell, documents, members) in enumerate(kinds):
            kills = options.kills * (number + 1) // len(kinds) - done
            if not kills:
                continue
            folder = Path(name) / str(number)
            folder.mkdir()
            (folder / "text.txt").write_text(texts.english(TEXT), encoding="utf-8")
            shape = ("--cell", *cell, "--documents", *documents, "--members", members)
            arguments = ("--steps", STEPS, "--val-fraction", VALIDATION, *shape, *SMALL, *EXACT)
            resumed += check_kind(folder, arguments, kills, rng)
            done += kills
            label = " ".join(map(str, (*cell, *documents, f"members {members}")))
            print(f"{done:4} kills: {label}", flush=True)
    seconds = time.monotonic() - begin
    print(
        f"{done} kills, {resumed} resumes in {seconds:.0f} s: every model loaded, every run ended "
        "with the files of an undisturbed one and no other",
    )


if __name__ == "__main__":
    main()
