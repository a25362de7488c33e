"""The training loop: steps until the end of the schedule, with evaluations in between.

`Trainer.run()` yields typed events and writes the files; what the user sees is the display's job.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from charrnn import events
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.corpus.corpus import Corpus
from charrnn.engine.network import Engine
from charrnn.errors import DivergenceError
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, read_prompt
from charrnn.storage.model_file import SavedModel
from charrnn.storage.runs import RunDirectory
from charrnn.training.checkpoint import RunFiles, metrics_row, read_record, unfit
from charrnn.training.divergence import CHECK_EVERY, Caution, has_diverged
from charrnn.training.learner import Learner
from charrnn.training.loss import Meter
from charrnn.training.schedule import (
    TRAIN_LOSS_CHARS,
    Clock,
    Schedule,
    learning_rate_factor,
)
from charrnn.training.verdict import verdict

REPORT_EVERY_S = 0.2
CALIBRATION_CHARS = 2_000
"""Characters of validation text below which no temperature is fitted."""
PREVIEW_CHARS, PREVIEW_TEMPERATURE = 160, 0.8


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    loss: float
    temperature: float
    step: int


class Trainer:
    """One training run.

    Args:
        corpus: encoded text.
        model: shape of the network.
        training: how to train; at least one limit must be set.
        run: where the files go.
        initial: a trained model to begin from; see `transfer_weights`.
        resume: the record of a resume state (`read_record`), to continue from there.
        started: `time.monotonic()` at the start of the command, from which a time limit counts.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: ModelConfig,
        training: TrainingConfig,
        run: RunDirectory,
        *,
        initial: SavedModel | None = None,
        resume: Mapping[str, Any] | None = None,
        started: float | None = None,
    ) -> None:
        """Build the network and its windows; nothing is trained or written yet."""
        self.corpus = corpus
        self.model = model
        self.training = training
        self.run_directory = run
        self.stop_requested = False
        """Set this to end the run after the current step, with everything saved."""
        self._resume = resume
        self._started = time.monotonic() if started is None else started
        self._elapsed_before = 0.0
        self._learner = Learner(corpus, model, training, initial)
        self._files = RunFiles(run, corpus, model, training)
        self._schedule = Schedule(training, n_train=corpus.n_train, n_val=corpus.n_val)
        self._clock = Clock()
        self._recent = Meter(self._learner.device)
        """Training loss since the last look for a divergence."""
        self._caution = Caution()
        self._best: Best | None = None
        self._metrics: list[dict[str, Any]] = []
        """The rows of metrics.jsonl."""
        self._at_stop: events.Evaluated | None = None

    def run(self) -> Iterator[events.Event]:
        """Train to the end, yielding what happens.

        Raises:
            StorageError: the model or the run's files cannot be written.
            RunError: the resume state does not fit.
            DivergenceError: the loss explodes however low the learning rate.
        """
        try:
            yield from self._run()
        finally:
            self.run_directory.release()

    def _run(self) -> Iterator[events.Event]:
        if self._resume is not None:
            self._restore(self._resume)
            self._elapsed_before = float(self._resume["elapsed_s"])
            self._files.undo_stop()
        else:
            self._learner.settle_dtype()
            self._schedule.preparation_s = self._elapsed_s
            self._save_state()  # something to roll back to
        yield self._started_event()
        yield from self._loop()
        if not self._schedule.is_complete:
            yield events.Stopping()
            yield from self._stop()
        yield self._finish()

    @property
    def _elapsed_s(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _loop(self) -> Iterator[events.Event]:
        """Take steps until the schedule or the user ends them."""
        learner, schedule, clock = self._learner, self._schedule, self._clock
        learner.network.train()
        shown = Meter(learner.device)
        begin_s, begin = time.monotonic(), schedule.progress
        while not (schedule.is_complete or self.stop_requested):
            factor = learning_rate_factor(schedule.step, schedule.progress)
            loss, n_chars = learner.take_step(factor * self._caution.rate_scale)
            shown.add(loss, n_chars)
            self._recent.add(loss, n_chars)
            clock.step(n_chars)
            schedule.advance(learner.windows.epoch, self._elapsed_s, clock)
            if schedule.step % CHECK_EVERY == 0:
                self.corpus.release_memory()
                if has_diverged(self._recent.take(), schedule.step, self.model.vocab_size):
                    yield self._roll_back()
                    continue
            is_due = schedule.evaluation_is_due(learner.windows.served)
            if clock.is_time_to_show(REPORT_EVERY_S) or is_due:
                done, seconds = schedule.progress - begin, time.monotonic() - begin_s
                yield events.Progressed(
                    progress=schedule.progress,
                    step=schedule.step,
                    train_loss=shown.take(),
                    learning_rate=learner.learning_rate,
                    chars_per_s=clock.chars_per_s,
                    eta_s=(1 - schedule.progress) * seconds / done if done > 0 else None,
                )
            if is_due:
                with clock.pause():
                    yield from self._evaluate()

    def _evaluate(self) -> Iterator[events.Event]:
        """Measure on the validation text, save, and show a sample."""
        evaluated = self._measured()
        judged = _judged(evaluated)
        if not math.isfinite(judged):
            yield self._roll_back()
            return
        self._learner.meter.take()
        if self._best is None or judged < self._best.loss:
            evaluated = dataclasses.replace(evaluated, is_best=True)
            self._best = Best(judged, evaluated.temperature, evaluated.step)
        self._metrics.append(metrics_row(evaluated))
        saved = self._files.model_of(self._learner, evaluated, self._metrics)
        if evaluated.is_best:
            self._files.save_best(saved)
        elif self._schedule.is_complete:
            self._files.save_last(saved)
        losses = [row["val_loss_nats"] for row in self._metrics if self.corpus.n_val]
        is_shortened = self._schedule.shorten_if_rising(losses)
        self._save_state()
        yield evaluated
        every = self.training.sample_every
        if every and len(self._metrics) % every == 0:
            yield events.Sampled(text=preview(saved, seed=self._schedule.step))
        if is_shortened:
            yield events.LossRises(step=self._schedule.step)

    def _stop(self) -> Iterator[events.Event]:
        """Save a run that the user stops, and keep its network if it is the best so far.

        The measurement is no evaluation: all that a resumed run depends on stays as it was.
        """
        self._save_state()
        if self._metrics and self._metrics[-1]["step"] == self._schedule.step:
            return  # just evaluated
        evaluated = self._measured()
        judged = _judged(evaluated)
        if math.isfinite(judged) or self._schedule.step == 0:
            is_best = self._best is None or judged < self._best.loss
            self._at_stop = evaluated = dataclasses.replace(evaluated, is_best=is_best)
            saved = self._files.model_of(self._learner, evaluated, self._metrics)
            (self._files.save_best_at_stop if is_best else self._files.save_last)(saved)
        yield evaluated

    def _measured(self) -> events.Evaluated:
        """Measure the network as it is now; nothing changes."""
        learner, schedule, n_val = self._learner, self._schedule, self.corpus.n_val
        val_loss, temperature = None, 1.0
        if n_val:
            is_fitted = self.training.calibrate and n_val >= CALIBRATION_CHARS
            with self._clock.reading(n_val):
                measured = learner.measure(validation=True, temperature=None if is_fitted else 1.0)
            val_loss, temperature = measured.loss, measured.temperature
        return events.Evaluated(
            progress=schedule.progress,
            step=schedule.step,
            epoch=learner.windows.epoch,
            elapsed_s=self._elapsed_s,
            train_loss=learner.meter.mean(),
            val_loss=val_loss,
            temperature=temperature,
            learning_rate=learner.learning_rate,
            chars_per_s=self._clock.chars_per_s,
            is_best=False,
        )

    def _roll_back(self) -> events.RolledBack:
        """Go back to the last state saved, with a lower learning rate.

        Raises:
            DivergenceError: it has happened too often.
        """
        exploded_at = self._schedule.step
        caution = self._caution.after_explosion(self.run_directory.model)
        self._restore(read_record(self.run_directory.resume))
        self._caution = caution
        self._learner.network.train()
        return events.RolledBack(
            exploded_at=exploded_at, step=self._schedule.step, rate_scale=caution.rate_scale
        )

    def _finish(self) -> events.Finished:
        """Compare with the training text, and close the run unless it was interrupted.

        Raises:
            DivergenceError: the run was stopped before there was a sound model.
        """
        if not self.run_directory.model.exists():
            raise DivergenceError(
                "the run was stopped after its loss had exploded, before there was a model to "
                "save: try a lower --lr"
            )
        schedule, windows = self._schedule, self._learner.windows
        best, temperature = self._best, 1.0
        if self._metrics:
            temperature = self._metrics[-1]["temperature"]
        if self._at_stop is not None:
            temperature = self._at_stop.temperature
            if self._at_stop.is_best:
                best = Best(_judged(self._at_stop), temperature, self._at_stop.step)
        assert best is not None
        train_loss = self._learner.measure(
            validation=False, temperature=temperature, limit=TRAIN_LOSS_CHARS
        ).loss
        judgement = verdict(self._metrics, train_loss, is_complete=schedule.is_complete)
        self._files.add_verdict(judgement)
        if schedule.is_complete:
            self._files.close()
        return events.Finished(
            reason=schedule.reason if schedule.is_complete else "interrupted",
            model_path=self.run_directory.model,
            run=self.run_directory.path,
            step=schedule.step,
            epochs=windows.epoch,
            elapsed_s=self._elapsed_s,
            best_step=best.step,
            val_loss=best.loss if self.corpus.n_val else None,
            temperature=best.temperature,
            train_loss=train_loss,
            verdict=judgement,
            padding_share=1 - windows.served / max(1, windows.computed),
        )

    def _save_state(self) -> None:
        record = {
            "elapsed_s": self._elapsed_s,
            "schedule": self._schedule.state(),
            "recent": self._recent.state(),
            "caution": dataclasses.asdict(self._caution),
            "best": None if self._best is None else dataclasses.asdict(self._best),
            "metrics": self._metrics,
        }
        self._files.save_state(self._learner, record, self._metrics)

    def _restore(self, record: Mapping[str, Any]) -> None:
        """Go back to a state that `_save_state` saved.

        Raises:
            RunError: it does not fit.
        """
        self._files.restore(self._learner, record)
        try:
            self._schedule.load(record["schedule"])
            self._recent.load(record["recent"])
            self._caution = Caution(**record["caution"])
            self._best = None if record["best"] is None else Best(**record["best"])
            self._metrics = list(record["metrics"])
        except (LookupError, TypeError, ValueError) as error:
            raise unfit(self.run_directory.resume, error) from error

    def _started_event(self) -> events.Started:
        corpus, windows = self.corpus, self._learner.windows
        return events.Started(
            model=self.model,
            training=self.training,
            n_train=corpus.n_train,
            n_val=corpus.n_val,
            batch_size=windows.batch_size,
            bptt=windows.bptt,
            device=str(self._learner.device),
            dtype=self._learner.dtype,
            run=self.run_directory.path,
            resumed_at=self._schedule.step,
            late_s=self._schedule.late_s if self._resume is None else 0.0,
            encodings=corpus.encodings,
            newlines=corpus.newlines,
            n_duplicates=corpus.n_duplicates or 0,
            looks_like_list=corpus.looks_like_list,
        )


def _judged(evaluated: events.Evaluated) -> float:
    """Return the loss that decides which model is kept: infinite before the first step."""
    loss = evaluated.train_loss if evaluated.val_loss is None else evaluated.val_loss
    return math.inf if loss is None else loss


def preview(saved: SavedModel, seed: int) -> str:
    """Return a short text by a model, from the engine that `charrnn sample` uses."""
    engine = Engine(saved.config, saved.weights)
    options = SamplingConfig(length=PREVIEW_CHARS, seed=seed)
    start = read_prompt(engine, saved.vocabulary.encode(""))
    request = Request(start, prompt="", temperature=PREVIEW_TEMPERATURE, index=0)
    return Stream(engine, saved.vocabulary, request, options).sample().text
