"""The files of a run: the best and the last model, the metrics, and the resume state.

The resume state is everything a stopped run needs to continue exactly as if it had not stopped. It
is one safetensors file: the network's weights, the optimisers' moments, the carried state of the
batch rows and the random generators as arrays; counters, settings and the position in the text as
JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
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

from charrnn import events
from charrnn.config import ModelConfig, TrainingConfig, Unit
from charrnn.corpus.corpus import Corpus
from charrnn.errors import ConfigError, RunError
from charrnn.models.network import NetworkState
from charrnn.storage.atomic import atomic_writer
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.reading import header_record, open_ordinary, read_header, reason
from charrnn.storage.runs import RESUME_KEY, RunDirectory
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
stands the `unit` of its losses and counts."""
TIMINGS = ("elapsed_s", "chars_per_s")
"""Those that differ from one run to the next, and are not in a model file."""
OPTIONAL = ("train_loss_nats", "val_loss_nats", "bits_per_char")
OPTIMIZER_ARRAYS = {Muon: ("momentum", "update"), AdamW: ("step", "exp_avg", "exp_avg_sq")}
MOST_ROWS = 100_000
"""Of the metrics: more evaluations than any run makes."""


def versions() -> dict[str, str]:
    """Return the versions of what trains, for records."""
    return {name: version(name) for name in ("charrnn", "torch")}


def metrics_row(evaluated: events.Evaluated, unit: Unit) -> dict[str, Any]:
    """Return the row of metrics.jsonl of an evaluation."""
    return {
        "unit": unit,
        **{name: getattr(evaluated, source) for name, source in METRICS.items()},
    }


def checked_metrics(rows: Any, unit: Unit) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl from a resume state.

    Raises:
        LookupError, TypeError, ValueError: they are none.
    """
    for row in listed(rows, most=MOST_ROWS):
        if set(row) != {"unit", *METRICS} or row["unit"] != unit:
            raise ValueError("a row of its metrics has other fields")
        whole(row["step"])
        for name in METRICS:
            if row[name] is not None or name not in OPTIONAL:
                real(row[name])
    return list(rows)


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
            if name.startswith("output."):
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
            os.replace(self._run.set_aside, self._run.model)

    def save_state(
        self, learner: Learner, record: Mapping[str, Any], metrics: list[dict[str, Any]]
    ) -> None:
        """Write the metrics and the resume state.

        Args:
            learner: whose arrays and record are saved.
            record: JSON values to save beside them.
            metrics: the rows of metrics.jsonl.

        Raises:
            StorageError: a file cannot be written.
        """
        record = {
            "model": self._model.to_dict(),
            "training": self._training.to_dict(),
            **record,
            **learner.to_record(),
        }
        with atomic_writer(self._run.resume) as file:
            metadata = {RESUME_KEY: json.dumps(record)}
            file.write(safetensors.torch.save(_arrays(learner), metadata))
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

    def add_verdict(self, verdict: events.Verdict) -> None:
        """Write into the models what the whole run has shown.

        Raises:
            ModelFileError: a model has been damaged since it was saved.
            StorageError: a file cannot be written.
        """
        for path in (self._run.model, self._run.last):
            if path.exists():
                saved = load_model(path)
                training = {**saved.training, "verdict": dataclasses.asdict(verdict)}
                save_model(path, dataclasses.replace(saved, training=training))


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
    """Return all arrays of a learner by the names they have in the file."""
    arrays: dict[str, Tensor] = {}
    for name, parameter in learner.network.named_parameters():
        arrays[f"weights/{name}"] = parameter.detach()
        for optimizer in learner.optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                arrays[f"optimizer/{name}/{key}"] = value
    for path, part in _parts(learner.state):
        arrays[path] = part.detach()
    for k, generator in enumerate(learner.generators):
        arrays[f"rng/{k}"] = generator.get_state()
    return {name: array.cpu().contiguous().clone() for name, array in arrays.items()}


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
    for name, part in _parts(zero):
        rows = min(len(arrays[name]), len(part))  # of documents, some may have ended
        _require(name, arrays[name], (rows, *part.shape[1:]), torch.float32, torch.bfloat16)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(arrays[f"weights/{name}"])
    for optimizer in learner.optimizers:
        optimizer.state.clear()
    for weight, key, array in moments:
        # fused AdamW wants its step counter on the device, too
        owners[weight].state[weight][key] = array.to(learner.device)
    for k, generator in enumerate(learner.generators):
        generator.set_state(arrays[f"rng/{k}"])
    learner.state = [
        [
            tuple(arrays[f"state/{m}/{k}/{j}"].to(learner.device) for j in range(len(parts)))
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
