"""Run directories: names, files, their one owner, what is in them, and which model is meant."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charrnn.config import quoted
from charrnn.errors import ConfigError, ModelFileError, RunError, StorageError
from charrnn.storage.atomic import (
    is_temporary,
    remove_temporary_files,
    storage_errors,
    write_text_atomically,
)
from charrnn.storage.lock import RunLock, is_locked
from charrnn.storage.reading import (
    header_record,
    open_ordinary,
    read_header,
    reason,
    require_possible,
)

DEFAULT_ROOT = Path("runs")
MODEL_FILE = "model.safetensors"
RESUME_FILE = "resume.safetensors"
METRICS_FILE = "metrics.jsonl"
CORPUS_FILES = ("corpus.json", "ids.bin", "documents.bin", "draft.bin")
LOCK_FILE = ".charrnn.lock"
NEEDED_TO_RESUME = ("corpus/corpus.json", "corpus/ids.bin", RESUME_FILE)
RESUME_KEY = "charrnn_resume"
"""Where the record of a resume state stands in the metadata of its file."""
MAX_RECORD_BYTES = 1 << 20
MAX_CORPUS_RECORD = 1 << 26
"""Of `run.json`."""
MAX_NAME_BYTES = 200
"""Of a run named after its corpus: room for a number within what a directory's name may have."""
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{p}{n}" for p in ("COM", "LPT") for n in range(1, 10))}
"""Names that no file has on Windows, to which a run may be taken."""
BUILTIN = "builtin"
"""What the bundled model is called wherever a model is asked for."""
BUILTIN_MODEL = Path(__file__).with_name("builtin.safetensors")
"""Its file, made by `make pretrained`."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one training run.

    Attributes:
        lock: held by the run's owner; None for a run that is only looked at.
        made: directories made for the run, the outermost first.
        name_taken: the directory that its name would have had, if another run was there before.
    """

    path: Path
    lock: RunLock | None = field(default=None, compare=False, repr=False)
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    name_taken: Path | None = field(default=None, compare=False, repr=False)

    @property
    def model(self) -> Path:
        """The best model so far, by validation loss."""
        return self.path / MODEL_FILE

    @property
    def last(self) -> Path:
        """The model at the end of the run, if it was not the best."""
        return self.path / "last.safetensors"

    @property
    def resume(self) -> Path:
        """Everything needed to continue where the run stopped."""
        return self.path / RESUME_FILE

    @property
    def set_aside(self) -> Path:
        """The best model of the evaluations, while one saved at a stop stands in its place."""
        return self.path / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line an evaluation."""
        return self.path / METRICS_FILE

    @property
    def corpus(self) -> Path:
        """Folder of the encoded text."""
        return self.path / "corpus"

    @property
    def record_file(self) -> Path:
        """When, how and by which versions the run was begun: one JSON object."""
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        """There while a command works on the run, or after it was killed."""
        return self.path / LOCK_FILE

    @property
    def is_taken(self) -> bool:
        """True when a run has already written here, or nobody may see whether it has."""
        try:
            return not {MODEL_FILE, RESUME_FILE, METRICS_FILE}.isdisjoint(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    @property
    def is_running(self) -> bool:
        """True while a command works on the run."""
        try:
            return is_locked(self.lock_file)
        except OSError:
            return False

    @property
    def is_finished(self) -> bool:
        """True when the run has reached its end, though its resume state is kept."""
        return self.resume_record().get("finished") is True

    @property
    def is_resumable(self) -> bool:
        """True when the run has all that it needs to be continued."""
        return all((self.path / name).is_file() for name in NEEDED_TO_RESUME)

    @property
    def resume_command(self) -> str:
        """What continues the run, to be pasted into a shell."""
        limit = " --time 10m" if self.is_finished else ""
        return f"charrnn train --resume --out {quoted(str(self.path))}{limit}"

    def resume_record(self) -> dict[str, Any]:
        """Return the JSON part of the resume state; empty when there is none that can be read."""
        try:
            with open_ordinary(self.resume) as file:
                return header_record(read_header(file), RESUME_KEY)
        except (OSError, ValueError):
            return {}

    @property
    def saved_step(self) -> int | None:
        """Step of the state that the run can be resumed from; None if there is none."""
        schedule = self.resume_record().get("schedule") if self.is_resumable else None
        step = schedule.get("step") if isinstance(schedule, dict) else None
        return step if isinstance(step, int) else None

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write what is known when the run begins: versions, date, command, name of the text.

        Raises:
            StorageError: the file cannot be written.
        """
        write_text_atomically(self.record_file, json.dumps(record, indent=1) + "\n")

    def read_record(self) -> dict[str, Any]:
        """Return what `write_record` wrote; empty when it is missing or damaged."""
        try:
            with open_ordinary(self.record_file) as file:
                record = json.loads(file.read(MAX_RECORD_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metrics file by these rows."""
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in rows)
        write_text_atomically(self.metrics, "".join(lines))

    def release(self) -> None:
        """Give the run up: its owner is done."""
        if self.lock is not None:
            self.lock.release()

    def discard(self) -> None:
        """Remove what the run has made before it could begin, and nothing else.

        Windows keeps a file that is mapped; the next command removes it as after a crash.
        """
        self.clear()
        self.release()
        if self.lock and any((self.corpus / name).exists() for name in CORPUS_FILES):
            self.lock_file.touch()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def clear(self) -> None:
        """Remove the record, the encoded text and temporary files."""
        remove_temporary_files(self.path)
        for path in (self.record_file, *(self.corpus / name for name in CORPUS_FILES)):
            with contextlib.suppress(OSError):  # whoever writes there next says why it cannot be
                path.unlink()
        remove_temporary_files(self.corpus)
        with contextlib.suppress(OSError):
            self.corpus.rmdir()

    def is_free(self, *, was_ours: bool) -> bool:
        """Say whether there is nothing here but the lock.

        Args:
            was_ours: do not count what a command has left that was killed before its run began.
        """
        if not was_ours:
            return set(self.path.iterdir()) == {self.lock_file}
        left = {self.lock_file, self.record_file, self.corpus}
        inside = self.corpus.iterdir() if self.corpus.is_dir() else ()
        return (
            not self.corpus.is_symlink()
            and all(p in left or is_temporary(p) for p in self.path.iterdir())
            and all(p.name in CORPUS_FILES or is_temporary(p) for p in inside)
            and _is_record(self.record_file, {"charrnn", "started"})
            and _is_record(self.corpus / CORPUS_FILES[0], {"config", "sha256", "encodings"})
        )


def _is_record(path: Path, keys: set[str]) -> bool:
    """Say whether a file is missing, or a JSON object of ours."""
    try:
        with open_ordinary(path) as file:
            record = json.loads(file.read(MAX_CORPUS_RECORD))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and keys <= record.keys()


def new_run(corpus_name: str, *, out: Path | None = None, name: str | None = None) -> RunDirectory:
    """Make and lock the directory of a new run; nothing that exists is ever written over.

    Without `out` or `name` the run is called after its corpus, with a number when needed.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: the directory asked for holds a run or other files.
        StorageError: the directory cannot be made.
    """
    if out is not None or name is not None:
        path = _named_path(out, name)
        if path.is_file():
            raise RunError(f"{path} is a file: choose another name or directory for the run")
        run = RunDirectory(path)
        if run.is_taken and not run.is_running:
            hint = f", or continue it with {run.resume_command}" if run.is_resumable else ""
            raise RunError(f"{path} already holds a run: choose another name or directory{hint}")
        return _claim_new(path)
    runs_under(DEFAULT_ROOT)  # or it can hold none, whatever they are called
    _sweep(DEFAULT_ROOT)
    stem = slug(corpus_name)
    number = 1
    while True:
        path = DEFAULT_ROOT / (stem if number == 1 else f"{stem}-{number}")
        if not RunDirectory(path).is_taken and (path.is_dir() or not os.path.lexists(path)):
            with contextlib.suppress(RunError):  # a running one, or a folder of other files
                taken = None if number == 1 else DEFAULT_ROOT / stem
                return replace(_claim_new(path), name_taken=taken)
        number += 1


def _claim_new(path: Path) -> RunDirectory:
    """Make the directory if needed, lock it, and see that nothing else is in it."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    run = RunDirectory(path, made=tuple(reversed(missing)))
    was_ours = run.lock_file.exists() and not run.is_running
    try:
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        run = _owned(run)
        if run.is_taken:  # it began while this command was looking
            raise RunError(f"{path} already holds a run: choose another name or directory")
        if not run.is_free(was_ours=was_ours):
            raise RunError(f"{path} is not empty: choose another name or directory")
    except BaseException:
        run.release()
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    run.clear()
    return run


def _sweep(root: Path) -> None:
    """Remove what killed commands have left in the runs under a folder."""
    for path in runs_under(root):
        run = RunDirectory(path)
        if not run.lock_file.exists() or run.is_running:
            continue
        with contextlib.suppress(RunError, StorageError, OSError):
            owned = _owned(run)
            remove_temporary_files(run.path)
            if not run.is_taken and run.is_free(was_ours=True):
                run.clear()
            owned.release()
            run.path.rmdir()  # if nothing is left


def _owned(run: RunDirectory) -> RunDirectory:
    """Return the run with its lock.

    Raises:
        RunError: another command works on it.
        StorageError: the lock cannot be made.
    """
    with storage_errors(run.path):
        try:
            return RunDirectory(run.path, RunLock(run.lock_file), run.made)
        except BlockingIOError:
            raise RunError(
                f"another charrnn command is working on {run.path}: wait for it, or choose "
                "another name or directory"
            ) from None


def unfinished_runs(*, out: Path | None = None, name: str | None = None) -> Iterator[RunDirectory]:
    """Yield the runs that may be meant by a resume: the one named, or all, the newest first.

    A finished run is meant only when it is named.

    Args:
        out: directory of the run.
        name: or its name under `runs/`.

    Raises:
        ConfigError: the name is none, or both a name and a directory are given.
        RunError: the run named does not exist, or has no resume state.
    """
    if out is None and name is None:
        found = (RunDirectory(path.parent) for path in _newest_first(DEFAULT_ROOT, RESUME_FILE))
        yield from (run for run in found if not run.is_finished)
        return
    run = RunDirectory(_named_path(out, name))
    if not run.resume.is_file():
        if run.model.is_file():
            raise RunError(
                f"the run {run.path} has a model and no state to resume from: to train it further, "
                f"begin a new run, charrnn train YOUR_TEXT.txt --init {quoted(str(run.path))}"
            )
        raise RunError(f"there is no run in {run.path}: nothing to resume")
    yield run


def finished_runs() -> Iterator[RunDirectory]:
    """Yield the finished runs under `runs/` that can be continued, the newest first."""
    for path in _newest_first(DEFAULT_ROOT, RESUME_FILE):
        run = RunDirectory(path.parent)
        if run.is_finished and run.is_resumable:
            yield run


def take_over(run: RunDirectory) -> RunDirectory:
    """Return a run that was stopped or killed, locked and cleared of temporary files.

    Raises:
        RunError: another command works on it.
        StorageError: the lock cannot be made.
    """
    owned = _owned(run)
    remove_temporary_files(run.path)
    return owned


def find_model(
    given: str | os.PathLike[str] | None,
    root: Path = DEFAULT_ROOT,
    *,
    suits: Callable[[Path], bool] | None = None,
) -> Path:
    """Return the model file that is meant.

    Args:
        given: a model file, a run directory, or `builtin` for the bundled model; a file of that
            name is reached as the text `./builtin` (as a Path: absolute, for `Path("./builtin")`
            is `Path("builtin")`). None means the newest model under `root`, or the bundled one as
            long as there is no other.
        root: folder of the runs.
        suits: says of a model file whether it can do what is wanted: the newest that does is
            meant, or the bundled one; if none does, the newest.

    Raises:
        ModelFileError: there is none, or it may not be looked at.
    """
    if given is not None and os.fspath(given) != BUILTIN:
        path = Path(given)
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                path = RunDirectory(path).model
                path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            hint = _model_hint(Path(given), root)
            raise ModelFileError(f"there is no model at {given}: {hint}") from error
        except OSError as error:
            raise ModelFileError(f"the model {given} cannot be read: {reason(error)}") from error
        return path
    models = _newest_first(root, MODEL_FILE) if given is None else []
    if models:
        bundled = [BUILTIN_MODEL] if BUILTIN_MODEL.is_file() else []
        return next(filter(suits, [*models, *bundled]) if suits else iter(models), models[0])
    if BUILTIN_MODEL.is_file():
        return BUILTIN_MODEL
    if given is None:
        raise ModelFileError("there is no model yet; train one first: charrnn train YOUR_TEXT.txt")
    raise ModelFileError(f"the bundled model is missing ({BUILTIN_MODEL}): install charrnn again")


def require_new_file(out: Path, *, force: bool) -> None:
    """See that a file for others may be written.

    Args:
        out: the file.
        force: it may exist.

    Raises:
        ConfigError: it is a folder, lies in the directory of a run, or exists.
    """
    require_possible(out, "out")
    if out.is_dir():
        raise ConfigError(f"names a folder, {out}: name a file in it", field="out")
    if RunDirectory(out.parent).is_taken:
        raise ConfigError(
            f"names {out}, in the directory of a run: name a file elsewhere", field="out"
        )
    if out.is_file() and not force:
        raise ConfigError(
            f"is a file that exists, {out}: name another one, or replace it (--force; in Python "
            "force=True)",
            field="out",
        )


def _model_hint(given: Path, root: Path) -> str:
    """Return what may be meant by a path that has no model."""
    if given.is_dir() and RunDirectory(given).is_running:
        return "the run saves one at its first evaluation"
    with contextlib.suppress(OSError, ValueError):
        folders = [given, given / DEFAULT_ROOT] if given.is_dir() else []
        for folder in folders:
            if any(folder.glob(f"*/{MODEL_FILE}")):
                named = "" if folder == DEFAULT_ROOT else f" {quoted(str(folder))}"
                return f"{folder} is a folder of runs, to be seen with charrnn list{named}"
        runs = [path.parent for path in _newest_first(root, MODEL_FILE)]
        near = difflib.get_close_matches(given.name, [run.name for run in runs], 1, 0.8)
        for run in runs:
            if run.name in near:
                return f"did you mean {run}?"
    return "check the path"


def _named_path(out: Path | None, name: str | None) -> Path:
    """Return the directory asked for, or that of a name under `runs/`."""
    if name is None:
        assert out is not None
        require_possible(out, "out")
        return out
    if out is not None:
        raise ConfigError("a name and a directory both say where the run is: give one")
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"must be a plain name without a path, got {name!r}", field="name")
    require_possible(DEFAULT_ROOT / name, "name")
    return DEFAULT_ROOT / name


def slug(name: str) -> str:
    """Make a corpus name safe as the name of a file or directory."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    if safe.split(".")[0].upper() in RESERVED:
        safe = f"run-{safe}"
    return safe.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "run"


def runs_under(root: Path) -> list[Path]:
    """Return what is in a folder of runs; nothing if there is no such folder.

    Raises:
        StorageError: it may not be looked into.
    """
    try:
        os.stat(root / ".")  # what is in it may be looked at
        return [root / name for name in os.listdir(root)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"the folder {root} cannot be used: {reason(error)}") from error


def _newest_first(root: Path, name: str) -> list[Path]:
    """Return the files of a name in the runs under a folder, the one written last first."""
    found: list[tuple[int, Path]] = []
    for run in runs_under(root):
        with contextlib.suppress(OSError):
            path = run / name
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]
