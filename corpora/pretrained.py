"""Train the bundled model on the plays that `shakespeare.py` writes.

    make pretrained         (or: python corpora/shakespeare.py; python corpora/pretrained.py)

The limit is a number of epochs or steps, not a time, and nothing is left to a measurement, so that
the same settings give the same training on another day. The weights are stored in float16.
Settings, seed and corpus stand in the file's training record as after every run, and beside them

    storage     the validation loss (nats per character) before and after rounding, both measured
                with `charrnn score`'s engine on the validation text in 64 rows
    check       the log-probability (nats) of a sentence, by which tests see that later versions
                of charrnn still read the file as it was meant

The old file stays in place until a new one of at most 1.5 MB is complete. The exit code is 1 when
something is wrong, and 2 for wrong options.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from charrnn.errors import CharRNNError
from charrnn.events import Evaluated
from charrnn.model import CharModel
from charrnn.scoring.rows import score_in_rows
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.runs import BUILTIN_MODEL
from charrnn.training.prepare import prepare_training

MAX_BYTES = 1_500_000
DTYPE = "float16"
BYTES_PER_WEIGHT = 2
EPOCHS = 8.0
"""Sixteen minutes on one core with AMX; half an hour on a busy core without."""
ROWS, WARMUP = 64, 256
SENTENCE = "The night is long, and yet the morning comes."


class TooLargeError(CharRNNError):
    """The model would not fit into the package."""


def main(arguments: list[str] | None = None) -> int:
    """Train, store, report; return the exit code."""
    options = _options().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            best, validation = _train(options, Path(folder))
            stored = _rounded(best, Path(folder))
            before, after = (_loss(model, validation) for model in (best, stored))
            logprob = CharModel(stored).score(SENTENCE).logprob
            storage = {
                "dtype": DTYPE,
                "val_loss_nats_float32": before,
                f"val_loss_nats_{DTYPE}": after,
            }
            record = {
                **stored.training,
                "storage": storage,
                "check": {"text": SENTENCE, "logprob": logprob},
            }
            size = _publish(replace(stored, training=record), options.out, Path(folder))
    except CharRNNError as error:
        print(f"pretrained: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {size:,} bytes")
    print(f"validation loss {before:.5f} nats per character in float32, {after:.5f} in {DTYPE}")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument("--text", type=Path, default=Path(__file__).with_name("shakespeare.txt"))
    parser.add_argument("--out", type=Path, default=BUILTIN_MODEL, help="file to write")
    parser.add_argument("--hidden", type=int, default=384, help="units of the one LSTM layer")
    parser.add_argument("--embedding", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=float, help=f"limit in epochs (default: {EPOCHS:g})")
    parser.add_argument("--steps", type=int, help="or in updates of the weights")
    return parser


def _train(options: argparse.Namespace, folder: Path) -> tuple[SavedModel, str]:
    """Return the best model of a run, and the validation text."""
    settings = {
        "hidden_size": options.hidden,
        "embedding_size": options.embedding,
        "seed": options.seed,
        "epochs": EPOCHS if options.epochs is None and options.steps is None else options.epochs,
        "steps": options.steps,
        # what `auto` would choose depends on the machine
        "device": "cpu",
        "dtype": "bfloat16",
        "sample_every": 0,
    }
    trainer = prepare_training([options.text], settings, out=folder / "run")
    _check_size(BYTES_PER_WEIGHT * trainer.model.num_parameters())  # before minutes of training
    for event in trainer.run():
        if isinstance(event, Evaluated) and event.val_loss is not None:
            print(
                f"{event.progress:4.0%}  epoch {event.epoch:.2f}  step {event.step:,}  "
                f"{event.elapsed_s:.0f}s  validation {event.val_loss:.4f}",
                flush=True,
            )
    validation = trainer.corpus.vocabulary.decode(trainer.corpus.val_ids)
    return load_model(trainer.run_directory.model), validation


def _rounded(model: SavedModel, folder: Path) -> SavedModel:
    """Return a model as it is after storing."""
    save_model(folder / "rounded", model, dtype=DTYPE)
    return load_model(folder / "rounded")


def _loss(model: SavedModel, text: str) -> float:
    """Return nats per character, unknown characters charged as UNK."""
    scorer = CharModel(model).scorer(eos=False)
    score = score_in_rows(scorer, [text], rows=ROWS, warmup=WARMUP).score
    return -score.logprob / score.n_scored


def _publish(model: SavedModel, out: Path, folder: Path) -> int:
    """Write the model to `out` if it is small enough, and return its size in bytes."""
    save_model(folder / "final", model, dtype=DTYPE)
    size = (folder / "final").stat().st_size
    _check_size(size)
    save_model(out, model, dtype=DTYPE)
    return size


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise TooLargeError(
            f"the model would have {size:,} bytes and may have {MAX_BYTES:,}: choose a smaller "
            "--hidden"
        )


if __name__ == "__main__":
    sys.exit(main())
