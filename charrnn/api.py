"""Verbs for Python: `load` gives a model that samples and scores; `train`, `resume`, `merge`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from charrnn.config import (
    Cell,
    CorpusConfig,
    DecodingErrors,
    DocumentKind,
    ModelConfig,
    Nonlinearity,
    Normalization,
    OptimizerName,
    Precision,
    TrainingConfig,
    Unit,
    named_keywords,
    shown,
    typed,
)
from charrnn.errors import ConfigError, CorpusError, ModelFileError
from charrnn.events import Event
from charrnn.model import CharModel
from charrnn.storage.merge import merge_models, require_different
from charrnn.storage.model_file import load_model, read_model_record, save_model
from charrnn.storage.reading import require_possible
from charrnn.storage.runs import find_model, new_run

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

PathLike: TypeAlias = str | os.PathLike[str]
OnEvent: TypeAlias = Callable[[Event], None]

SETTINGS = {
    field.name
    for config in (ModelConfig, TrainingConfig, CorpusConfig)
    for field in dataclasses.fields(config)
} - {"vocab_size", "split_seed"}
"""What a training run can be told; the command line's options have the same names."""

LONGEST_PATH = 1000
"""Characters; what is longer is taken for a text."""


@named_keywords
def load(path: PathLike | None = None, *, bidirectional: bool | None = None) -> CharModel:
    """Load a model file or run directory, or `builtin`, the bundled model.

    Without a path it is the newest model under `runs/`, and the bundled one before any training.

    Args:
        path: the model.
        bidirectional: without a path, look for a model that fills gaps (True), or that writes
            (False).

    Raises:
        ModelFileError: there is no model, or the file is not a sound one.
    """

    def suits(file: Path) -> bool:
        try:
            return read_model_record(file).config.bidirectional == bidirectional
        except ModelFileError:
            return False

    found = find_model(
        None if path is None else _path("path", path),
        suits=None if bidirectional is None else suits,
    )
    return CharModel(load_model(found), found)


@named_keywords
def merge(
    models: Iterable[PathLike], *, out: PathLike | None = None, name: str | None = None
) -> CharModel:
    """Make one model of several, save it in a run directory, and return it.

    Its logits are the mean of theirs; see `merge_models`.

    Args:
        models: model files or run directories of one shape and alphabet, from other seeds on the
            same text.
        out: directory to save in; a new one under `runs/` when left out.
        name: or its name under `runs/`.

    Raises:
        ConfigError: the models do not fit together, two are the same, or both `out` and `name`
            are given.
        ModelFileError: one of them is missing or is no sound model.
        RunError: the directory already holds a run.
        StorageError: the model cannot be written.
    """
    paths = _paths("models", models)
    where = None if out is None else Path(_path("out", out))
    run = new_run("merged", out=where, name=typed("name", name, str | None))
    try:
        parts = [load(path).saved for path in paths]
        require_different(parts)
        merged = merge_models(parts)
        save_model(run.model, merged)
    except BaseException:
        run.discard()
        raise
    run.release()
    return CharModel(merged, run.model)


