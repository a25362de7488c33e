"""`charrnn train`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, get_args

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

LIMITS = ("time_s", "epochs", "steps")
RESUMABLE = ("corpus", "held_out", "out", "name", "resume", "quiet", *LIMITS)
"""What a resume takes beside `--resume`."""

CHOSEN = {"default": None, "show_default": "chosen from corpus, limits and machine"}


@with_settings(
    (
        "Corpus",
        CorpusConfig,
        "documents unit min_count val_fraction normalize encoding errors glob",
    ),
    ("Model", ModelConfig, "cell nonlinearity hidden_size num_layers embedding_size members"),
    ("Model", ModelConfig, "bidirectional"),
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
    bptt={"default": None, "show_default": "64; 128 with --bidirectional"},
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
        "Validate on this file; may be given several times.",
        metavar="FILE",
        parser=path_name,
        show_default="a share of the corpus, --val-fraction",
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
        False,
        "--resume",
        "Continue the unfinished run of this corpus, or of --name or --out. A finished one is "
        "named, and continued by a further --time, --epochs or --steps.",
    ),
    quiet: bool = output(False, "--quiet -q", "Show only warnings, errors and the result."),
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

    from charrnn.display.terminal import pasted
    from charrnn.display.train import TrainingDisplay
    from charrnn.events import Finished
    from charrnn.training.prepare import prepare_resume, prepare_training
    from charrnn.training.system import is_leader

    named = {p.name: settings[p.name] for p in given if p.name in settings}
    with TrainingDisplay(quiet=quiet or not is_leader()) as display:
        display.working("reading the text")
        if resume:
            trainer = prepare_resume(
                corpus or [], out=out, name=name, held_out=held_out, started=started, limits=named
            )
        else:
            trainer = prepare_training(
                corpus,
                named,
                out=out,
                name=name,
                init=init,
                held_out=held_out,
                started=started,
                progress=display.encoded,
                command=pasted(["charrnn", *sys.argv[1:]]),
            )
        is_over = False
        try:
            for event in trainer.run():
                display.show(event)
                is_over = isinstance(event, Finished)
        except KeyboardInterrupt:
            if not is_over:
                run = trainer.run_directory
                display.show_break(run.path, run.saved_step, has_model=run.model.exists())
            raise typer.Exit(130) from None


def _given(context: typer.Context) -> list[Any]:
    """Return the parameters that are on the command line; all others are left to charrnn."""
    sources = {p: context.get_parameter_source(str(p.name)) for p in context.command.params}
    return [p for p, source in sources.items() if source and source.name == "COMMANDLINE"]
