"""The files of a run: the best and the last model, the metrics, and the resume state.

The resume state is everything a stopped run needs to continue exactly as if it had not stopped. It
is one safetensors file: the network's weights, the optimisers' moments, the carried state of the
batch rows and the random generators as arrays; counters, settings and the position in the text as
JSON. Several processes that train together have one such file, with the rows and the members of
all, so that any number of processes can continue.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import AdamW

from charrnn import __version__, events
from charrnn.config import ModelConfig, TrainingConfig, Unit
from charrnn.corpus.corpus import Corpus
from charrnn.engine.network import Engine
from charrnn.engine.quantized import INT8_COST, is_worthwhile
from charrnn.errors import ConfigError, RunError
from charrnn.models.network import NetworkState
from charrnn.scoring.compare import added_bits
from charrnn.storage.atomic import atomic_writer, replace
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.reading import header_record, open_ordinary, read_header, reason
from charrnn.storage.runs import RESUME_KEY, RunDirectory
from charrnn.training.distributed import merged
from charrnn.training.learner import Learner
from charrnn.training.optimizers import Muon
from charrnn.training.records import listed, real, whole

METRICS = {
    "step": "step",
    "progress": "progress",
    "epoch": "epoch",
    "elapsed_s": "elapsed_s",
    "train_loss_nats": "train_loss",
    "val_loss_nats": "val_loss",
    "bits_per_char": "bits_per_char",
    "unknown_share": "unknown_share",
    "temperature": "temperature",
    "learning_rate": "learning_rate",
    "chars_per_s": "chars_per_s",
}
"""The fields of a row of metrics.jsonl, and those of the event that they come from; beside them
stand the `unit` of its losses and counts and the number of `processes`."""
TIMINGS = ("elapsed_s", "chars_per_s")
"""Those that differ from one run to the next, and are not in a model file."""
OPTIONAL = ("train_loss_nats", "val_loss_nats", "bits_per_char")
COST_WORK = 2e10
"""Weights times characters on which the cost of int8 is measured: about a second."""
COST_CHARS = 2_048, 8_192
"""Fewest and most such characters."""
COST_PIECE = 128
"""Characters of a piece of one long text; the pieces are read side by side."""
COST_DIGITS = 6
TWISTER = 624
"""Numbers in the table of a Mersenne Twister."""
OPTIMIZER_ARRAYS = {Muon: ("momentum", "update"), AdamW: ("step", "exp_avg", "exp_avg_sq")}
MOST_ROWS = 100_000
"""Of the metrics: more evaluations than any run makes."""


def versions() -> dict[str, str]:
    """Return the versions of what trains, for records."""
    return {"charrnn": __version__, "torch": version("torch")}


def metrics_row(evaluated: events.Evaluated, unit: Unit, processes: int = 1) -> dict[str, Any]:
    """Return the row of metrics.jsonl of an evaluation."""
    return {
        "unit": unit,
        "processes": processes,
        **{name: getattr(evaluated, source) for name, source in METRICS.items()},
    }


def checked_metrics(rows: Any, unit: Unit) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl from a resume state.

    Raises:
        LookupError, TypeError, ValueError: they are none.
    """
    checked = [{"processes": 1, **row} for row in listed(rows, most=MOST_ROWS)]
    for row in checked:
        if set(row) != {"unit", "processes", *METRICS} or row["unit"] != unit:
            raise ValueError("a row of its metrics has other fields")
        whole(row["processes"], low=1)
        whole(row["step"])
        for name in METRICS:
            if row[name] is not None or name not in OPTIONAL:
                real(row[name])
    return checked


