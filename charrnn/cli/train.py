"""`charrnn train`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from charrnn.cli.options import model_name, parse_duration, path_name
from charrnn.config import CorpusConfig, TrainingConfig
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

CORPUS, MODEL, TRAINING, OUTPUT = "Corpus", "Model", "Training", "Output"
AUTO = "chosen from corpus, budget and machine"


def _corpus(default: Any, *names: str, **more: Any) -> Any:
    return _option(default, *names, auto=False, panel=CORPUS, **more)


def _model(default: Any, *names: str, auto: bool = True, **more: Any) -> Any:
    return _option(default, *names, auto=auto, panel=MODEL, **more)


def _training(default: Any, *names: str, auto: bool = False, **more: Any) -> Any:
    return _option(default, *names, auto=auto, panel=TRAINING, **more)


def _option(default: Any, *names: str, auto: bool, panel: str, **more: Any) -> Any:
    shown = AUTO if auto else more.pop("shown", True)
    return typer.Option(default, *names, rich_help_panel=panel, show_default=shown, **more)


def train(
    context: typer.Context,
    corpus: list[Path] = typer.Argument(
        None,
        metavar="CORPUS...",
        parser=path_name,
        show_default=False,
        help="Text files (also .gz, .bz2, .xz), directories, or - for standard input.",
    ),
    documents: str = _corpus(
        CorpusConfig.documents,
        "--documents",
        help="What ends with EOS: none (one long text), line, blank-line or file.",
    ),
    unit: str = _corpus(
        None, "--unit", shown="char", help="char, or byte: any language, nothing unknown."
    ),
    min_count: int = _corpus(
        CorpusConfig.min_count, "--min-count", help="Characters rarer than this become UNK."
    ),
    val_fraction: float = _corpus(
        None,
        "--val-fraction",
        shown="a tenth, at most 1M characters",
        help="Share kept for validation: the end of the text, or whole documents.",
    ),
    normalize: str = _corpus(
        None, "--normalize", shown="none", help="Unicode normalisation: none, nfc or nfkc."
    ),
    encoding: str = _corpus(
        CorpusConfig.encoding, "--encoding", help="Of the files; auto is UTF-8 or by its mark."
    ),
    errors: str = _corpus(
        CorpusConfig.errors, "--errors", help="Undecodable bytes: strict or replace."
    ),
    glob: str = _corpus(CorpusConfig.glob, "--glob", help="Files to read in directories."),
    held_out: list[Path] = _corpus(
        [],
        "--held-out",
        metavar="FILE",
        parser=path_name,
        shown="none",
        help="Validate on this file instead.",
    ),
    init: Path = _model(
        None,
        "--init",
        auto=False,
        shown="random weights",
        metavar="MODEL",
        parser=model_name,
        help="Begin from a trained model, or from builtin, the one that ships with charrnn; its "
        "shape is kept, its alphabet grows.",
    ),
    cell: str = _model(
        None, "--cell", auto=False, shown="lstm", help="Recurrent cell: lstm, gru or rnn."
    ),
    nonlinearity: str = _model(
        None, "--nonlinearity", auto=False, shown="tanh", help="Of the rnn cell: tanh or relu."
    ),
    hidden: int = _model(None, "--hidden", help="Units per layer."),
    layers: int = _model(None, "--layers", auto=False, shown="1", help="Stacked recurrent layers."),
    embedding: int = _model(
        None, "--embedding", help="Width of the character embedding; 0 means one-hot."
    ),
    members: int = _model(
        None, "--members", help="Networks trained side by side; the model is their mean."
    ),
    dropout: float = _model(
        None, "--dropout", help="Dropout between layers and before the output."
    ),
    input_dropout: float = _model(
        TrainingConfig.input_dropout,
        "--input-dropout",
        auto=False,
        help="Dropout on the characters' embedding.",
    ),
    recurrent_dropout: float = _model(
        None, "--recurrent-dropout", help="Dropout from a character to the next in a layer."
    ),
    budget: str = _training(
        None,
        "--time",
        shown="by corpus size, 20s to 9m30s",
        metavar="DURATION",
        help="Train for so long at most: 90s, 2m, 1h30m.",
    ),
    epochs: float = _training(None, "--epochs", shown="none", help="Or for so many passes."),
    steps: int = _training(None, "--steps", shown="none", help="Or for so many updates."),
    batch: int = _training(
        TrainingConfig.batch_size, "--batch", help="Lanes of text read side by side."
    ),
    bptt: int = _training(
        TrainingConfig.bptt, "--bptt", help="Window of truncated backpropagation, in characters."
    ),
    optimizer: str = _training(
        TrainingConfig.optimizer, "--optimizer", help="muon (with adamw) or adamw alone."
    ),
    learning_rate: float = _training(None, "--lr", auto=True, help="Peak learning rate."),
    weight_decay: float = _training(
        None, "--weight-decay", auto=True, help="Decoupled weight decay."
    ),
    clip_norm: float = _training(
        TrainingConfig.clip_norm, "--clip-norm", help="Largest gradient norm; 0 for none."
    ),
    clip_value: float = _training(
        TrainingConfig.clip_value, "--clip-value", help="Largest gradient element; 0 for none."
    ),
    patience: int = _training(
        TrainingConfig.patience,
        "--patience",
        help="Stop at once after so many evaluations without improvement; 0 never.",
    ),
    calibrate: bool = _training(
        TrainingConfig.calibrate,
        "--calibrate/--no-calibrate",
        help="Scale the model's logits to fit the validation text best.",
    ),
    seed: int = _training(TrainingConfig.seed, "--seed", help="Seed of every random generator."),
    device: str = _training(
        TrainingConfig.device, "--device", help="auto, cpu, cuda, cuda:N or mps."
    ),
    dtype: str = _training(
        TrainingConfig.dtype, "--dtype", help="Precision of products: auto, float32, bfloat16."
    ),
    out: Path = typer.Option(
        None,
        "--out",
        "-o",
        metavar="DIR",
        parser=path_name,
        show_default="runs/<corpus name>",
        help="Run directory.",
        rich_help_panel=OUTPUT,
    ),
    name: str = typer.Option(
        None,
        show_default="the corpus's",
        help="Name of the run under runs/.",
        rich_help_panel=OUTPUT,
    ),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Go on with the unfinished run of this corpus (or of --name, --out).",
        rich_help_panel=OUTPUT,
    ),
    sample_every: int = typer.Option(
        TrainingConfig.sample_every,
        help="Show a sample at every n-th evaluation; 0 never.",
        rich_help_panel=OUTPUT,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Only warnings and errors.", rich_help_panel=OUTPUT
    ),
) -> int:
    """Train a model on a text: charrnn train shakespeare.txt.

    What is not given is chosen from corpus, budget and machine; Ctrl-C keeps the best model so far.
    """
    started = time.monotonic()
    settings = {
        "documents": documents,
        "unit": unit,
        "min_count": min_count,
        "val_fraction": val_fraction,
        "normalize": normalize,
        "encoding": encoding,
        "errors": errors,
        "glob": glob,
        "cell": cell,
        "nonlinearity": nonlinearity,
        "hidden_size": hidden,
        "num_layers": layers,
        "embedding_size": embedding,
        "members": members,
        "dropout": dropout,
        "input_dropout": input_dropout,
        "recurrent_dropout": recurrent_dropout,
        "time_s": parse_duration(budget),
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch,
        "bptt": bptt,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "clip_value": clip_value,
        "patience": patience,
        "calibrate": calibrate,
        "sample_every": sample_every,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    if not corpus and not resume:
        raise ConfigError("no corpus given: name a text file, a directory, or - for stdin")

    if resume:
        _refuse_settings(context)

    from charrnn.api import prepare_resume, prepare_training
    from charrnn.display.train import TrainingDisplay

    with TrainingDisplay(quiet=quiet) as display:
        display.working("reading the text")
        if resume:
            trainer = prepare_resume(corpus or [], out=out, name=name, started=started)
        else:
            trainer = prepare_training(
                corpus,
                out=out,
                name=name,
                init=init,
                held_out=held_out,
                started=started,
                progress=display.encoded,
                **settings,
            )
        with _stop_on_signal(trainer):
            for event in trainer.run():
                display.show(event)
    return 130 if trainer.stop_requested else 0


def _refuse_settings(context: typer.Context) -> None:
    """Refuse options that a resumed run would not heed."""
    heeded = {"corpus", "out", "name", "resume", "quiet"}
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name not in heeded and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"--resume goes on with the settings of the run: leave out {parameter.opts[0]}, or "
                "start a new run"
            )


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) end the run in good order; a second one ends it at once."""

    def stop(signum: int, frame: object) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
