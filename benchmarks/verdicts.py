"""What a run's verdict advises, done: whether it helps, on texts of several kinds.

    python benchmarks/verdicts.py verse.txt code.txt names.txt:line prose.txt prose.txt:byte
    python benchmarks/verdicts.py verse.txt --only dropout --chars 3e4

A text is a file; what follows a colon is `line` for documents or `byte` for the unit. Of each, so
many characters from its beginning are used, the last tenth as validation. Every situation is a run
of one network of 128 units, and the remedy another:

    more training   a run of so many epochs, and the same run continued by as many
    dropout         50 epochs without dropout, and with 0.25 and 0.2 recurrent
    more text       50 epochs with dropout on half of the training text, and on all of it
    lower rate      60 steps with a learning rate of 100, 30, 10, and with a thousandth of it

The figures are validation losses in nats per unit, before and after, and the verdict before.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import machine

from charrnn.events import Finished
from charrnn.training.prepare import prepare_resume, prepare_training
from charrnn.training.trainer import Trainer

BASE = {
    "hidden_size": 128,
    "embedding_size": 32,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "sample_every": 0,
    "device": "cpu",
}
DROPOUT = {"dropout": 0.25, "recurrent_dropout": 0.2}
EPOCHS = (0.3, 1, 3, 6, 12, 25, 50)


def finished(trainer: Trainer) -> Finished:
    """Train to the end."""
    *_, last = trainer.run()
    assert isinstance(last, Finished)
    return last


class Text:
    """A part of a text in a file, and how it is read."""

    def __init__(self, given: str, n_chars: int, folder: Path) -> None:
        """Write the part."""
        name, _, how = given.partition(":")
        self.name = f"{Path(name).stem}{' as ' if how else ''}{how}"
        self.path = folder / f"{len(list(folder.iterdir()))}.txt"
        self.path.write_text(Path(name).read_text("utf-8", "replace")[:n_chars], "utf-8")
        self.settings = {"line": {"documents": "line"}, "byte": {"unit": "byte"}}.get(how, {})

    def train(self, out: Path, **settings: Any) -> Finished:
        """Train on it."""
        given = {**BASE, "val_fraction": 0.1, **self.settings, **settings}
        return finished(prepare_training([self.path], given, out=out))


def more_training(text: Text, folder: Path) -> Iterator[tuple[str, Finished, Finished]]:
    """Continue runs of some epochs by as many."""
    for number in EPOCHS:
        settings = DROPOUT if number >= 10 else {}  # as the defaults have it
        before = text.train(folder / f"{number}", epochs=float(number), **settings)
        after = finished(prepare_resume([], out=before.run, limits={"epochs": float(number)}))
        yield f"{number} epochs", before, after


def dropout(text: Text, folder: Path) -> Iterator[tuple[str, Finished, Finished]]:
    """Train without dropout, and with it."""
    before = text.train(folder / "without", epochs=50.0)
    yield "50 epochs", before, text.train(folder / "with", epochs=50.0, **DROPOUT)


def more_text(text: Text, folder: Path) -> Iterator[tuple[str, Finished, Finished]]:
    """Train on half of the training text and on all of it, validating on the same tenth."""
    lines = text.path.read_text("utf-8").splitlines(keepends=True)
    n_train = len(lines) * 9 // 10
    parts = {"half": lines[: n_train // 2], "all": lines[:n_train], "held": lines[n_train:]}
    for name, part in parts.items():
        (folder / f"{name}.txt").write_text("".join(part), "utf-8")
    settings = {**BASE, **text.settings, **DROPOUT, "epochs": 50.0}
    runs = [
        finished(
            prepare_training(
                [folder / f"{name}.txt"],
                settings,
                out=folder / name,
                held_out=[folder / "held.txt"],
            )
        )
        for name in ("half", "all")
    ]
    yield "50 epochs", runs[0], runs[1]


def lower_rate(text: Text, folder: Path) -> Iterator[tuple[str, Finished, Finished]]:
    """Train with a learning rate at which the loss explodes, and with a thousandth of it."""
    for rate in (100.0, 30.0, 10.0):
        runs = [
            text.train(folder / f"{rate}-{share}", steps=60, learning_rate=rate * share)
            for share in (1, 0.001)
        ]
        yield f"lr {rate:g}", runs[0], runs[1]


REMEDIES = {
    "more training": more_training,
    "dropout": dropout,
    "more text": more_text,
    "lower rate": lower_rate,
}


def main() -> None:
    """Try the remedies and print what they bring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--chars", type=float, default=6e4, help="characters of each text")
    parser.add_argument("--only", choices=REMEDIES, action="append")
    arguments = parser.parse_args()
    print(machine())
    for remedy in arguments.only or REMEDIES:
        for given in arguments.texts:
            with tempfile.TemporaryDirectory() as folder:
                text = Text(given, int(arguments.chars), Path(folder))
                for case, before, after in REMEDIES[remedy](text, Path(folder)):
                    losses = before.val_loss or 0.0, after.val_loss or 0.0
                    print(
                        f"{remedy:14s} {text.name:18s} {case:10s} {losses[0]:.4f} → "
                        f"{losses[1]:.4f} ({losses[1] - losses[0]:+.4f})  "
                        f"gap {before.verdict.gap:+.2f} rise {before.verdict.rise:.3f}  "
                        f"{before.verdict.judgement}, {before.verdict.advice}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
