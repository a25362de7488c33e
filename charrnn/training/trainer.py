"""The training loop: steps until the budget is used up, with evaluations in between.

`Trainer.run()` yields typed events and does the files; what the user sees is the display's job.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from charrnn import events
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus.advice import advice
from charrnn.corpus.corpus import Corpus
from charrnn.errors import DivergenceError
from charrnn.storage.model_file import SavedModel
from charrnn.storage.runs import RunDirectory
from charrnn.training.budget import TRAIN_LOSS_CHARS, Budget, Plan
from charrnn.training.calibration import ENOUGH_CHARS
from charrnn.training.checkpoint import read_record
from charrnn.training.clock import Clock
from charrnn.training.divergence import CHECK_EVERY, has_diverged
from charrnn.training.learner import Learner
from charrnn.training.meter import Meter
from charrnn.training.preview import preview
from charrnn.training.progress import Progress
from charrnn.training.saving import RunFiles, metrics_row
from charrnn.training.schedule import learning_rate_factor
from charrnn.training.verdict import verdict

REPORT_EVERY_S = 0.2
NOTABLE_CHANGE = 0.05
"""Share of its steps by which a plan may change without a word."""
MOST_PREPARATION = 0.5
"""Share of a time budget that reading the text may use up; training has the rest however long the
text is."""


class Trainer:
    """One training run.

    Args:
        corpus: encoded text.
        model: shape of the network.
        training: how to train; exactly one budget must be set.
        run: where the files go.
        initial: a trained model to begin from; see `transfer_weights`.
        resume: the record of a resume state (`read_record`), to go on from there.
        started: `time.monotonic()` at the start of the command, from which a time budget counts.
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
        """Build the network and the lanes; nothing is trained or written yet."""
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
        self._progress = Progress(patience=training.patience)
        self._files = RunFiles(run, corpus, model, training)
        self._budget = Budget(
            training,
            n_train=corpus.n_train,
            n_val=corpus.n_val,
            steps_per_epoch=self._learner.windows.steps_per_epoch,
        )
        self._speed = 0.0
        """Characters a second."""
        self._told_steps: int | None = None
        """Steps of the whole run, as the user last heard of them."""

    @property
    def _elapsed_s(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    @property
    def _counted_s(self) -> float:
        """How much of a time budget is used up."""
        return self._elapsed_s - self._progress.uncounted_s

    def run(self) -> Iterator[events.Event]:
        """Train to the end of the budget, yielding what happens.

        Raises:
            StorageError: the model or the run's files cannot be written.
            RunError: the resume state does not fit.
            DivergenceError: the loss explodes however low the learning rate.
        """
        if self._resume is not None:
            self._progress = self._files.restore(self._learner, self._resume)
            self._elapsed_before = self._resume["elapsed_s"]
        else:
            self._learner.settle_dtype()
            if self.training.time_s is not None:
                late_s = self._elapsed_s - MOST_PREPARATION * self.training.time_s
                self._progress.uncounted_s = max(0.0, late_s)
            self._save_state()  # something to roll back to
        yield self._started_event()
        yield from self._notices()
        if self._progress.plan is None and self.training.time_s is None:
            yield self._follow(self._budget.fixed_plan(), None)
        while True:  # once, unless the last evaluation rolls back
            yield from self._loop()
            if self.stop_requested and not self._progress.is_complete:
                yield events.Notice(text="stopping: the model is measured and saved first")
            if self._progress.evaluated_step != self._progress.step:
                yield from self._evaluate()
            if self._is_over():
                break
        yield self._finish()

    def _notices(self) -> Iterator[events.Notice]:
        """Say what the user may not expect."""
        asked = (self.training.batch_size, self.training.bptt)
        used = (self._learner.windows.batch_size, self._learner.windows.bptt)
        if asked != used:
            yield events.Notice(
                text=f"the text is short: {used[0]} lanes of {used[1]} characters "
                f"instead of {asked[0]} of {asked[1]}"
            )
        late_s = self._progress.uncounted_s
        if late_s and self._resume is None:
            yield events.Notice(
                text="starting up and reading the text took more than half of the time: training "
                f"has the other half, so the run takes {math.ceil(late_s)}s longer than asked for"
            )
        for text in advice(self.corpus):
            yield events.Notice(text=text)

    def _loop(self) -> Iterator[events.Event]:
        """Take steps until the budget, the patience or the user ends them."""
        learner = self._learner
        learner.network.train()
        clock = Clock(self._progress.step, learner.windows.served)
        shown = Meter(learner.device)
        checked_s = self._counted_s
        while not self._is_over():
            progress = self._progress  # another one after a rollback
            factor = learning_rate_factor(progress.step, progress.total_steps)
            shown.add(*learner.take_step(factor * progress.caution.rate_scale))
            progress.step += 1
            if progress.step % CHECK_EVERY == 0:
                self.corpus.release_memory()
                if has_diverged(learner.meter.mean(), progress.step, self.model.vocab_size):
                    yield self._roll_back()
                    continue
            clock.tick(progress.step, learner.windows.served)
            self._speed = clock.chars_per_s
            if progress.plan is None:
                timed = self._budget.timed_plan(progress.step, self._counted_s, clock)
                if timed is not None:
                    yield self._follow(*timed)
                    if self._budget.is_cut(timed[0]):
                        yield events.Notice(
                            text="there would be time for more, but a text read so often is only "
                            "learned by heart; --epochs N reads it as often as you say"
                        )
            due = progress.evaluation_is_due
            if due or clock.since_shown() >= REPORT_EVERY_S:
                yield self._progressed(shown.take())
                clock.shown()
            if due:
                yield from self._evaluate()
                clock.leave_out_pause()
                yield from self._end_early()
            progress, since_s = self._progress, self._counted_s - checked_s
            if self._budget.is_to_be_checked(progress.plan, progress.step, since_s):
                yield from self._keep_to_time(clock.pause_s)
                checked_s = self._counted_s

    def _is_over(self) -> bool:
        progress = self._progress
        return self.stop_requested or progress.is_complete or progress.is_stale

    def _follow(self, plan: Plan, left_s: float | None) -> events.Planned:
        """Fix the number of steps, and with it the learning rates and evaluations to come."""
        self._progress.plan, self._told_steps = plan, plan.total_steps
        return events.Planned(
            total_steps=plan.total_steps,
            epochs=plan.total_steps / self._budget.steps_per_epoch,
            duration_s=left_s,
        )

    def _end_early(self) -> Iterator[events.Notice]:
        """Shorten the run if that was asked for and the text is being learned by heart."""
        progress = self._progress
        if not self.training.finish_early or progress.plan is None or not self.corpus.n_val:
            return
        losses = [row["val_loss_nats"] for row in progress.metrics]
        plan = self._budget.early_end(progress.plan, progress.step, losses)
        if plan is not None:
            progress.plan, progress.is_ending = plan, True
            yield events.Notice(
                text="validation loss keeps rising: the run ends at step "
                f"{plan.total_steps:,}, with the learning rate brought down"
            )

    def _keep_to_time(self, pause_s: float) -> Iterator[events.Notice]:
        """Change the number of steps when the machine turns out slower or faster than measured."""
        progress = self._progress
        if progress.plan is None or progress.is_ending or self._is_over():
            return
        told = self._told_steps or progress.plan.total_steps
        plan = self._budget.corrected_plan(
            progress.plan, progress.step, self._counted_s, self._speed, pause_s
        )
        if plan is None:
            return
        progress.plan, self._told_steps = plan, told
        if abs(plan.total_steps - told) > NOTABLE_CHANGE * told:  # small changes add up
            self._told_steps = plan.total_steps
            change = "slower" if plan.total_steps < told else "faster"
            yield events.Notice(
                text=f"the machine is {change} than measured before: {plan.total_steps:,} "
                f"steps instead of {told:,}"
            )

    def _roll_back(self) -> events.Notice:
        """Go back to the last state saved, with a lower learning rate.

        Raises:
            DivergenceError: it has happened too often.
        """
        exploded = self._progress
        caution = exploded.caution.after_explosion(self.run_directory.model)
        record = read_record(self.run_directory.resume)
        self._progress = self._files.restore(self._learner, record)
        self._progress.plan = exploded.plan  # perhaps made after that state was saved
        self._progress.is_ending = exploded.is_ending
        self._progress.caution = caution
        self._learner.network.train()
        return events.Notice(
            text=f"the loss exploded near step {exploded.step:,}: back to step "
            f"{self._progress.step:,} with the learning rate times {caution.rate_scale:g}"
        )

    def _evaluate(self) -> Iterator[events.Event]:
        """Measure on the validation text, save, and show a sample."""
        learner, progress = self._learner, self._progress
        train_loss = learner.meter.take()
        val_loss, scale = None, 1.0
        if self.corpus.n_val:
            is_fitted = self.training.calibrate and self.corpus.n_val >= ENOUGH_CHARS
            measured = learner.measure(validation=True, logit_scale=None if is_fitted else 1.0)
            val_loss, scale = measured.loss, measured.logit_scale
        judged = train_loss if val_loss is None else val_loss
        if judged is None:  # stopped before the first step
            judged = math.inf
        elif not math.isfinite(judged):
            yield self._roll_back()
            return
        is_best = progress.judge(judged, scale, is_first=not self.run_directory.model.exists())
        evaluated = events.Evaluated(
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=learner.windows.epoch,
            elapsed_s=self._elapsed_s,
            train_loss=train_loss,
            val_loss=val_loss,
            logit_scale=scale,
            learning_rate=learner.learning_rate,
            chars_per_s=self._speed,
            is_best=is_best,
        )
        progress.metrics.append(metrics_row(evaluated))
        saved = self._files.model_of(learner, progress, evaluated)
        if is_best:
            self._files.save_best(saved)
        elif self._is_over():
            self._files.save_last(saved)
        self._save_state()
        yield evaluated
        every = self.training.sample_every
        if every and len(progress.metrics) % every == 0:
            yield events.Sampled(text=preview(saved, seed=progress.step))

    def _save_state(self) -> None:
        self._files.save_state(self._learner, self._progress, self._elapsed_s)

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
        progress, windows = self._progress, self._learner.windows
        is_complete = not self.stop_requested or progress.is_complete
        scale = progress.metrics[-1]["logit_scale"] if progress.metrics else 1.0
        train_loss = self._learner.measure(
            validation=False, logit_scale=scale, limit=TRAIN_LOSS_CHARS
        ).loss
        judgement = verdict(progress.metrics, train_loss, is_complete=is_complete)
        self._files.add_verdict(judgement)
        if is_complete:
            self._files.close()
        end = "patience" if progress.is_stale else "complete"
        return events.Finished(
            reason=end if is_complete else "interrupted",
            model_path=self.run_directory.model,
            run=self.run_directory.path,
            step=progress.step,
            elapsed_s=self._elapsed_s,
            best_step=progress.best_step,
            val_loss=progress.best if self.corpus.n_val else None,
            logit_scale=progress.best_scale,
            train_loss=train_loss,
            verdict=judgement,
            padding_share=1 - windows.served / max(1, windows.computed),
        )

    def _started_event(self) -> events.Started:
        return events.Started(
            model=self.model,
            training=self.training,
            n_parameters=self.training.members * self.model.num_parameters(),
            n_train=self.corpus.n_train,
            n_val=self.corpus.n_val,
            device=str(self._learner.device),
            dtype=self._learner.dtype,
            run=self.run_directory.path,
            resumed_at=self._progress.step,
        )

    def _progressed(self, train_loss: float | None) -> events.Progressed:
        progress, eta_s = self._progress, None
        if progress.total_steps is not None:
            left = progress.total_steps - progress.step
            eta_s = self._budget.seconds_of(left, self._speed)
        return events.Progressed(
            step=progress.step,
            total_steps=progress.total_steps,
            train_loss=train_loss,
            learning_rate=self._learner.learning_rate,
            chars_per_s=self._speed,
            eta_s=eta_s,
        )
