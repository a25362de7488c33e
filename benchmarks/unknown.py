"""What an unknown character costs the characters after it, beside a known neutral one.

    python benchmarks/unknown.py MODEL TEXT

At many places of the text one character is replaced, once by a character the model has never seen
and once by each of a few known ones (a letter of the alphabet, a comma, a space); the mean cost of
the 50 characters that follow is compared, and with that in the untouched text.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from charrnn.api import load

BEFORE, AFTER, PLACES = 200, 50, 500
UNKNOWN = "\N{SNOWMAN}"
NEUTRAL = "e, q"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    arguments = parser.parse_args()
    model = load(arguments.model)
    assert UNKNOWN not in model.saved.vocabulary.characters
    text = arguments.text.read_text("utf-8")
    rng = random.Random(0)
    places = [rng.randrange(BEFORE, len(text) - AFTER - 1) for _ in range(PLACES)]

    def cost(character: str | None) -> float:
        """Return the mean nats per character after the place."""
        heads, wholes = [], []
        for place in places:
            head = text[place - BEFORE : place] + (character or text[place])
            heads.append(head)
            wholes.append(head + text[place + 1 : place + 1 + AFTER])
        before = sum(score.logprob for score in model.score_many(heads, eos=False))
        after = sum(score.logprob for score in model.score_many(wholes, eos=False))
        return (before - after) / (PLACES * AFTER)

    plain, unknown = cost(None), cost(UNKNOWN)
    known = {character: cost(character) for character in NEUTRAL}
    mean = sum(known.values()) / len(known)
    print(f"untouched text           {plain:.4f} nats per character")
    print(f"after an unknown one     {unknown:.4f}")
    for character, value in known.items():
        print(f"after a known one, {character!r}   {value:.4f}")
    print(f"unknown against the mean of the known: {unknown / mean - 1:+.1%}")


if __name__ == "__main__":
    main()
