"""`charrnn train`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from charrnn.cli.options import (
    model_name,
    option,
    output,
    path_name,
    seconds,
    with_settings,
)
from charrnn.config import CorpusConfig, DocumentKind, ModelConfig, TrainingConfig
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

SIGNALS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
"""What ends a run in good order."""

RESUMABLE = ("corpus", "held_out", "out", "name", "resume", "quiet")
"""What a resume takes beside `--resume`."""

CHOSEN = {"default": None, "show_default": "chosen from corpus, limits and machine"}


@with_settings(
    (
        "Corpus",
        CorpusConfig,
        "documents unit min_count val_fraction normalize encoding errors glob",
    ),
    ("Model", ModelConfig, "cell nonlinearity hidden_size num_layers embedding_size members"),
    ("Model", TrainingConfig, "dropout input_dropout recurrent_dropout"),
    ("When to stop", TrainingConfig, "time_s epochs steps"),
    ("Training", TrainingConfig, "batch_size bptt optimizer learning_rate weight_decay"),
    ("Training", TrainingConfig, "clip_norm clip_value calibrate seed"),
    ("Machine", TrainingConfig, "device dtype"),
    ("Output", TrainingConfig, "sample_every"),
    documents={"metavar": "|".join(get_args(DocumentKind))},
    val_fraction={"show_default": "a tenth, at most 1M characters"},
    encoding={"metavar": "NAME"},
    glob={"metavar": "PATTERN"},
    hidden_size={"names": "--hidden", **CHOSEN},
    num_layers={"names": "--layers"},
    embedding_size={"names": "--embedding", **CHOSEN},
    members=CHOSEN,
    dropout=CHOSEN,
    recurrent_dropout=CHOSEN,
    time_s={
        "names": "--time",
        "metavar": "DURATION",
        "parser": seconds,
        "show_default": "by corpus size, 20s to 9m30s",
    },
    epochs={"show_default": "none"},
    steps={"show_default": "none"},
    batch_size={"names": "--batch"},
    learning_rate={"names": "--lr", **CHOSEN},
    weight_decay=CHOSEN,
    calibrate={"names": "--calibrate/--no-calibrate"},
    device={"metavar": "auto|cpu|cuda[:N]|mps"},
)
def train(
    context: typer.Context,
    corpus: list[Path] = typer.Argument(
        None,
        metavar="CORPUS",
        parser=path_name,
        show_default=False,
        help="Text files (also .gz, .bz2, .xz), directories, or - for standard input.",
    ),
    held_out: list[Path] = option(
        "Corpus",
        [],
        "--held-out",
        "Validate on this file instead; may be given several times.",
        metavar="FILE",
        parser=path_name,
        show_default=False,
    ),
    init: Path = option(
        "Model",
        None,
        "--init",
        "Begin from a trained model, or from builtin, the bundled one: its shape is kept, "
        "its alphabet grows.",
        metavar="MODEL",
        parser=model_name,
        show_default="random weights",
    ),
    out: Path = output(
        None,
        "--out -o",
        "Run directory.",
        metavar="DIR",
        parser=path_name,
        show_default="runs/<name of the corpus>",
    ),
    name: str = output(
        None,
        "--name",
        "Name of the run under runs/.",
        metavar="NAME",
        show_default="that of the corpus",
    ),
    resume: bool = output(
        False, "--resume", "Continue the unfinished run of this corpus (or of --name, --out)."
    ),
    quiet: bool = output(False, "--quiet -q", "Show warnings and errors only."),
    **settings: Any,
) -> None:
    """Train a model on a text: charrnn train shakespeare.txt.

    Training ends at the first limit that is reached; Ctrl-C keeps the best model.
    """
    started = time.monotonic()
    if not corpus and not resume:
        raise ConfigError("no corpus given: name a text file, a directory, or - for stdin")
    given = _given(context)
    for parameter in given:
        if resume and parameter.name not in RESUMABLE:
            raise ConfigError(
                f"--resume continues with the settings of the run: leave out {parameter.opts[0]}, "
                "or start a new run"
            )

    from charrnn.display.train import TrainingDisplay
    from charrnn.training.prepare import prepare_resume, prepare_training

    with TrainingDisplay(quiet=quiet) as display:
        display.working("reading the text")
        if resume:
            trainer = prepare_resume(
                corpus or [], out=out, name=name, held_out=held_out, started=started
            )
        else:
            trainer = prepare_training(
                corpus,
                {p.name: settings[p.name] for p in given if p.name in settings},
                out=out,
                name=name,
                init=init,
                held_out=held_out,
                started=started,
                progress=display.encoded,
            )
        with _stop_on_signal(trainer):
            for event in trainer.run():
                try:
                    display.show(event)
                except OSError:  # a terminal that hung up; the model is saved all the same
                    if not trainer.stop_requested:
                        raise
    if trainer.stop_requested:
        raise KeyboardInterrupt


def _given(context: typer.Context) -> list[Any]:
    """Return the parameters that are on the command line; all others are left to charrnn."""
    sources = {p: context.get_parameter_source(str(p.name)) for p in context.command.params}
    return [p for p, source in sources.items() if source and source.name == "COMMANDLINE"]


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP end the run in good order, a second one at once.

    What the caller ignores, as nohup does SIGHUP, stays ignored.
    """

    def stop(signum: int, frame: object) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
