"""How probable is the last tenth of a text after the first nine? Ours beside the compressors.

    python benchmarks/estimators.py TEXT... --time 115     train on each for 115 seconds
    python benchmarks/estimators.py TEXT --model RUN       or take a model of the first nine tenths

A compressor is an estimator that learns as it reads. What it needs for the last tenth is its size
of the whole text less its size of the first nine tenths. Compressors choose the size of their
tables by the length of the input, in powers of two: where one stands between the two lengths, zeros
go before both, so that tables of the same size read both. (Without them `zpaq -m5` seems to need
1.209 nats for the last tenth of tinyshakespeare, and with them 1.307.)

KenLM (`lmplz` and `query`) is an interpolated Kneser-Ney model of 8-grams, and learns nothing from
the last tenth. Tools that are not installed are left out. Figures are nats per character, seconds
are those of reading everything once.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import machine

from charrnn.api import load, train
from charrnn.corpus.sources import text_of
from charrnn.model import CharModel
from charrnn.scoring.adaptation import Adapter
from charrnn.scoring.mixing import Mixer
from charrnn.scoring.score import Score

ORDER = 8
HEADER = 4096
"""Bytes that zpaq adds to a length before it takes its logarithm."""
Figure = tuple[float, float] | None
"""Nats per character and seconds."""


def halves(text: str) -> tuple[str, str]:
    """Return the first nine tenths and the last, as training cuts them."""
    cut = len(text) - int(len(text) * 0.1)
    return text[:cut], text[cut:]


def padding(first: int, whole: int) -> int:
    """Return how many bytes before two inputs give both tables of the same size."""
    steps = [1 << k for k in range(63) if first <= (1 << k) < whole + HEADER]
    return steps[-1] + 1 - first if steps else 0


def compressed(text: str, command: Callable[[Path, Path], list[str]]) -> Figure:
    """Return what a compressor needs for the last tenth; None where it is not installed."""
    first, last = halves(text)
    whole = text.encode()
    part = first.encode()
    pad = bytes(padding(len(part), len(whole)))
    sizes, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("part", part), ("whole", whole)):
            source, archive = Path(folder) / name, Path(folder) / f"{name}.out"
            source.write_bytes(pad + content)
            arguments = command(archive, source)
            if shutil.which(arguments[0]) is None:
                return None
            start = time.perf_counter()
            subprocess.run(arguments, check=True, capture_output=True)
            seconds = time.perf_counter() - start
            (made,) = Path(folder).glob(f"{name}.out*")
            sizes.append(made.stat().st_size)
    return (sizes[1] - sizes[0]) * 8 * math.log(2) / len(last), seconds


def ppmd(text: str) -> Figure:
    """Return the figure of PPMd, variant H, in 7-Zip."""
    return compressed(text, lambda out, of: ["7z", "a", "-m0=PPMd", str(out), str(of)])


def zpaq(text: str) -> Figure:
    """Return the figure of `zpaq -m5`."""
    return compressed(text, lambda out, of: ["zpaq", "add", f"{out}.zpaq", str(of), "-m5", "-t1"])


def kenlm(text: str) -> Figure:
    """Return the figure of KenLM: characters are words, and the tenths one sentence each line."""
    if shutil.which("lmplz") is None or shutil.which("query") is None:
        return None
    first, last = halves(text)

    def lines(part: str) -> bytes:
        return "\n".join(
            " ".join(f"{ord(c):x}" for c in line) for line in part.split("\n")
        ).encode()

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "arpa"
        start = time.perf_counter()
        learned = ["lmplz", "-o", str(ORDER), "--discount_fallback", "--arpa", str(model)]
        subprocess.run(learned, input=lines(first), check=True, capture_output=True)
        asked = ["query", "-v", "summary", str(model)]
        found = subprocess.run(asked, input=lines(last), check=True, capture_output=True)
    perplexity = found.stdout.decode().split("including OOVs:")[1].split()[0]
    return math.log(float(perplexity)), time.perf_counter() - start


def ours(model: CharModel, text: str) -> tuple[Figure, Figure]:
    """Return the static figure, and the adapted one with the first nine tenths counted."""
    first, last = halves(text)
    rules = model.scorer(eos=False)
    start = time.perf_counter()
    static = model.score(last, eos=False)
    middle = time.perf_counter()
    mixer = Mixer(model.saved.vocabulary)
    mixer.read_end([model.saved.vocabulary.encode(first)])
    pairs = Adapter(model.saved, rules, mixer=mixer).score([last])
    adapted = Score.total(after for _, after in pairs)
    end = time.perf_counter()
    return tuple(  # type: ignore[return-value]
        (-score.logprob / score.n_scored, seconds)
        for score, seconds in ((static, middle - start), (adapted, end - middle))
    )


def main() -> None:
    """Print a row for each text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--time", type=float, default=115.0, help="seconds of training")
    parser.add_argument("--model", help="instead of training: a model of the first nine tenths")
    given = parser.parse_args()
    tools = {"PPMd": ppmd, "zpaq -m5": zpaq, "KenLM": kenlm}
    print(f"{machine()}\n")
    print(f"| text | {' | '.join(tools)} | ours, static | ours, --adapt --from |")
    print("| --- |" + " ---: |" * (len(tools) + 2))
    missing = set()
    for path in given.texts:
        text = text_of(path)
        figures = []
        for name, tool in tools.items():
            figures.append(tool(text))
            if figures[-1] is None:
                missing.add(name)
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.txt"
            part.write_text(halves(text)[0], encoding="utf-8", newline="")
            model = (
                load(given.model)
                if given.model
                else train(part, out=Path(folder) / "run", time_s=given.time)
            )
            figures += ours(model, text)
        cells = ("–" if one is None else f"{one[0]:.3f} ({one[1]:.0f} s)" for one in figures)
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)
    if missing:
        print(f"not installed: {', '.join(sorted(missing))}", file=sys.stderr)


if __name__ == "__main__":
    main()
