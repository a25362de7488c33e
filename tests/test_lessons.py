"""The lessons in `docs/lessons/`: every command and every block of Python of each page runs.

A page is run from top to bottom in a directory of its own, in a quick form:

- A line of a ```console block that begins with `$ ` is a command; with a backslash at its end it
  continues on the next line. `sh` runs it, so pipes, `>`, `for … do … done` in one line and
  `$((…))` work. `charrnn` and `python` are small programs there which ask this process for what
  they should write, so that torch is imported once.
- `charrnn train` needs `--steps` or `--epochs` (a lesson is the same on every machine), of which
  three steps remain; LARGEST has the other numbers that are made small.
- `python corpora/RECIPE.py` writes a small corpus to `corpora/`, offline: those of ONLINE are
  replaced by a text of our own. `--check` may find lines that are no sentences. No other script
  runs.
- A ```python block runs in the directory, one namespace for the page; SMALLER is its quick form.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
import select
import string
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import texts
from conftest import Result, needs

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "docs" / "lessons"
PAGES = sorted(LESSONS.glob("[0-9]-*.md"))
LARGEST = {
    "--steps": 3, "--hidden": 8, "--batch": 8, "--bptt": 32, "--embedding": 8, "--members": 2,
    "--num": 3, "--length": 60, "-n": 60, "--distance": 20, "--positions": 4, "--unit": 7,
}  # fmt: skip
"""The largest number that a command of a lesson keeps in its quick form, by option."""
ONLINE = ("shakespeare", "names", "verse")
"""Recipes that need a network: a text of our own takes the place of theirs."""
SMALLER = ((r"\[-200_000:\]", "[-9_000:]"),)
COUNTS = {"reber": [], "agreement": ["--pairs-per-distance", "5"], "tunes": []}
"""Recipes that take `--count`, and what else makes them quick."""

PATIENCE_S = 60
"""How long a shell may be silent."""
ASK = """#!/bin/sh
for argument in {name} "$@"; do printf '%s\\0' "$argument"; done > "$ASKED/$$.args"
if [ -p /dev/stdin ]; then cat > "$ASKED/$$.in"; else : > "$ASKED/$$.in"; fi
mkfifo "$ASKED/$$.answer"
echo $$ > "$ASKED/asked"
read -r code < "$ASKED/$$.answer"
cat "$ASKED/$$.err" >&2
cat "$ASKED/$$.out"
exit "$code"
"""
"""A program that hands its arguments to this process and writes what it answers."""


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def commands(block: str) -> list[str]:
    """The commands of a console block, each on one line."""
    joined = block.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def quick(arguments: list[str]) -> list[str]:
    """The arguments of a command with small numbers; a limit in epochs becomes one in steps."""
    arguments = [
        part
        for word in arguments
        for part in (word.split("=", 1) if re.match("--[a-z-]+=", word) else [word])
    ]
    for at, (name, value) in enumerate(itertools.pairwise(arguments), 1):
        if name == "--epochs":
            arguments[at - 1 : at + 1] = ["--steps", str(LARGEST["--steps"])]
        elif name in LARGEST and value.isdigit():
            arguments[at] = str(min(int(value), LARGEST[name]))
    if "--gradient-flow" in arguments:
        for name in ("--distance", "--positions"):
            arguments += [] if name in arguments else [name, str(LARGEST[name])]
    if arguments[:1] == ["train"]:
        assert "--steps" in arguments, "a training in a lesson is limited by --steps or --epochs"
        assert "--time" not in arguments
    return arguments


def recipe(folder: Path, script: str, *arguments: str) -> Result:
    """Run a recipe in its quick form, offline."""
    name = Path(script).stem
    path = folder / "corpora" / f"{name.replace('_', '-')}.txt"
    path.parent.mkdir(exist_ok=True)
    assert script == f"corpora/{name}.py", "lessons run recipes only"
    assert (ROOT / script).is_file(), script
    if name in ONLINE:
        text = texts.english(20_000).replace("\n", "\n\nROMEO:\n", 40) + string.printable
        if name == "names":
            text = "\n".join(sorted({word.title() for word in re.findall(r"\w+", text)})) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")
        return Result(0, f"{path}\n", "")
    asks = {"--check", "--entropy"} & set(arguments)
    extra = []
    if name == "reber" and "--pairs" in arguments:
        extra = ["--pairs-per-distance", "5"]
    elif name in COUNTS and not asks:
        grammar = [word for word in arguments[:1] if name == "reber"]
        out = folder / "corpora" / f"{(grammar or [path.stem])[0]}.txt"
        extra = ["--count", "300", "--out", str(out), *COUNTS[name]]
        if name == "agreement":
            extra += ["--pairs", str(folder / "corpora" / "agreement-pairs.tsv")]
    elif not asks:
        extra = ["--out", str(path)]
    done = subprocess.run(
        [sys.executable, ROOT / script, *arguments, *extra],
        cwd=folder, check=False, capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    is_fine = done.returncode == 0 or (asks and done.returncode == 1 and "line" in done.stdout)
    return Result(0 if is_fine else done.returncode, done.stdout, done.stderr)


class Shell:
    """`sh` in a directory, whose charrnn and python are answered by functions of this process."""

    def __init__(self, folder: Path, work: Path, answers: dict) -> None:
        """`answers` has a function by name of the program: arguments, stdin → `Result`."""
        self.folder, self.work, self.answers = folder, work, answers
        self.ended = 0
        os.mkfifo(work / "asked")
        self.asked = os.open(work / "asked", os.O_RDWR)  # so that it never ends
        (work / "bin").mkdir()
        for name in answers:
            path = work / "bin" / name
            path.write_text(ASK.format(name=name), encoding="utf-8")
            path.chmod(0o755)

    def run(self, command: str) -> list[Result]:
        """Run a command and return the results of all programs that it has asked for."""
        results: list[Result] = []
        path = f"{self.work / 'bin'}{os.pathsep}{os.environ['PATH']}"
        shell = subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8",
            env={**os.environ, "ASKED": str(self.work), "PATH": path},
        )  # fmt: skip
        threading.Thread(target=self._watch, args=(shell,), daemon=True).start()
        while True:
            ready, _, _ = select.select([self.asked], [], [], PATIENCE_S)
            assert ready, f"no end: {command}"
            for number in os.read(self.asked, 4096).decode("ascii").split():
                if number == "end":
                    assert self.ended == 0, (command, self.output, results)
                    return results
                results.append(self._answer(self.work / number))

    def _answer(self, at: Path) -> Result:
        """Answer one program."""
        name, *arguments = at.with_suffix(".args").read_text("utf-8").split("\0")[:-1]
        try:
            result = self.answers[name](arguments, at.with_suffix(".in").read_bytes())
        except AssertionError as error:
            result = Result(1, "", str(error))
        at.with_suffix(".out").write_text(result.out, encoding="utf-8")
        at.with_suffix(".err").write_text(result.err, encoding="utf-8")
        at.with_suffix(".answer").write_text(f"{result.code}\n", encoding="ascii")
        return result

    def _watch(self, shell: subprocess.Popen) -> None:
        """Wait for the end of a command, and say so where its programs ask."""
        self.output, _ = shell.communicate()
        self.ended = shell.returncode
        (self.work / "asked").write_text("end\n", encoding="ascii")


@pytest.fixture
def shell(charrnn, tmp_path, tmp_path_factory):
    """A shell in the directory of the `charrnn` fixture, where commands run in their quick form."""

    def run_charrnn(arguments, stdin):
        return charrnn(*quick(arguments), stdin=stdin)

    def run_python(arguments, stdin):
        return recipe(tmp_path, *arguments)

    work = tmp_path_factory.mktemp("shell")
    shell = Shell(tmp_path, work, {"charrnn": run_charrnn, "python": run_python})
    yield shell
    os.close(shell.asked)


@needs("POSIX: its shell", os.name == "posix")
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_lesson_runs(page, shell, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    names = {"__name__": "lesson"}
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```(console|python)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert found
    for language, block in found:
        if language == "console":
            for command in commands(block):
                for result in shell.run(command):
                    assert result.code == 0, (command, result)
                    assert "Traceback" not in result.err, (command, result.err)
        else:
            for pattern, smaller in SMALLER:
                block = re.sub(pattern, smaller, block)
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block, page.name, "exec"), names)


def test_there_are_lessons_in_order():
    index = (LESSONS / "index.md").read_text("utf-8")
    listed = re.findall(r"^\| (\d)\. \[.+?\]\((\1-[\w-]+\.md)\)", index, re.M)
    assert [number for number, _ in listed] == ["1", "2", "3", "4", "5", "6"]
    assert {page.name for page in PAGES} <= {name for _, name in listed}


def test_pictures_of_lessons_are_small_and_shown():
    shown = {
        n for page in PAGES for n in re.findall(r"!\[.+?\]\(([^)]+)\)", page.read_text("utf-8"))
    }
    there = {path.name for path in LESSONS.iterdir() if path.suffix in (".svg", ".png")}
    assert shown == there
    for name in there:
        assert (LESSONS / name).stat().st_size <= 60_000, name


def test_numbers_that_are_worked_out_by_hand():
    """The losses of lesson 1, from the probabilities that stand there."""
    first = PAGES[0].read_text("utf-8")
    rows = re.findall(r"^(\w|<end>)\t-(0\.\d+)\t(0\.\d+)\t(0\.\d+)$", first, re.M)
    assert [row[0] for row in rows] == [*"goodbye", "<end>"]
    for _, nats, probability, bits in rows:
        assert math.isclose(-math.log(float(probability)), float(nats), rel_tol=1e-6)
        assert math.isclose(float(nats) / math.log(2), float(bits), rel_tol=1e-6)
    mean = sum(float(row[1]) for row in rows) / 8
    assert f"{mean:.4f}" in first