@named_keywords
def train(
    corpus: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    name: str | None = None,
    init: PathLike | None = None,
    held_out: PathLike | Sequence[PathLike] = (),
    documents: DocumentKind | None = None,
    normalize: Normalization | None = None,
    unit: Unit | None = None,
    min_count: int | None = None,
    val_fraction: float | None = None,
    encoding: str | None = None,
    errors: DecodingErrors | None = None,
    glob: str | Sequence[str] | None = None,
    cell: Cell | None = None,
    nonlinearity: Nonlinearity | None = None,
    hidden_size: int | None = None,
    num_layers: int | None = None,
    embedding_size: int | None = None,
    members: int | None = None,
    bidirectional: bool | None = None,
    time_s: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    bptt: int | None = None,
    optimizer: OptimizerName | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    dropout: float | None = None,
    input_dropout: float | None = None,
    recurrent_dropout: float | None = None,
    unknown_rate: float | None = None,
    calibrate: bool | None = None,
    sample_every: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    dtype: Precision | None = None,
    on_event: OnEvent | None = None,
) -> CharModel:
    """Train on one or several texts and return the best model.

    The settings are the fields of `ModelConfig`, `TrainingConfig` and `CorpusConfig`, and are
    described there; those left out are chosen from the corpus, the limits and the machine.

    Args:
        corpus: path or paths, directories included.
        out: run directory; without it `runs/<corpus name>`.
        name: or its name under `runs/`.
        init: model to begin from instead of random weights, `builtin` for the bundled one; its
            shape is kept, and new characters are added to its alphabet.
        held_out: file or files to validate on, instead of a share of the corpus.
        on_event: called with each event of `charrnn.events` as it happens. Training says nothing
            otherwise; for what the command line shows:

                from charrnn.display.train import TrainingDisplay

                with TrainingDisplay() as display:
                    charrnn.train("play.txt", on_event=display.show)

    Raises:
        ConfigError: a setting is out of range or of the wrong type.
        CharRNNError: the corpus or the run directory is unusable.
        KeyboardInterrupt: the run was interrupted; it is saved, and `resume` continues it.
    """
    settings = {key: value for key, value in locals().items() if key in SETTINGS}
    settings["time_s"] = _seconds(time_s)
    paths = _corpus_paths(corpus)

    from charrnn.training.prepare import prepare_training

    return _trained(
        prepare_training(
            paths,
            settings,
            out=None if out is None else Path(_path("out", out)),
            name=typed("name", name, str | None),
            init=None if init is None else _path("init", init),
            held_out=_paths("held_out", held_out),
        ),
        on_event,
    )


@named_keywords
def resume(
    run: PathLike,
    *,
    time_s: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    on_event: OnEvent | None = None,
) -> CharModel:
    """Continue a run and return its best model.

    A run that was interrupted continues with its own settings and limits; a finished one is given
    at least one limit more, which counts from where it ended.

    Args:
        run: run directory.
        time_s: seconds to train further.
        epochs: or epochs.
        steps: or updates of the weights.
        on_event: as in `train`.

    Raises:
        ConfigError: a limit is out of range, or the run is not finished and has its own.
        RunError: there is nothing to resume there, or another process works on it.
        CorpusError: the text has changed since.
        KeyboardInterrupt: as in `train`.
    """
    limits = {"time_s": _seconds(time_s), "epochs": epochs, "steps": steps}
    out = Path(_path("run", run))

    from charrnn.training.prepare import prepare_resume

    given = {name: value for name, value in limits.items() if value is not None}
    return _trained(prepare_resume([], out=out, limits=given), on_event)


def _trained(trainer: Trainer, on_event: OnEvent | None) -> CharModel:
    """Run a trainer to its end, and return the best model.

    Raises:
        KeyboardInterrupt: it was interrupted; the message says how the run is continued.
    """
    run = trainer.run_directory
    try:
        for event in trainer.run():
            if on_event is not None:
                on_event(event)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"to continue: charrnn.resume({str(run.path)!r})") from None
    return load(run.model)


def _seconds(given: Any) -> float | None:
    """Return a time limit as it was given.

    Raises:
        ConfigError: it is no number.
    """
    try:
        seconds: float | None = typed("time_s", given, float | None)
    except ConfigError:
        raise ConfigError(
            f"must be a number of seconds such as 90, got {shown(given)}", field="time_s"
        ) from None
    return seconds


def _corpus_paths(corpus: Any) -> list[PathLike]:
    """Return the paths of a corpus.

    Raises:
        ConfigError: it is neither a path nor several.
        CorpusError: it is a text.
    """
    paths = _paths("corpus", corpus)
    for path in paths:
        name = os.fspath(path)
        if "\n" in name or len(name) > LONGEST_PATH:
            raise CorpusError(
                f"the corpus is given as a path, not as the text itself ({shown(name)}): save the "
                "text in a file and give its path"
            )
    return paths


def _paths(name: str, given: Any) -> list[PathLike]:
    """Return one path, or several, as a list.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, (str, os.PathLike)):
        return [_path(name, given)]
    try:
        if isinstance(given, (bytes, dict)):
            raise TypeError
        several = list(given)
    except TypeError:
        raise ConfigError(
            f"must be a path or several paths, got {shown(given)}", field=name
        ) from None
    return [_path(name, path) for path in several]


def _path(name: str, given: Any) -> PathLike:
    """Return a path as it was given.

    Raises:
        ConfigError: it is none.
    """
    path: Any = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"must be a path, got {shown(given)}", field=name)
    if name != "corpus":  # which may be a text by mistake
        require_possible(path, name)
    return path