class RunFiles:
    """Writes the files of one run, and goes back to them.

    Args:
        run: where they are.
        corpus: what is learned.
        model: shape of the network.
        training: how it is trained.
    """

    def __init__(
        self, run: RunDirectory, corpus: Corpus, model: ModelConfig, training: TrainingConfig
    ) -> None:
        """Write nothing yet."""
        self._run = run
        self._corpus = corpus
        self._model = model
        self._training = training

    def model_of(
        self, learner: Learner, evaluated: events.Evaluated, curve: list[dict[str, Any]]
    ) -> SavedModel:
        """Return the network as it is now, calibrated, with the record of its training.

        Args:
            learner: has the network.
            evaluated: what has been measured of it.
            curve: the rows of metrics.jsonl.
        """
        corpus = self._corpus
        weights = learner.network.export_weights()
        for name in weights:
            if "output." in name:
                weights[name] = weights[name] / np.float32(evaluated.temperature)
        return SavedModel(
            config=self._model,
            vocabulary=corpus.vocabulary,
            text=corpus.config.text,
            weights=weights,
            training={
                "corpus": {
                    "name": corpus.name,
                    "sha256": corpus.sha256,
                    "n_chars": corpus.n_chars,
                    "n_train": corpus.n_train,
                    "encodings": list(corpus.encodings),
                    "newlines": list(corpus.newlines),
                },
                **versions(),
                "config": self._training.to_dict(),
                "dtype": learner.dtype,
                "device": learner.device.type,
                "unit": corpus.vocabulary.unit,
                "step": evaluated.step,
                "progress": evaluated.progress,
                "epochs": evaluated.epoch,
                "val_loss_nats": evaluated.val_loss,
                "train_loss_nats": evaluated.train_loss,
                "bits_per_char": evaluated.bits_per_char,
                "unknown_share": evaluated.unknown_share,
                "temperature": evaluated.temperature,
                "curve": [
                    {name: value for name, value in row.items() if name not in TIMINGS}
                    for row in curve
                ],
            },
        )

    def save_best(self, saved: SavedModel) -> None:
        """Keep the best model so far; one kept as the last at an earlier stop no longer is.

        Raises:
            StorageError: the file cannot be written.
        """
        save_model(self._run.model, saved)
        self._run.last.unlink(missing_ok=True)

    def save_last(self, saved: SavedModel) -> None:
        """Keep the model at the end of the run beside the best one.

        Raises:
            StorageError: the file cannot be written.
        """
        save_model(self._run.last, saved)

    def save_best_at_stop(self, saved: SavedModel) -> None:
        """Keep the best model so far, but only until the run is resumed.

        Raises:
            StorageError: a file cannot be written.
        """
        if self._run.model.exists():
            with atomic_writer(self._run.set_aside) as file:
                file.write(self._run.model.read_bytes())
        self.save_best(saved)

    def undo_stop(self) -> None:
        """Put the best model of the evaluations back in its place."""
        if self._run.set_aside.exists():
            replace(self._run.set_aside, self._run.model)

    def save_state(
        self, learner: Learner, record: Mapping[str, Any], metrics: list[dict[str, Any]]
    ) -> None:
        """Write the metrics and the resume state: process 0 does, what all have.

        Args:
            learner: whose arrays and record are saved.
            record: JSON values to save beside them.
            metrics: the rows of metrics.jsonl.

        Raises:
            StorageError: a file cannot be written.
        """
        arrays = merged(learner.group.gather(_arrays(learner)))
        known = learner.to_record()
        if not learner.group.leads:
            return
        record = {
            "model": self._model.to_dict(),
            "training": self._training.to_dict(),
            **record,
            **known,
        }
        with atomic_writer(self._run.resume) as file:
            metadata = {RESUME_KEY: json.dumps(record)}
            file.write(safetensors.torch.save(_with_all_rows(learner, arrays), metadata))
        if metrics:
            self._run.write_metrics(metrics)

    def restore(self, learner: Learner, record: Mapping[str, Any]) -> None:
        """Put a learner back to the resume state.

        Args:
            learner: of the same run.
            record: what `read_record` says of the resume state.

        Raises:
            RunError: the state does not fit.
        """
        try:
            step = whole(record["schedule"]["step"])
            if any(steps != step for steps in record["muon_steps"]):
                raise ValueError("its optimisers have taken another number of steps")
            with open_ordinary(self._run.resume) as file:
                read = safetensors.torch.load(file.read())
            # copies lie where torch aligns them: products of others differ in their last bits
            arrays = {name: array.clone() for name, array in read.items()}
            _load_arrays(learner, arrays, has_moments=step > 0)
            learner.load_record(record)
            _load_state(learner, arrays)
        except (
            SafetensorError,
            OSError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
            OverflowError,
            RuntimeError,
        ) as error:
            raise unfit(self._run.resume, error) from error

    def complete(self, verdict: events.Verdict) -> None:
        """Write into the models what the whole run has shown, and what int8 costs each.

        Raises:
            ModelFileError: a model has been damaged since it was saved.
            StorageError: a file cannot be written.
        """
        for path in (self._run.model, self._run.last):
            if path.exists():
                saved = load_model(path)
                training = {**saved.training, "verdict": dataclasses.asdict(verdict)}
                cost = self._int8_cost(saved)
                if cost is not None:
                    training[INT8_COST] = cost
                save_model(path, dataclasses.replace(saved, training=training))

    def _int8_cost(self, saved: SavedModel) -> float | None:
        """Return the bits per character or byte that int8 adds on the validation text; None where
        there is no such text, or nothing to gain by it."""
        n_chars = cost_chars(saved.config)
        if not self._corpus.n_val or not n_chars:
            return None
        texts = self._corpus.validation_texts(n_chars, COST_PIECE)
        engine = Engine(saved.config, saved.weights, precision="int8")
        return round(added_bits(saved, engine, texts), COST_DIGITS)


