"""From paths and settings to a trainer that is ready to run, for a new run or a resumed one.

Of several processes, process 0 does all this; the others are told what it has decided, and read the
encoded text that it has written.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from charrnn.config import CorpusConfig, ModelConfig, TrainingConfig, shown
from charrnn.corpus.corpus import Corpus, digest_of, load_corpus
from charrnn.corpus.encode import encode_corpus
from charrnn.corpus.sources import STDIN, find_sources
from charrnn.errors import ConfigError, CorpusError, RunError
from charrnn.storage.model_file import SavedModel, load_model
from charrnn.storage.runs import (
    DEFAULT_ROOT,
    RunDirectory,
    find_model,
    finished_runs,
    new_run,
    take_over,
    unfinished_runs,
)
from charrnn.training.distributed import Group, join
from charrnn.training.system import (
    interrupt,
    load_torch,
    on_signals,
    require_memory,
    require_torch,
)
from charrnn.vocab import FIRST_CHARACTER_ID

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

_P = ParamSpec("_P")

SHORTEST_S = 1.0
"""The least time limit: loading torch takes longer."""
FINE_TUNING_RATE = 3e-3
"""Peak learning rate when a trained model is trained further: it has less far to go."""
SMALLEST_VOCABULARY = FIRST_CHARACTER_ID + 1
_TOLD: Any = None
"""What a process knows of a run before process 0 tells it."""


def _led(prepare: Callable[_P, Trainer]) -> Callable[_P, Trainer]:
    """Let process 0 of several prepare a training, and the others follow it."""

    @functools.wraps(prepare)
    def together(*arguments: _P.args, **more: _P.kwargs) -> Trainer:
        group = join()
        with group.one_voice():
            return prepare(*arguments, **more) if group.leads else _follower(group)

    return together


def _follower(group: Group) -> Trainer:
    """Return the trainer of a process that does what process 0 has decided.

    Raises:
        PeerError: process 0 has found an error.
        RunError: the run directory is not on a disk that this process sees.
    """
    path, model, training, resume = group.agree(_TOLD)
    run = RunDirectory(path)
    if not run.corpus.is_dir():
        raise RunError(
            f"process {group.rank} does not see the run directory {path}: with several machines, "
            "choose one that all of them share"
        )
    from charrnn.training.trainer import Trainer

    corpus = load_corpus(run.corpus)
    return Trainer(corpus, model, training, run, resume=resume, group=group)


def _leader(
    corpus: Corpus,
    model: ModelConfig,
    training: TrainingConfig,
    run: RunDirectory,
    *,
    initial: SavedModel | None = None,
    resume: Mapping[str, Any] | None = None,
    started: float,
    lacking: str = "",
) -> Trainer:
    """Return the trainer of a process that leads, after it has told the others of the run."""
    from charrnn.training.trainer import Trainer

    group = join()
    group.agree((run.path.absolute(), model, training, resume))
    return Trainer(
        corpus,
        model,
        training,
        run,
        initial=initial,
        resume=resume,
        started=started,
        group=group,
        lacking=lacking,
    )


@_led
def prepare_training(
    paths: Sequence[str | os.PathLike[str]],
    settings: Mapping[str, Any],
    *,
    out: Path | None = None,
    name: str | None = None,
    init: str | os.PathLike[str] | None = None,
    held_out: Sequence[str | os.PathLike[str]] = (),
    started: float | None = None,
    progress: Callable[[int], None] | None = None,
    command: str | None = None,
) -> Trainer:
    """Encode the corpus, choose what was left open, and return a trainer that is ready to run.

    Args:
        paths: files, directories, or `-` for standard input.
        settings: fields of `ModelConfig` (without `vocab_size`), `TrainingConfig` and
            `CorpusConfig`; None means that charrnn chooses.
        out: the run directory; by default `runs/<corpus name>`.
        name: or its name under `runs/`.
        init: a model to begin from; its shape is kept, and new characters join its alphabet.
        held_out: files to validate on, instead of a share of the corpus.
        started: `time.monotonic()` at the start of the command, from which a time limit counts.
        progress: called with the number of characters encoded so far.
        command: the command line, for the record of the run.

    Raises:
        KeyboardInterrupt: a signal has come that asks the process to end; nothing is left.
        ConfigError: a setting does not exist or is out of range.
        ModelFileError: the model to begin from is missing or damaged.
        CorpusError: the corpus cannot be used.
        RunError: the directory already holds a run.
        StorageError: the encoded text cannot be written.
    """
    started = time.monotonic() if started is None else started
    given = {key: value for key, value in settings.items() if value is not None}
    _check(given)
    require_torch()
    if given.get("device", "auto") not in ("auto", "cpu"):
        load_torch()
        join().device(given["device"])
    initial = None if init is None else load_model(find_model(init))
    if initial is not None:
        given = {"learning_rate": FINE_TUNING_RATE, **given, **_decided_by(initial, given)}
    text = CorpusConfig(split_seed=given.get("seed", 0), **_part(CorpusConfig, given))
    name_of_text = find_sources(paths, text.glob).stem
    with on_signals(interrupt), ExitStack() as undo:
        run = new_run(name_of_text, out=out, name=name)
        undo.callback(run.discard)
        corpus = encode_corpus(
            paths,
            run.corpus,
            text,
            held_out=held_out,
            known=() if initial is None else initial.vocabulary.characters,
            progress=progress,
        )
        load_torch()  # only when it is sure to be needed
        from charrnn.training.checkpoint import versions
        from charrnn.training.probe import usable_device
        from charrnn.training.sizing import complete_settings

        given["device"], lacking = usable_device(
            ModelConfig(vocab_size=len(corpus.vocabulary), **_part(ModelConfig, given)),
            TrainingConfig(**_part(TrainingConfig, given)),
        )
        model, training = complete_settings(
            corpus.n_train,
            len(corpus.vocabulary),
            {**_part(ModelConfig, given), **_part(TrainingConfig, given)},
        )
        require_memory(model.num_parameters(), training.device)
        trainer = _leader(
            corpus, model, training, run, initial=initial, started=started, lacking=lacking
        )
        record = {
            **versions(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "text": corpus.name,
        }
        run.write_record(record if command is None else {**record, "command": command})
        undo.pop_all()
    return trainer


@_led
def prepare_resume(
    paths: Sequence[str | os.PathLike[str]],
    *,
    out: Path | None = None,
    name: str | None = None,
    held_out: Sequence[str | os.PathLike[str]] = (),
    started: float | None = None,
    limits: Mapping[str, float | int] | None = None,
) -> Trainer:
    """Return a trainer that continues where an unfinished run stopped, with its settings.

    A finished run is continued under further limits, as if it had been the first part of a longer
    one: the learning rate begins where that of the longer run would be.

    Args:
        paths: the corpus, wherever it is now; may be empty.
        out: the run directory.
        name: or its name under `runs/`; without both, the newest unfinished run of this text.
        held_out: the held-out files, if they are to be compared with those of the run.
        started: as for `prepare_training`.
        limits: `time_s`, `epochs` or `steps` to add to a finished run.

    Raises:
        ConfigError: limits are given for an unfinished run, or are out of range.
        RunError: there is nothing to resume, or another command works on the run.
        CorpusError: the corpus has changed since.
    """
    started = time.monotonic() if started is None else started
    found, corpus = _unfinished_run(paths, out, name)
    _require_unchanged(corpus, paths, held_out)
    with on_signals(interrupt), ExitStack() as undo:
        run = take_over(found)
        undo.callback(run.release)
        load_torch()
        from charrnn.training.checkpoint import read_record, settings_of
        from charrnn.training.probe import usable_device

        record = read_record(run.resume)
        model, training = settings_of(run.resume, record, corpus)
        training = _limited(run, record, training, limits or {})
        device, lacking = usable_device(model, training)
        training = dataclasses.replace(training, device=device)
        trainer = _leader(
            corpus, model, training, run, resume=record, started=started, lacking=lacking
        )
        undo.pop_all()
    return trainer


def _limited(
    run: RunDirectory,
    record: Mapping[str, Any],
    training: TrainingConfig,
    limits: Mapping[str, float | int],
) -> TrainingConfig:
    """Return the settings of a run with the limits that it is to continue under.

    Raises:
        ConfigError: limits are given for an unfinished run, or are out of range.
        RunError: a finished run is given none, or its record does not fit.
    """
    from charrnn.training.checkpoint import unfit

    if not record.get("finished"):
        for field in limits:
            raise ConfigError(
                "is for a finished run, and this one continues under its own limits: leave it out "
                "now, and give it when the run has finished",
                field=field,
            )
        return training
    if not limits:
        raise RunError(
            f"the run {run.path} is finished: say how much longer it is to train, with a limit "
            "of time, epochs or steps"
        )
    allowed: dict[str, Any] = dict(limits)
    _require_time(TrainingConfig(**allowed))
    try:
        done = {
            "time_s": record["elapsed_s"],
            "epochs": record["metrics"][-1]["epoch"],
            "steps": record["schedule"]["step"],
        }
        totals: dict[str, Any] = {
            name: allowed[name] + done[name] if name in allowed else None for name in done
        }
    except (LookupError, TypeError) as error:
        raise unfit(run.resume, error) from error
    return dataclasses.replace(training, **totals)


def _unfinished_run(
    paths: Sequence[str | os.PathLike[str]], out: Path | None, name: str | None
) -> tuple[RunDirectory, Corpus]:
    """Return the run to resume: the one named, or the newest that was trained on the text."""
    is_named = out is not None or name is not None
    is_piped = _is_piped(paths)
    digests: dict[tuple[str, ...], str] = {}

    def is_of_text(corpus: Corpus) -> bool:
        glob = () if is_piped else corpus.config.glob  # a pipe can be read only once
        if glob not in digests:
            digests[glob] = digest_of(paths, glob)
        return corpus.sha256 == digests[glob]

    for run in unfinished_runs(out=out, name=name):
        if not is_named and run.is_running:
            continue
        try:
            corpus = load_corpus(run.corpus)
        except CorpusError:
            if is_named or not paths:
                raise
            continue
        if is_named or not paths:
            return run, corpus
        if is_of_text(corpus):
            return run, corpus
    what = f" of the text in {find_sources(paths)[0].name}" if paths else ""
    for run in finished_runs():
        with suppress(CorpusError):
            if not paths or is_of_text(load_corpus(run.corpus)):
                raise RunError(
                    f"there is no unfinished run{what} under {DEFAULT_ROOT}; to train the finished "
                    f"one further: {run.resume_command}"
                )
    raise RunError(
        f"there is nothing to resume: no unfinished run{what} is under {DEFAULT_ROOT}; name a run "
        "or its directory"
    )


def _is_piped(paths: Sequence[str | os.PathLike[str]]) -> bool:
    """Say whether an input can be read only once."""
    return any(os.fspath(path) == STDIN or Path(path).is_fifo() for path in paths)


def _require_unchanged(
    corpus: Corpus,
    paths: Sequence[str | os.PathLike[str]],
    held_out: Sequence[str | os.PathLike[str]],
) -> None:
    """Compare the text where it is now with the one that was encoded.

    Files that are not named and no longer where they were are not looked for: the run has its own
    encoded text.

    Raises:
        CorpusError: the text is not the same, or a file that is named does not exist.
    """
    parts = (
        (paths, corpus.paths, corpus.sha256),
        (held_out, corpus.held_out_paths, corpus.held_out_sha256),
    )
    for given, recorded, digest in parts:
        wanted = given or [path for path in recorded if Path(path).is_file()]
        is_compared = len(wanted) == len(recorded) if not given else not _is_piped(given)
        if wanted and is_compared and digest_of(wanted, corpus.config.glob) != digest:
            raise CorpusError(
                f"{wanted[0]} has changed since this run began: start a new run, or put the old "
                "text back"
            )


def _check(given: Mapping[str, Any]) -> None:
    """Check the names and values that were given.

    Raises:
        ConfigError: a name is no setting, or a value is out of range.
    """
    parts = [_part(kind, given) for kind in (ModelConfig, TrainingConfig, CorpusConfig)]
    for name in given:
        if not any(name in part for part in parts):
            raise ConfigError(f"there is no setting called {shown(name)}")
    model, training, text = parts
    ModelConfig(vocab_size=SMALLEST_VOCABULARY, **model)
    _require_time(TrainingConfig(**training))
    CorpusConfig(**text)


def _require_time(limits: TrainingConfig) -> None:
    """Refuse a time limit in which nothing can be learned.

    Raises:
        ConfigError: it is too short.
    """
    if limits.time_s is not None and limits.time_s < SHORTEST_S:
        raise ConfigError(
            f"must be at least {SHORTEST_S:g} second, for the start alone takes longer; got "
            f"{limits.time_s:g}",
            field="time_s",
        )


def _part(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are fields of a config; what the corpus decides is none."""
    fields = {field.name for field in dataclasses.fields(kind)} - {"vocab_size", "split_seed"}
    return {name: value for name, value in given.items() if name in fields}


def _decided_by(initial: SavedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a model to begin from decides.

    Raises:
        ConfigError: a setting contradicts the model.
    """
    shape = _part(ModelConfig, dataclasses.asdict(initial.config))
    text = {"unit": initial.vocabulary.unit, "normalize": initial.text.normalize}
    for name, value in {**shape, **text}.items():
        if given.get(name, value) != value:
            wrong = f"must be {value}, as in the model to begin from, got {given[name]}"
            if isinstance(value, bool):
                wrong = "contradicts the model to begin from"
            raise ConfigError(f"{wrong}: leave it out", field=name)
    return {**shape, **text}
