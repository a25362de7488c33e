"""Strings of the Reber grammar and of the embedded Reber grammar, with a checker and the entropy.

Reber's grammar (A. S. Reber, "Implicit learning of artificial grammars", Journal of Verbal
Learning and Verbal Behavior 6, 1967) is a small automaton; wherever it offers two ways, each is
taken with probability 1/2.  The embedded grammar (Hochreiter and Schmidhuber, "Long short-term
memory", Neural Computation 9, 1997) puts such a string between two equal letters,
``B T reber T E`` or ``B P reber P E``: to know the last letter but one, a model must remember the
second one over a stretch of unknown length.

No state has two arcs with the same symbol, so a string has exactly one path, and the entropy of
the strings is the entropy of the paths.  That is the sum, over all states, of the expected number
of visits times the entropy of the choice made there; the visits solve a linear system, solved here
in fractions.  A model that reads one string a line and predicts the end of each cannot, on
average, spend fewer bits than that, so the figure is the floor for its loss.

``--pairs`` writes pairs for ``charrnn pairs``: an embedded string, the same string with the wrong
last letter but one, and the group, the distance between the outer letters.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from recipe import write_atomically

GROUP_WIDTH, DISTANCES = 5, range(10, 30, 5)
"""The groups of pairs: 10 to 14 characters from one outer symbol to the other, and so on."""
FOLDER = Path(__file__).resolve().parent
MOST_PAIRS = 300
"""Strings of 25 characters and more are rare."""
Arcs = Mapping[str, Sequence[tuple[str, str]]]

REBER: Arcs = {
    "start": [("B", "begun")],
    "begun": [("T", "upper"), ("P", "lower")],
    "upper": [("S", "upper"), ("X", "upper2")],
    "lower": [("T", "lower"), ("V", "lower2")],
    "upper2": [("X", "lower"), ("S", "closing")],
    "lower2": [("P", "upper2"), ("V", "closing")],
    "closing": [("E", "end")],
    "end": [],
}


def embed(inner: Arcs, symbols: str) -> Arcs:
    """``B s inner s E`` for every symbol s: one copy of the inner automaton remembers each s."""
    outer: dict[str, list[tuple[str, str]]] = {
        "start": [("B", "begun")],
        "begun": [(symbol, f"{symbol}:start") for symbol in symbols],
        "closing": [("E", "end")],
        "end": [],
    }
    for symbol in symbols:
        for state, arcs in inner.items():
            outer[f"{symbol}:{state}"] = [(read, f"{symbol}:{to}") for read, to in arcs]
        outer[f"{symbol}:end"] = [(symbol, "closing")]
    return outer


class Grammar:
    """An automaton from ``start`` to ``end`` whose arcs out of a state are equally likely."""

    def __init__(self, arcs: Arcs) -> None:
        """Take the arcs out of every state, as ``(symbol, next state)``."""
        self.arcs = {state: dict(choices) for state, choices in arcs.items()}
        assert all(len(self.arcs[state]) == len(arcs[state]) for state in arcs), "ambiguous"

    def generate(self, rng: random.Random) -> str:
        """One string.  Only ``rng.random()`` is used: its values never change between Pythons."""
        text, state = "", "start"
        while choices := tuple(self.arcs[state].items()):
            symbol, state = choices[int(rng.random() * len(choices))]
            text += symbol
        return text

    def accepts(self, text: str) -> bool:
        """Whether the grammar can write exactly this string."""
        state: str | None = "start"
        for symbol in text:
            state = self.arcs[state].get(symbol) if state is not None else None
        return state == "end"

    def expected_visits(self) -> dict[str, Fraction]:
        """How often a string passes through each state on average.

        visits(s) = [s is start] + sum over arcs r -> s of visits(r) / (number of arcs out of r),
        solved by Gauss-Jordan elimination.
        """
        states = list(self.arcs)
        rows = [
            [Fraction(row == column) for column in states] + [Fraction(row == "start")]
            for row in states
        ]
        for column, state in enumerate(states):
            for to in self.arcs[state].values():
                rows[states.index(to)][column] -= Fraction(1, len(self.arcs[state]))
        for pivot in range(len(rows)):
            swap = next(row for row in range(pivot, len(rows)) if rows[row][pivot])
            rows[pivot], rows[swap] = rows[swap], rows[pivot]
            rows[pivot] = [value / rows[pivot][pivot] for value in rows[pivot]]
            for row in range(len(rows)):
                if row != pivot and (factor := rows[row][pivot]):
                    rows[row] = [
                        value - factor * above
                        for value, above in zip(rows[row], rows[pivot], strict=True)
                    ]
        return {state: row[-1] for state, row in zip(states, rows, strict=True)}

    def expected_length(self) -> Fraction:
        """The average number of characters of a string, its end not counted."""
        return sum(self.expected_visits().values(), Fraction(-1))  # "end" writes nothing

    def entropy_bits(self) -> float:
        """The entropy of the strings in bits per string."""
        return math.fsum(
            visits * math.log2(len(self.arcs[state]))
            for state, visits in self.expected_visits().items()
            if self.arcs[state]
        )

    def entropy_bits_per_char(self) -> float:
        """Bits per character, the end of the string counted as a character."""
        return self.entropy_bits() / float(self.expected_length() + 1)


def minimal_pairs(seed: int, per_group: int) -> Iterator[tuple[str, str, str]]:
    """``(good, bad, group)``: different embedded strings, each also with the wrong outer symbol.

    The group says how far the two outer symbols are apart: ``distance-10-14`` characters.
    """
    grammar, rng = GRAMMARS["embedded-reber"], random.Random(f"reber/pairs/{seed}")
    groups: dict[int, dict[str, None]] = {low: {} for low in DISTANCES}
    while any(len(drawn) < per_group for drawn in groups.values()):
        text = grammar.generate(rng)
        distance = len(text) - 3
        drawn = groups.get(distance - distance % GROUP_WIDTH, {text: None})
        if len(drawn) < per_group:
            drawn[text] = None
    for low, drawn in groups.items():
        for text in drawn:
            other = "P" if text[1] == "T" else "T"
            yield text, f"{text[:-2]}{other}E", f"distance-{low}-{low + GROUP_WIDTH - 1}"


GRAMMARS = {"reber": Grammar(REBER), "embedded-reber": Grammar(embed(REBER, "TP"))}


def check(grammar: Grammar, path: Path) -> int:
    """Print how many lines of a file the grammar accepts; 0 if it accepts all of at least one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        print(f"reber: cannot read {path}: {reason}.", file=sys.stderr)
        return 1
    lines = text.removesuffix("\n").split("\n") if text else []
    wrong = [(number, line) for number, line in enumerate(lines, 1) if not grammar.accepts(line)]
    if not lines:
        print(f"reber: {path} has no lines to check.", file=sys.stderr)
        return 1
    accepted = len(lines) - len(wrong)
    print(f"accepted {accepted} of {len(lines)} lines ({accepted / len(lines):.2%})")
    if wrong:
        number, line = wrong[0]
        print(f"first line not accepted: line {number}, {line!r}")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Read the options, do the one task they name, return the exit code."""
    parser = argparse.ArgumentParser(description="Strings of the (embedded) Reber grammar.")
    parser.add_argument("grammar", choices=list(GRAMMARS))
    task = parser.add_mutually_exclusive_group()
    task.add_argument(
        "--out", type=Path, help="file to write (default: GRAMMAR.txt beside this script)"
    )
    task.add_argument("--check", type=Path, metavar="FILE", help="count the lines it accepts")
    task.add_argument(
        "--pairs", type=Path, metavar="FILE", help="write minimal pairs of embedded-reber"
    )
    task.add_argument("--entropy", action="store_true", help="print the exact entropy")
    parser.add_argument("--count", type=int, default=10_000, help="strings (default: 10000)")
    parser.add_argument(
        "--pairs-per-distance", type=int, default=200, help="pairs in a group (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the strings (default: 0)")
    options = parser.parse_args(arguments)
    grammar = GRAMMARS[options.grammar]
    if options.check:
        return check(grammar, options.check)
    if options.entropy:
        length = grammar.expected_length()
        print(f"bits per string: {grammar.entropy_bits():.12g}")
        print(f"expected length in characters, without the end: {length} = {float(length):.12g}")
        print(f"bits per character, end included: {grammar.entropy_bits_per_char():.12g}")
        return 0
    if options.count < 1:
        parser.error("--count must be at least 1")
    if not 1 <= options.pairs_per_distance <= MOST_PAIRS:
        parser.error(f"--pairs-per-distance must be from 1 to {MOST_PAIRS}")
    if options.pairs and options.grammar != "embedded-reber":
        parser.error("--pairs needs the outer symbol of embedded-reber")
    out: Path = options.pairs or options.out or FOLDER / f"{options.grammar}.txt"
    if options.pairs:
        pairs = minimal_pairs(options.seed, options.pairs_per_distance)
        lines = ["\t".join(pair) + "\n" for pair in pairs]
    else:
        rng = random.Random(options.seed)
        lines = [f"{grammar.generate(rng)}\n" for _ in range(options.count)]
    data = "".join(lines).encode("ascii")
    try:
        write_atomically(out, data)
    except OSError as error:
        print(f"reber: cannot write {out}: {error.strerror or error}.", file=sys.stderr)
        return 1
    what = "pairs" if options.pairs else "strings"
    print(f"{out}: {len(lines):,} {what}, {len(data):,} bytes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
