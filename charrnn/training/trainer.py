"""The training loop: steps until the end of the schedule, with evaluations in between.

`Trainer.run()` yields typed events and writes the files; what the user sees is the display's job.
Where several processes train together, process 0 does both, and the others follow it step by step.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from charrnn import events
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus.corpus import Corpus
from charrnn.errors import ConfigError, DivergenceError, StorageError
from charrnn.models.device import is_out_of_memory
from charrnn.storage.model_file import SavedModel
from charrnn.storage.runs import RunDirectory
from charrnn.training.checkpoint import (
    RunFiles,
    checked_metrics,
    cost_chars,
    metrics_row,
    read_record,
    unfit,
)
from charrnn.training.distributed import ALONE, Group, PeerError
from charrnn.training.divergence import CHECK_EVERY, Caution, has_diverged
from charrnn.training.learner import Learner
from charrnn.training.loss import Meter
from charrnn.training.preview import preview
from charrnn.training.records import real, whole
from charrnn.training.schedule import (
    TRAIN_LOSS_CHARS,
    Clock,
    Schedule,
    learning_rate_factor,
)
from charrnn.training.system import on_signals
from charrnn.training.verdict import UNFAMILIAR, verdict

FADE_EVERY = 64
"""Steps after which the training loss shown counts earlier ones half."""
REPORT_EVERY_S = 0.2
CALIBRATION_CHARS = 2_000
"""Characters of validation text below which no temperature is fitted."""
MOST_UNKNOWN = 0.5
"""Share of unknown characters beyond which a validation text counts as none."""


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
        group: the processes that train together; only process 0 needs `initial`.
        lacking: the operator for lack of which a GPU was passed over; see `usable_device`.
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
        group: Group = ALONE,
        lacking: str = "",
    ) -> None:
        """Build the network and its windows; nothing is trained or written yet."""
        self.corpus = corpus
        self.model = model
        self.training = training
        self.run_directory = run
        self.stop_requested = False
        """Set this to end the run after the current step, with everything saved."""
        self._group = group
        self._all_stop = False
        """Any of several processes has been asked to stop, and all know it."""
        self._resume = resume
        self._started = time.monotonic() if started is None else started
        self._elapsed_before = 0.0
        self._learner = Learner(corpus, model, training, initial, group)
        self._files = RunFiles(run, corpus, model, training)
        self._schedule = Schedule(
            training, n_train=corpus.n_train, n_val=corpus.n_val, n_cost=cost_chars(model)
        )
        self._clock = Clock()
        self._recent = Meter()
        """Training loss of the steps after those in `_unjudged`."""
        self._unjudged: list[tuple[int, Meter]] = []
        """Training loss of each `CHECK_EVERY` steps up to a step, not yet looked at."""
        self._caution = Caution()
        self._best: Best | None = None
        self._metrics: list[dict[str, Any]] = []
        """The rows of metrics.jsonl."""
        self._first_row = 0
        """Of those that belong to the present limits; a finished run may be continued."""
        self._at_stop: events.Evaluated | None = None
        self._was_signalled = False
        self._has_halved_rows = False
        self._lacking = lacking

    def run(self) -> Iterator[events.Event]:
        """Train to the end, yielding what happens; process 0 alone yields anything.

        Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end the run like `stop_requested`; a second
        one ends it at once, but not where there are several processes: torchrun sends more than
        one. A run that fails before it has a model leaves nothing.

        Raises:
            StorageError: the model or the run's files cannot be written.
            RunError: the resume state does not fit.
            CorpusError: another program has damaged the encoded text.
            DivergenceError: the loss explodes however low the learning rate.
            KeyboardInterrupt: after the last event, if a signal has stopped the run.
            PeerError: another process has ended before the run did.
            SystemExit: in place of any of these, where another process says why.
        """
        with self._group.one_voice():
            yield from self._run_and_tidy_up()

    def _run_and_tidy_up(self) -> Iterator[events.Event]:
        run, leads = self.run_directory, self._group.leads
        try:
            with on_signals(self._heed):
                yield from (event for event in self._run() if leads)
                self._stop_together()  # nobody leaves before process 0 has written all
        except Exception as error:
            if leads and self._resume is None and not run.model.exists():
                run.resume.unlink(missing_ok=True)
                run.metrics.unlink(missing_ok=True)
                run.discard()
            elif isinstance(error, (StorageError, PeerError)) and run.is_resumable:
                raise type(error)(
                    f"{error}; to continue from the last state saved: {run.resume_command}"
                ) from error
            raise
        finally:
            run.release()
        if self._was_signalled:
            raise KeyboardInterrupt

    def _heed(self, number: int) -> None:
        """Stop after the current step; at the second signal, now."""
        if self.stop_requested and self._group.size == 1:
            raise KeyboardInterrupt
        self.stop_requested = self._was_signalled = True

    def _run(self) -> Iterator[events.Event]:
        if self._resume is not None:
            self._restore(self._resume)
            self._elapsed_before = self._resume["elapsed_s"]
            if self._resume.get("finished"):
                self._schedule.begin_again(self._learner.windows.epoch, self._elapsed_before)
                self._first_row = len(self._metrics)
                self._save_state()  # something to roll back to
            self._schedule.preparation_s += self._elapsed_s - self._elapsed_before
            if self._group.leads:
                self._files.undo_stop()
        else:
            self._learner.settle_dtype()
            self._learner.exchange_weights(are_first=True)
            self._schedule.preparation_s = self._elapsed_s
            self._save_state()  # something to roll back to
        yield self._started_event()
        yield from self._loop()
        if not self._schedule.is_complete:
            yield events.Stopping(processes=self._group.size)
            yield from self._stop()
        yield self._finish()

    @property
    def _chars_per_unit(self) -> float:
        """How many characters a character or byte of the text is; an EOS counts as one."""
        corpus = self.corpus
        n_ids = corpus.n_train + corpus.n_val
        if corpus.vocabulary.unit == "char":
            return 1.0
        return (corpus.n_chars + n_ids - corpus.n_bytes) / n_ids

    def _bits_per_char(self, loss: float) -> float:
        return loss / math.log(2) / self._chars_per_unit

    @property
    def _elapsed_s(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _loop(self) -> Iterator[events.Event]:
        """Take steps until the schedule or the user ends them."""
        learner, schedule, clock = self._learner, self._schedule, self._clock
        learner.network.train()
        shown = Meter()
        self._stop_together()
        while not (schedule.is_complete or self._is_stopped):
            factor = learning_rate_factor(schedule.step, schedule.progress)
            is_too_large = False
            try:
                loss, n_chars = learner.take_step(factor * self._caution.rate_scale)
            except RuntimeError as error:
                is_too_large = is_out_of_memory(error)
                if not is_too_large:
                    raise
            if not is_too_large:
                shown.add(loss, n_chars)
                self._recent.add(loss, n_chars)
                clock.step(n_chars)
                schedule.advance(learner.windows.epoch, self._elapsed_s, clock)
            # the error that kept the tensors of the step has gone
            if self._stop_together(is_too_large=is_too_large):
                yield self._halve_rows()
                continue
            if schedule.step % CHECK_EVERY == 0:
                self.corpus.release_memory()
                self._unjudged.append((schedule.step, self._recent))
                self._recent = Meter()
            if schedule.step % FADE_EVERY == 0:
                learner.meter.fade()
            is_due = schedule.evaluation_is_due(learner.windows.served)
            is_shown = clock.is_time_to_show(REPORT_EVERY_S) or is_due
            # a look at the loss waits for a device: only where a report does anyway, or where
            # several processes have to look at the same one
            is_seen = is_shown or learner.device.type == "cpu" or self._group.size > 1
            if is_seen and self._has_diverged:
                yield self._roll_back()
                continue
            if is_shown:
                yield events.Progressed(
                    progress=schedule.progress,
                    step=schedule.step,
                    train_loss=shown.take(),
                    learning_rate=learner.learning_rate,
                    chars_per_s=clock.chars_per_s,
                    eta_s=clock.eta_s(schedule.progress),
                )
            if is_due:
                with clock.pause():
                    yield from self._evaluate()

    @property
    def _has_diverged(self) -> bool:
        """True if the loss has, in the steps not judged so far; they now are."""
        unjudged, self._unjudged = self._unjudged, []
        return any(
            has_diverged(meter.mean(), step, self.model.vocab_size) for step, meter in unjudged
        )

    @property
    def _is_stopped(self) -> bool:
        """True when the run ends before its schedule: in the same step for all processes."""
        return self.stop_requested if self._group.size == 1 else self._all_stop

    def _stop_together(self, *, is_too_large: bool = False) -> bool:
        """Agree with the other processes on how far the run is, by the clock of process 0, and on
        whether one of them has been asked to stop.

        Returns:
            Whether a step was too large for the memory of one of them.
        """
        if self._group.size > 1:
            progress = self._schedule.progress if self._group.leads else 0.0
            self._schedule.progress, stops, signals, too_large = self._group.sums(
                [progress, self.stop_requested, self._was_signalled, is_too_large]
            )
            self._all_stop = stops > 0
            if signals:  # a signal may come at any moment: never set this to False
                self._was_signalled = True
            return too_large > 0
        return is_too_large

    def _evaluate(self) -> Iterator[events.Event]:
        """Measure on the validation text, save, and show a sample."""
        self._learner.exchange_weights()
        evaluated = self._measured()
        judged = _judged(evaluated)
        if not math.isfinite(judged) or not self._is_sound:
            yield self._roll_back()
            return
        self._learner.meter.take()
        if self._best is None or judged < self._best.loss:
            evaluated = dataclasses.replace(evaluated, is_best=True)
            self._best = Best(judged, evaluated.temperature, evaluated.step)
        self._metrics.append(self._row(evaluated))
        saved = None
        if self._group.leads:
            saved = self._files.model_of(self._learner, evaluated, self._metrics)
            if evaluated.is_best:
                self._files.save_best(saved)
            elif self._schedule.is_complete:
                self._files.save_last(saved)
        losses = [row["val_loss_nats"] for row in self._metrics[self._first_row :]]
        is_shortened = evaluated.unknown_share <= UNFAMILIAR and self._schedule.shorten_if_rising(
            [loss for loss in losses if loss is not None]
        )
        self._save_state()
        yield evaluated
        every = self.training.sample_every
        if saved is not None and every and len(self._metrics) % every == 0:
            text = preview(saved, self.corpus.ids, seed=self._schedule.step)
            if text is not None:
                yield events.Sampled(text=text)
        if is_shortened:
            yield events.LossRises(step=self._schedule.step)

    def _stop(self) -> Iterator[events.Event]:
        """Save a run that the user stops, and keep its network if it is the best so far.

        The measurement is no evaluation: nothing of a resumed run depends on it. Only a run limited
        by time, which is never the same again, keeps a better model.
        """
        self._learner.exchange_weights()
        if self._is_sound:
            self._save_state()  # or else the last one stays
        if self._metrics and self._metrics[-1]["step"] == self._schedule.step:
            return  # just evaluated
        evaluated = self._measured()
        judged = _judged(evaluated)
        if self._is_sound and (math.isfinite(judged) or self._schedule.step == 0):
            is_best = self._best is None or judged < self._best.loss
            self._at_stop = evaluated = dataclasses.replace(evaluated, is_best=is_best)
            is_kept = is_best and self.training.time_s is not None and math.isfinite(judged)
            if self._group.leads:
                saved = self._files.model_of(self._learner, evaluated, self._metrics)
                if not is_best:
                    self._files.save_last(saved)
                elif is_kept:
                    self._files.save_best(saved)
                else:
                    self._files.save_best_at_stop(saved)
            if is_kept:
                self._best = Best(judged, evaluated.temperature, evaluated.step)
                self._save_state()
        yield evaluated

    def _row(self, evaluated: events.Evaluated) -> dict[str, Any]:
        """Return the row of metrics.jsonl of an evaluation."""
        return metrics_row(evaluated, self.corpus.vocabulary.unit, self._group.size)

    @property
    def _is_sound(self) -> bool:
        means = (self._recent.mean(), self._learner.meter.mean())
        return self._learner.is_sound and all(math.isfinite(mean or 0.0) for mean in means)

    def _measured(self) -> events.Evaluated:
        """Measure the network as it is now; nothing changes."""
        learner, schedule, n_val = self._learner, self._schedule, self.corpus.n_val
        val_loss, temperature, unknown_share = None, 1.0, 0.0
        train_loss = learner.meter.mean()
        if n_val:
            is_fitted = self.training.calibrate and n_val >= CALIBRATION_CHARS
            with self._clock.reading(n_val):
                measured = learner.measure(validation=True, temperature=None if is_fitted else 1.0)
            unknown_share = measured.unknown_share
            if unknown_share <= MOST_UNKNOWN:
                val_loss, temperature = measured.loss, measured.temperature
        judged = train_loss if val_loss is None else val_loss
        return events.Evaluated(
            progress=schedule.progress,
            step=schedule.step,
            epoch=learner.windows.epoch,
            elapsed_s=self._elapsed_s,
            train_loss=train_loss,
            val_loss=val_loss,
            bits_per_char=None if judged is None else self._bits_per_char(judged),
            unknown_share=unknown_share,
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
        before = self._caution.rate_scale
        caution = self._caution.after_explosion(self.run_directory.model)
        self._restore(read_record(self.run_directory.resume))
        self._caution = caution
        self._learner.network.train()
        return events.RolledBack(
            exploded_at=exploded_at,
            step=self._schedule.step,
            rate_scale_before=before,
            rate_scale=caution.rate_scale,
        )

    def _halve_rows(self) -> events.RowsHalved:
        """Go back to the last state saved, and continue with half of the batch rows, once.

        Raises:
            ConfigError: the device has too little memory for half of them, too.
        """
        rows, device = self._learner.windows.batch_size, self._learner.device
        if self._has_halved_rows or rows == 1:
            raise ConfigError(
                f"must be less than {rows}: a step needs more memory than {device} has; or choose "
                "a smaller network",
                field="batch_size",
            )
        self._restore(read_record(self.run_directory.resume))
        self.training = self._learner.halve_rows()
        self._files = RunFiles(self.run_directory, self.corpus, self.model, self.training)
        self._save_state()
        self._has_halved_rows = True
        self._learner.network.train()
        return events.RowsHalved(
            step=self._schedule.step, batch_size=self._learner.windows.batch_size
        )

    def _finish(self) -> events.Finished:
        """Compare with the training text and with int8, and close the run if it is complete.

        Raises:
            DivergenceError: the run was stopped before there was a sound model.
        """
        if self._group.leads and not self.run_directory.model.exists():
            raise DivergenceError(
                "the run was stopped after its loss had exploded, before there was a model to "
                "save: try a lower learning rate"
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
        train = self._learner.measure(
            validation=False, temperature=temperature, limit=TRAIN_LOSS_CHARS
        )
        judgement = verdict(
            self._metrics,
            train,
            self.training,
            n_val=self.corpus.n_val,
            vocab_size=self.model.vocab_size,
            is_complete=schedule.is_complete,
        )
        if self._group.leads:
            self._files.complete(judgement)
        if schedule.is_complete:
            self._save_state(is_finished=True)
        rows = self._metrics if self._at_stop is None else [self._row(self._at_stop)]
        is_validated = rows[-1]["val_loss_nats"] is not None
        return events.Finished(
            reason=schedule.reason if schedule.is_complete else "interrupted",
            model_path=self.run_directory.model,
            run=self.run_directory.path,
            step=schedule.step,
            epochs=windows.epoch,
            elapsed_s=self._elapsed_s,
            best_step=best.step,
            val_loss=best.loss if is_validated else None,
            bits_per_char=self._bits_per_char(best.loss if is_validated else train.loss),
            temperature=best.temperature,
            train_loss=train.loss,
            verdict=judgement,
        )

    def _save_state(self, *, is_finished: bool = False) -> None:
        record = {
            "finished": is_finished,
            "elapsed_s": self._elapsed_s,
            "schedule": self._schedule.state(),
            "recent": self._recent.state(),
            "caution": dataclasses.asdict(self._caution),
            "best": None if self._best is None else dataclasses.asdict(self._best),
            "metrics": self._metrics,
            "first_row": self._first_row,
        }
        self._files.save_state(self._learner, record, self._metrics)

    def _restore(self, record: Mapping[str, Any]) -> None:
        """Go back to a state that `_save_state` saved.

        Raises:
            RunError: it does not fit.
        """
        self._files.restore(self._learner, record)
        try:
            real(record["elapsed_s"])
            self._schedule.load(record["schedule"])
            self._recent.load(record["recent"])
            self._unjudged = []
            self._caution = Caution(**record["caution"])
            best = record["best"]
            self._best = None
            if best is not None:
                loss, temperature = real(best["loss"]), real(best["temperature"])
                self._best = Best(loss, temperature, whole(best["step"]))
            self._metrics = checked_metrics(record["metrics"], self.corpus.vocabulary.unit)
            self._first_row = whole(record["first_row"], high=len(self._metrics))
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise unfit(self.run_directory.resume, error) from error

    @property
    def _devices(self) -> str:
        """The device; of several processes also their number, and what each takes."""
        kind, n = self._learner.device.type, self._group.size
        if n == 1:
            return str(self._learner.device)
        return f"{n} × {kind} ({'members' if self._learner.by_members else 'rows'} shared out)"

    def _started_event(self) -> events.Started:
        corpus, windows = self.corpus, self._learner.windows
        return events.Started(
            model=self.model,
            training=self.training,
            n_train=corpus.n_train,
            n_val=corpus.n_val,
            unit=corpus.vocabulary.unit,
            files_read=corpus.n_files,
            files_left_out=corpus.n_left_out,
            left_out=corpus.left_out,
            n_copies=corpus.n_copies,
            copies=corpus.copies,
            batch_size=windows.batch_size,
            bptt=windows.bptt,
            device=self._devices,
            lacking=self._lacking,
            dtype=self._learner.dtype,
            run=self.run_directory.path,
            name_taken=self.run_directory.name_taken,
            resumed_at=self._schedule.step,
            resumed_s=self._elapsed_before,
            resumed_epochs=windows.epoch,
            late_s=self._schedule.late_s,
            encodings=corpus.encodings,
            newlines=corpus.newlines,
            n_duplicates=corpus.n_duplicates or 0,
            looks_like_list=corpus.looks_like_list,
        )


def _judged(evaluated: events.Evaluated) -> float:
    """Return the loss that decides which model is kept: infinite before the first step."""
    loss = evaluated.train_loss if evaluated.val_loss is None else evaluated.val_loss
    return math.inf if loss is None else loss
