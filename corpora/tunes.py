"""Tunes in ABC notation from a small grammar, and a checker that counts the bars.

Each tune has a head (number, title, rhythm, metre, unit, key) and two parts of eight bars, A and
B, each repeated.  A part is four phrases of two bars: a question, an answer, a phrase that begins
like the question, and a close on the keynote, as in many dances.  The notes of a bar walk by steps
in the scale; its strong beats fall on notes of a chord: I, IV or V.  An empty line stands between
two tunes, so `--documents blank-line` reads each as a text of its own.

ABC writes pitches as letters (`C` to `B` below `c` to `b`, a comma an octave lower, an apostrophe
an octave higher) and lengths as numbers behind them, in units of `L:`; bars end with `|`.

`--check FILE` counts the tunes in a file, such as samples of a model, that have every line of the
head and whose bars all have the length that the metre asks for.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from recipe import finish, options

LETTERS = "CDEFGAB"


class Dance(NamedTuple):
    """A rhythm: metre, eighths in a bar, and the lengths that fill its strong beats."""

    metre: str
    eighths: int
    beats: tuple[tuple[tuple[int, ...], ...], ...]


THREE = ((1, 1, 1), (1, 1, 1), (2, 1), (3,))
FOUR = ((1, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1), (2, 2), (3, 1))
TWO = ((2,), (2,), (1, 1))
DANCES = {
    "jig": Dance("6/8", 6, (THREE, THREE)),
    "reel": Dance("4/4", 8, (FOUR, FOUR)),
    "polka": Dance("2/4", 4, (TWO, TWO)),
    "waltz": Dance("3/4", 6, (TWO, TWO, TWO)),
}
KEYS = {"C": 0, "D": 1, "F": 3, "G": 4, "A": 5, "Em": 2, "Am": 5, "Dm": 1}
"""Keys, and where their keynotes stand in `LETTERS`."""
PHRASES = ((0, 4), (3, 4), (0, 4), (4, 0))
"""Degrees of the chords of the two bars of each phrase, counted from 0."""
PLACES = ("Harbour", "Mill", "Orchard", "Bridge", "Chapel", "Meadow", "Lighthouse", "Market")
KINDS = ("Old", "Green", "Broken", "Little", "Silver", "Far", "Windy", "Upper", "Hidden")
OWNERS = ("Piper", "Miller", "Weaver", "Ferryman", "Baker", "Widow", "Sailor", "Shepherd")
FANCIES = ("Fancy", "Delight", "Return", "Farewell", "Holiday", "Promise", "Daughter")
HEAD = re.compile(r"X:\d+\nT:.+\nR:(\w+)\nM:(\d/\d)\nL:1/8\nK:(\w+)\n")
NOTE = re.compile(r"[A-Ga-g][,']?(\d?)")

Draw = Callable[[int], int]


def pitch(step: int) -> str:
    """The note that is so many steps of the scale above middle C."""
    octave, letter = divmod(step, len(LETTERS))
    name = LETTERS[letter]
    return (name + ",", name, name.lower(), name.lower() + "'")[octave + 1]


def bar(dance: Dance, root: int, at: int, draw: Draw) -> tuple[str, int]:
    """One bar over the chord on `root`, beginning near the step `at`; the bar and the last step."""
    text = ""
    for choices in dance.beats:
        chord = [root + shift + third for shift in (-7, 0, 7) for third in (0, 2, 4)]
        at = min(chord, key=lambda step: (abs(step - at), step))
        for number, length in enumerate(choices[draw(len(choices))]):
            if number:
                at += (-1, 1, -2, 1, -1)[draw(5)]
            at = max(-2, min(at, 15))
            text += pitch(at) + (str(length) if length > 1 else "")
    return text, at


def part(dance: Dance, keynote: int, high: bool, draw: Draw) -> str:
    """Eight bars between signs of repetition; the close ends on the keynote."""
    home = keynote + (7 if high else 0)
    at = home + (0 if high else draw(3))
    bars: list[str] = []
    for phrase, degrees in enumerate(PHRASES):
        for number, degree in enumerate(degrees):
            music, at = bar(dance, keynote + degree, at, draw)
            bars.append(bars[0] if (phrase, number) == (2, 0) else music)
    bars[-1] = close(bars[-1], dance.eighths, pitch(home))
    return "|:" + "|".join(bars[:4]) + "|\n" + "|".join(bars[4:]) + ":|\n"


def close(music: str, eighths: int, last: str) -> str:
    """The bar with its second half replaced by one note."""
    kept, length = "", 0
    for note in NOTE.finditer(music):
        longer = length + int(note[1] or 1)
        if longer > eighths // 2:
            break
        kept, length = kept + note[0], longer
    return kept + last + str(eighths - length)


def tune(number: int, rng: random.Random) -> str:
    """One tune.  Only ``rng.random()`` is used: its values never change between Pythons."""

    def draw(n: int) -> int:
        return int(rng.random() * n)

    rhythm = tuple(DANCES)[draw(len(DANCES))]
    key = tuple(KEYS)[draw(len(KEYS))]
    titles = (
        f"The {KINDS[draw(len(KINDS))]} {PLACES[draw(len(PLACES))]}",
        f"The {OWNERS[draw(len(OWNERS))]}'s {FANCIES[draw(len(FANCIES))]}",
    )
    dance = DANCES[rhythm]
    head = f"X:{number}\nT:{titles[draw(2)]}\nR:{rhythm}\nM:{dance.metre}\nL:1/8\nK:{key}\n"
    return head + "".join(part(dance, KEYS[key], high, draw) for high in (False, True))


def bars(text: str) -> list[bool]:
    """Whether each bar of a tune has the length that its metre asks for; none without a head."""
    head = HEAD.match(text)
    if not head or head[1] not in DANCES or DANCES[head[1]].metre != head[2]:
        return []
    return [
        not NOTE.sub("", one)
        and sum(int(n[1] or 1) for n in NOTE.finditer(one)) == DANCES[head[1]].eighths
        for one in re.split(r"[|:\n]+", text[head.end() :])
        if one
    ]


def build(count: int, seed: int) -> str:
    """The corpus: `count` tunes with an empty line between two of them."""
    rng = random.Random(seed)
    return "\n".join(tune(number, rng) for number in range(1, count + 1))


def check(path: Path) -> int:
    """Print how many tunes of a file are whole; the exit code is 0 if all are."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        print(f"tunes: cannot read {path}: it is no text in UTF-8.", file=sys.stderr)
        return 1
    parts = re.split(r"\n{2,}|^── .* ──$", text, flags=re.M)  # samples have a heading each
    tunes = [one.strip("\n") + "\n" for one in parts if one.strip()]
    if not tunes:
        print(f"tunes: there are no tunes in {path}.", file=sys.stderr)
        return 1
    found = [bars(one) for one in tunes]
    whole = sum(bool(one) and all(one) for one in found)
    full, every = sum(map(sum, found)), max(1, sum(map(len, found)))
    print(
        f"whole tunes: {whole} of {len(found)}; full bars: {full} of {every} ({full / every:.0%})"
    )
    return int(whole < len(tunes))


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write or check the file, return the exit code."""
    parser = options("Write tunes in ABC notation, or count the whole ones.", "tunes.txt")
    parser.add_argument("--count", type=positive, default=2000, help="tunes (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="count whole tunes in a file")
    asked = parser.parse_args(arguments)
    if asked.check:
        return check(asked.check)
    return finish("tunes", asked.out, lambda: build(asked.count, asked.seed))


if __name__ == "__main__":
    sys.exit(main())
