"""The files of a run: the best and the last model, the metrics and the resume state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from charrnn import events
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus.corpus import Corpus
from charrnn.errors import RunError
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.runs import RunDirectory
from charrnn.training.checkpoint import load_checkpoint, save_checkpoint
from charrnn.training.learner import Learner
from charrnn.training.progress import Progress


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
        self, learner: Learner, progress: Progress, evaluated: events.Evaluated
    ) -> SavedModel:
        """Return the network as it is now, its logits scaled, with the record of its training."""
        corpus, scale = self._corpus, evaluated.logit_scale
        weights = learner.network.export_weights()
        for name in weights:
            if name.startswith("output."):
                weights[name] = weights[name] * np.float32(scale)
        return SavedModel(
            config=learner.network.config,
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
                "config": self._training.to_dict(),
                "dtype": learner.dtype,
                "device": learner.device.type,
                "step": progress.step,
                "total_steps": progress.total_steps,
                "epochs": evaluated.epoch,
                "elapsed_s": evaluated.elapsed_s,
                "val_loss_nats": evaluated.val_loss,
                "logit_scale": scale,
                "train_loss_nats": evaluated.train_loss,
                "curve": progress.metrics,
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

    def save_state(self, learner: Learner, progress: Progress, elapsed_s: float) -> None:
        """Write the metrics and the resume state.

        Raises:
            StorageError: a file cannot be written.
        """
        record = {
            "model": self._model.to_dict(),
            "training": self._training.to_dict(),
            "corpus_sha256": self._corpus.sha256,
            "n_train": self._corpus.n_train,
            "elapsed_s": elapsed_s,
            **progress.to_record(),
            **learner.to_record(),
        }
        save_checkpoint(
            self._run.resume,
            learner.network,
            learner.optimizers,
            learner.generators,
            learner.state,
            record,
        )
        if progress.metrics:
            self._run.write_metrics(progress.metrics)

    def restore(self, learner: Learner, record: Mapping[str, Any]) -> Progress:
        """Put a learner back to the resume state, and return the progress at that time.

        Args:
            learner: of the same run.
            record: what `read_record` says of the resume state.

        Raises:
            RunError: the state does not fit.
        """
        learner.state = load_checkpoint(
            self._run.resume,
            learner.network,
            learner.optimizers,
            learner.generators,
            learner.device,
        )
        try:
            learner.load_record(record)
            return Progress.from_record(record, patience=self._training.patience)
        except (KeyError, TypeError) as error:
            raise RunError(
                f"the resume state {self._run.resume} is of another charrnn ({error})"
            ) from error

    def add_verdict(self, verdict: str) -> None:
        """Write into the models what the whole run has shown.

        Raises:
            ModelFileError: a model has been damaged since it was saved.
            StorageError: a file cannot be written.
        """
        for path in (self._run.model, self._run.last):
            if path.exists():
                saved = load_model(path)
                training = {**saved.training, "verdict": verdict}
                save_model(path, dataclasses.replace(saved, training=training))

    def close(self) -> None:
        """Take away the resume state of a finished run."""
        self._run.resume.unlink(missing_ok=True)


def metrics_row(evaluated: events.Evaluated) -> dict[str, Any]:
    """Return the row of metrics.jsonl of an evaluation."""
    return {
        "step": evaluated.step,
        "epoch": evaluated.epoch,
        "elapsed_s": evaluated.elapsed_s,
        "train_loss_nats": evaluated.train_loss,
        "val_loss_nats": evaluated.val_loss,
        "logit_scale": evaluated.logit_scale,
        "learning_rate": evaluated.learning_rate,
        "chars_per_s": evaluated.chars_per_s,
    }