def cost_chars(config: ModelConfig) -> int:
    """Return on how many characters the cost of int8 is measured; 0 where it is not."""
    if not is_worthwhile(config):
        return 0
    few, many = COST_CHARS
    return max(few, min(int(COST_WORK / config.num_parameters()), many))


def read_record(path: Path) -> dict[str, Any]:
    """Return the JSON part of a resume state.

    Raises:
        RunError: there is no resume state, or it cannot be read.
    """
    if not path.is_file():
        raise RunError(f"there is no resume state {path}: nothing to resume")
    try:
        with open_ordinary(path) as file:
            return header_record(read_header(file), RESUME_KEY, parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise RunError(
            f"the resume state {path} cannot be read ({reason(error)}): start a new run"
        ) from error


def _refuse(constant: str) -> None:
    """Refuse what Python reads as a number and JSON does not."""
    raise ValueError(f"{constant} is no number")


def settings_of(
    path: Path, record: Mapping[str, Any], corpus: Corpus
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the settings of a run from its resume state.

    Nothing is built yet: a network as large as the settings say must be in the file.

    Raises:
        RunError: they do not fit the file or the corpus.
    """
    try:
        model = ModelConfig.from_dict(record.get("model"))
        training = TrainingConfig.from_dict(record.get("training"))
        if model.vocab_size != len(corpus.vocabulary):
            raise ValueError("its alphabet is another one")
        if model.num_parameters() > path.stat().st_size:
            raise ValueError("its weights are not all there")
    except (ConfigError, OSError, ValueError) as error:
        raise unfit(path, error) from error
    return model, training


def unfit(path: Path, error: Exception) -> RunError:
    """Return the error of a resume state that another charrnn wrote, or that is damaged."""
    return RunError(
        f"the resume state {path} does not fit this run ({reason(error)}): start a new one"
    )


def _arrays(learner: Learner) -> dict[str, Tensor]:
    """Return what only this process has, and from process 0 what all have, by names in the file.

    The carried state is that of the rows of a process: its number is in the name.
    """
    rank = learner.group.rank
    arrays: dict[str, Tensor] = {}
    for k in learner.own:
        for name, parameter in learner.network.members[k].named_parameters(f"members.{k}"):
            if rank and not learner.by_members:
                break
            arrays[f"weights/{name}"] = parameter.detach()
            for optimizer in learner.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    arrays[f"optimizer/{name}/{key}"] = value
        if learner.generators:
            of_rank = f"/{rank}" if rank and not learner.by_members else ""
            arrays[f"rng/{k}{of_rank}"] = learner.generators[k].get_state()
    reader = learner.windows.share.rank
    for path, part in _parts(learner.state):
        if int(path.split("/")[1]) in learner.own:
            arrays[f"{path}/{reader}"] = part.detach()
    return {name: array.cpu().contiguous().clone() for name, array in arrays.items()}


def _with_all_rows(learner: Learner, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of all processes with their rows of the carried state put together."""
    readers_A = torch.from_numpy(learner.windows.readers_A)
    for path, part in _parts(learner.state):
        parts = [arrays.pop(f"{path}/{r}") for r in range(learner.windows.share.size)]
        whole = part.new_empty(len(readers_A), part.shape[1], dtype=parts[0].dtype, device="cpu")
        for reader, rows in enumerate(parts):
            whole[readers_A == reader] = rows
        arrays[path] = whole
    return arrays


def _parts(state: NetworkState) -> list[tuple[str, Tensor]]:
    """Return the tensors of a state, and where each is: member, layer, part."""
    return [
        (f"state/{m}/{k}/{j}", part)
        for m, layers in enumerate(state)
        for k, parts in enumerate(layers)
        for j, part in enumerate(parts)
    ]


def _load_arrays(learner: Learner, arrays: Mapping[str, Tensor], *, has_moments: bool) -> None:
    """Put weights, optimisers, carried state and random generators back.

    Kernels trust the shapes and types of an optimiser's arrays, so all are checked first. Before
    the first step there are none.

    Raises:
        LookupError, ValueError, RuntimeError: an array is missing or does not fit.
    """
    parameters = dict(learner.network.named_parameters())
    owners = {p: o for o in learner.optimizers for g in o.param_groups for p in g["params"]}
    zero = learner.network.initial_state(learner.windows.batch_size)
    moments: list[tuple[Tensor, str, Tensor]] = []
    if has_moments:
        for name, parameter in parameters.items():
            for key in OPTIMIZER_ARRAYS[type(owners[parameter])]:
                array = arrays[f"optimizer/{name}/{key}"]
                shape = () if key == "step" else parameter.shape
                _require(f"optimizer/{name}", array, shape, torch.float32)
                moments.append((parameter, key, array))
    for name, parameter in parameters.items():
        _require(f"weights/{name}", arrays[f"weights/{name}"], parameter.shape, torch.float32)
    rows = min(len(arrays["state/0/0/0"]), learner.windows.batch_size)  # some may have ended
    for name, part in _parts(zero):
        _require(name, arrays[name], (rows, *part.shape[1:]), torch.float32, torch.bfloat16)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(arrays[f"weights/{name}"])
    for optimizer in learner.optimizers:
        optimizer.state.clear()
    for weight, key, array in moments:
        # fused AdamW wants its step counter on the device, too
        owners[weight].state[weight][key] = array.to(learner.device)
    own = [f"rng/{k}/{learner.group.rank}" for k in range(len(learner.generators))]
    is_saved = not learner.by_members and all(name in arrays for name in own)
    for k, generator in enumerate(learner.generators):
        state = arrays[own[k] if is_saved else f"rng/{k}"]
        if generator.device.type == "cpu":
            _require_sound(state)
        generator.set_state(state)
    if not is_saved:
        learner.separate_generators()


def _require_sound(state: Tensor) -> None:
    """Check the state of a CPU generator, of which torch itself trusts a part.

    It is a Mersenne Twister's: the numbers left in its table, at byte 8, and the place of the next
    one, at byte 16. Together they make the size of the table and one, or one before the first draw.

    Raises:
        ValueError: the next number would be read beyond the table.
    """
    raw = state.numpy().tobytes()
    left, place = int.from_bytes(raw[8:12], "little"), int.from_bytes(raw[16:24], "little")
    if left + place not in (1, TWISTER + 1):
        raise ValueError("the state of a random generator is none")


def _load_state(learner: Learner, arrays: Mapping[str, Tensor]) -> None:
    """Put the carried state of this process's rows back, whichever process had them."""
    windows = learner.windows
    zero = learner.network.initial_state(windows.batch_size)
    n_rows = len(arrays["state/0/0/0"])
    if len(windows.readers_A) != n_rows:  # documents that are over: their state waits for nothing
        windows.readers_A = windows.share.readers(n_rows)
    own_A = torch.from_numpy(windows.readers_A == windows.share.rank)
    learner.state = [
        [
            tuple(arrays[f"state/{m}/{k}/{j}"][own_A].to(learner.device) for j in range(len(parts)))
            for k, parts in enumerate(layers)
        ]
        for m, layers in enumerate(zero)
    ]


def _require(name: str, array: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Check an array of the resume state.

    Raises:
        ValueError: it has another shape or type.
    """
    if tuple(array.shape) != tuple(shape) or array.dtype not in dtypes:
        raise ValueError(f"{name} has another shape or type")
