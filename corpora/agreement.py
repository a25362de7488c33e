"""English sentences whose verb stands far from its subject, and minimal pairs to test a model.

A sentence reads ``The <subject> <phrases> <verb> <adjective>.``, and its verb agrees with the
subject, the first noun.  The distance is the number of phrases in between, from 0 to
``--max-distance``.  Each phrase brings a noun of its own, singular or plural by the toss of a
coin, and is one of

* a prepositional phrase: ``near the dogs``,
* a relative clause about the noun before it: ``that chased the dogs``,
* a relative clause about the noun before it, as object: ``that the dogs chased``.

The first phrase may also be the longest of all: ``, which chased the dogs ...,`` with a comma that
closes just before the verb.  All verbs inside phrases are in the past tense, which in English does
not show number, so nothing but the subject tells the number of the main verb, and going by the
nearest noun is right only half of the time.

Two files are written: the corpus, one sentence a line with all distances equally often, and pairs
for ``charrnn pairs``, tab-separated: the right sentence, the same sentence with the verb in
the other number, and the group ``distance-N``.  Half of the pairs of a group have a plural
subject.  A hash of the right sentence decides once and for all whether it may be trained on or
only tested on (one in ``TEST_SHARE``), whatever the seed, so the two files never share a sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from recipe import write_atomically

Item = TypeVar("Item")


def words(text: str) -> tuple[str, ...]:
    """The words of a line, which reads better than a tuple of quoted ones."""
    return tuple(text.split())


NOUNS = tuple(
    zip(
        words(
            "cat dog horse bird goat duck frog bear lion tiger rabbit cow pig monkey spider "
            "squirrel donkey turtle fox puppy pony wolf mouse goose"
        ),
        words(
            "cats dogs horses birds goats ducks frogs bears lions tigers rabbits cows pigs monkeys "
            "spiders squirrels donkeys turtles foxes puppies ponies wolves mice geese"
        ),
        strict=True,
    )
)
VERBS = (("was", "were"), ("is", "are"), ("has been", "have been"), ("looks", "look"))
ADJECTIVES = words(
    "full hungry tired quiet happy late small old calm cold sleepy lost angry young proud clever"
)
PAST = words("chased followed watched heard met liked feared passed found woke helped called")
PREPOSITIONS = words("near behind beside beyond with opposite")
TEST_SHARE = 5
FOLDER = Path(__file__).resolve().parent


class Sentence(NamedTuple):
    """A sentence without its verb: what stands before it, both verbs, what stands after it."""

    before: str
    plural: bool
    verbs: tuple[str, str]
    after: str

    def text(self, agrees: bool = True) -> str:
        """The sentence with the verb that agrees, or with the one that does not."""
        return f"{self.before} {self.verbs[self.plural == agrees]} {self.after}"

    def is_for_test(self) -> bool:
        """Whether the right sentence is kept out of training; a fifth of all are."""
        return hashlib.sha256(self.text().encode("ascii")).digest()[0] % TEST_SHARE == 0


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One item; only ``rng.random()`` is used, as its values never change between Pythons."""
    return items[int(rng.random() * len(items))]


def phrase(rng: random.Random) -> str:
    """A phrase that can follow any noun, and brings one of its own."""
    noun = f"the {pick(rng, pick(rng, NOUNS))}"
    kind = pick(rng, ("preposition", "subject", "object"))
    if kind == "preposition":
        return f"{pick(rng, PREPOSITIONS)} {noun}"
    if kind == "subject":
        return f"that {pick(rng, PAST)} {noun}"
    return f"that {noun} {pick(rng, PAST)}"


def sentence(rng: random.Random, distance: int, plural: bool) -> Sentence:
    """A random sentence with ``distance`` phrases between subject and verb."""
    subject = pick(rng, NOUNS)[plural]
    phrases = [phrase(rng) for _ in range(distance)]
    with_comma = distance > 0 and pick(rng, (True, False))
    if with_comma:
        phrases[0] = f"which {pick(rng, PAST)} the {pick(rng, pick(rng, NOUNS))}"
        before = f"The {subject}, {' '.join(phrases)},"
    else:
        before = " ".join([f"The {subject}", *phrases])
    return Sentence(before, plural, pick(rng, VERBS), f"{pick(rng, ADJECTIVES)}.")


def training_lines(seed: int, count: int, max_distance: int) -> Iterator[str]:
    """``count`` sentences that agree, distances and numbers drawn evenly; none is a test one."""
    rng = random.Random(f"agreement/training/{seed}")
    while count:
        distance = pick(rng, range(max_distance + 1))
        drawn = sentence(rng, distance, pick(rng, (True, False)))
        if not drawn.is_for_test():
            count -= 1
            yield drawn.text()


def minimal_pairs(
    seed: int, max_distance: int, per_distance: int
) -> Iterator[tuple[str, str, str]]:
    """``(good, bad, group)``: different test sentences, in every group as many of each number.

    Raises:
        ValueError: there are not that many test sentences with so short a distance.
    """
    rng = random.Random(f"agreement/pairs/{seed}")
    for distance in range(max_distance + 1):
        drawn: dict[str, Sentence] = {}
        for _ in range(100 * per_distance):
            if len(drawn) == per_distance:
                break
            one = sentence(rng, distance, plural=len(drawn) % 2 == 1)
            if one.is_for_test():
                drawn[one.text()] = one
        else:
            raise ValueError(
                f"there are fewer than {per_distance} different test sentences at distance "
                f"{distance}: ask for fewer --pairs-per-distance"
            )
        for one in drawn.values():
            yield one.text(), one.text(agrees=False), f"distance-{distance}"


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the two files, return the exit code."""
    parser = argparse.ArgumentParser(description="Sentences and pairs for subject-verb agreement.")
    parser.add_argument("--out", type=Path, default=FOLDER / "agreement.txt", help="the corpus")
    parser.add_argument(
        "--pairs", type=Path, default=FOLDER / "agreement-pairs.tsv", help="the minimal pairs"
    )
    parser.add_argument("--count", type=int, default=20_000, help="sentences (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of both files (default: 0)")
    parser.add_argument("--max-distance", type=int, default=6, help="most phrases (default: 6)")
    parser.add_argument(
        "--pairs-per-distance", type=int, default=200, help="pairs in a group (default: 200)"
    )
    options = parser.parse_args(arguments)
    if options.count < 1 or options.pairs_per_distance < 1 or options.max_distance < 0:
        parser.error("counts must be at least 1, and --max-distance at least 0")
    try:
        pairs = list(minimal_pairs(options.seed, options.max_distance, options.pairs_per_distance))
    except ValueError as error:
        print(f"agreement: {error}.", file=sys.stderr)
        return 1
    lines = training_lines(options.seed, options.count, options.max_distance)
    texts: list[tuple[Path, str]] = [
        (options.out, "".join(f"{line}\n" for line in lines)),
        (options.pairs, "".join("\t".join(pair) + "\n" for pair in pairs)),
    ]
    for path, text in texts:
        try:
            write_atomically(path, text.encode("ascii"))
        except OSError as error:
            print(f"agreement: cannot write {path}: {error.strerror or error}.", file=sys.stderr)
            return 1
        print(f"{path}: {text.count(chr(10)):,} lines, {len(text):,} bytes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
