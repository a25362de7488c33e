"""The training loop: truncated backpropagation through time over lanes of text.

`Trainer.run()` yields typed events and does the files; what the user sees is the display's job.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from charrnn import events
from charrnn.batches import DocumentBatches, Lanes, fit_window
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.corpus import Corpus, advice
from charrnn.engine import Engine
from charrnn.errors import DivergenceError
from charrnn.modelfile import SavedModel, save_model
from charrnn.network import CharNetwork, NetworkState, detach
from charrnn.runs import RunDirectory
from charrnn.sampling import Request, Stream, read_prompt
from charrnn.training.checkpoint import load_checkpoint, read_record, save_checkpoint
from charrnn.training.evaluate import mean_document_loss, mean_loss, window_loss
from charrnn.training.machine import choose_device, choose_dtype
from charrnn.training.meter import Meter
from charrnn.training.optimizers import build_optimizers
from charrnn.training.schedule import learning_rate_factor
from charrnn.training.verdict import verdict
from charrnn.transfer import transfer_weights

SAMPLE_CHARS = 160
SAMPLE_TEMPERATURE = 0.8
REPORT_EVERY_S = 0.2
CALIBRATION_SHARE = 0.04
"""Share of a time budget spent on measuring the speed of the first steps."""
EVALUATION_SHARE = 0.03
"""Share of the training time that evaluations may cost."""
CHECK_EVERY = 16
"""Steps between looks at whether the loss is still sound."""
EXPLOSION, EXPLOSION_FROM = 1.5, 100
"""A loss so many times that of chance, from this step on, is an explosion."""
MAX_ROLLBACKS = 3
ROLLBACK_SCALE = 0.3
MIN_MEASURED_STEPS = 5
REPLAN_SHARE = 0.05
"""Share of its time by which a run may miss its end before the number of steps is changed."""
MAX_EVALUATIONS, MIN_EVALUATIONS = 20, 4
TRAIN_LOSS_CHARS = 100_000
"""Most characters of the training text read for the final comparison with validation."""


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
        self._device = choose_device(training.device)
        torch.manual_seed(training.seed)
        self._network = CharNetwork(
            model, dropout=training.dropout, input_dropout=training.input_dropout
        ).to(self._device)
        if initial is not None:
            fresh = self._network.export_weights()
            self._network.import_weights(transfer_weights(initial, corpus.vocabulary, fresh))
        self._optimizers = build_optimizers(self._network, training)
        self._batch_size, self._bptt = fit_window(
            corpus.n_train, training.batch_size, training.bptt
        )
        self._lanes = self._make_batches()
        self._state: NetworkState = self._network.initial_state(self._batch_size)
        self._dtype = training.dtype
        self._step = 0
        self._total_steps: int | None = None
        self._evaluate_every: int | None = None
        self._best = math.inf
        self._best_step = 0
        self._stale = 0
        self._evaluated_step = -1
        self._meter = Meter(self._device)
        """Training loss since the last evaluation."""
        self._rate_scale = 1.0
        self._rollbacks = 0
        self._speed = 0.0
        self._metrics: list[dict[str, Any]] = []
        self._elapsed_before = 0.0

    def _make_batches(self) -> Lanes | DocumentBatches:
        """Return the training windows that suit the corpus."""
        corpus, training = self.corpus, self.training
        documents = corpus.documents
        if documents is None:
            return Lanes(
                corpus.train_ids,
                newline_id=corpus.newline_id,
                batch_size=self._batch_size,
                bptt=self._bptt,
                unknown_rate=training.unknown_rate,
                seed=training.seed,
            )
        return DocumentBatches(
            corpus.ids,
            blocks=documents.blocks(),
            spans=lambda block: documents.spans(block, validation=False),
            n_ids=corpus.n_train,
            batch_size=self._batch_size,
            bptt=self._bptt,
            unknown_rate=training.unknown_rate,
            seed=training.seed,
        )

    @property
    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def run(self) -> Iterator[events.Event]:
        """Train to the end of the budget, yielding what happens.

        Raises:
            StorageError: the model or the run's files cannot be written.
            RunError: the resume state does not fit.
        """
        if self._resume is not None:
            self._restore(self._resume)
            self._elapsed_before = self._resume["elapsed_s"]
        else:
            if self._dtype == "auto":
                self._dtype = choose_dtype(
                    self._network, self._device, self._batch_size, self._bptt
                )
            self._save_state()  # something to roll back to
        yield self._started_event()
        yield from self._notices()
        if self._total_steps is None and self.training.time_s is None:
            yield self._plan(self._steps_of_budget(), None)
        while True:  # once, unless the last evaluation rolls back
            yield from self._loop()
            if self._evaluated_step != self._step:
                yield from self._evaluate()
            if self._done():
                break
        yield self._finish()

    def _notices(self) -> Iterator[events.Notice]:
        """Say what the user may not expect."""
        asked = (self.training.batch_size, self.training.bptt)
        if asked != (self._batch_size, self._bptt):
            yield events.Notice(
                text=f"the text is short: {self._batch_size} lanes of {self._bptt} characters "
                f"instead of {asked[0]} of {asked[1]}"
            )
        for text in advice(self.corpus):
            yield events.Notice(text=text)

    def _loop(self) -> Iterator[events.Event]:
        """Take steps until the budget, the patience or the user ends them."""
        self._network.train()
        clock = _Clock(self._step, self._lanes.served)
        shown = Meter(self._device)
        while not self._done():
            loss, count = self._take_step()
            shown.add(loss, count)
            self._meter.add(loss, count)
            if self._step % CHECK_EVERY == 0:
                self.corpus.release_memory()
                if self._has_diverged():
                    yield self._roll_back()
                    continue
            clock.tick(self._step, self._lanes.served)
            self._speed = clock.chars_per_s
            if self._total_steps is None and clock.steps > MIN_MEASURED_STEPS:
                budget_s = self.training.time_s
                assert budget_s is not None
                measured_s = clock.seconds
                if measured_s > CALIBRATION_SHARE * budget_s or self._elapsed > budget_s / 2:
                    yield self._plan(*self._steps_of_time(budget_s, measured_s / clock.steps))
            due = bool(self._evaluate_every) and self._step % (self._evaluate_every or 1) == 0
            if due or clock.since_shown() >= REPORT_EVERY_S:
                yield self._progressed(shown.take())
                clock.shown()
            if due:
                yield from self._evaluate()
                yield from self._keep_to_time()
                clock.leave_out_pause()

    def _done(self) -> bool:
        if self.stop_requested:
            return True
        if self.training.patience and self._stale >= self.training.patience:
            return True
        return self._total_steps is not None and self._step >= self._total_steps

    def _take_step(self) -> tuple[torch.Tensor, int]:
        """Read one window, update the weights, and return the summed loss and its count."""
        factor = learning_rate_factor(self._step, self._total_steps)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor * self._rate_scale
        window = self._lanes.next_window()
        loss, state = window_loss(self._network, window, self._state, self._device, self._dtype)
        torch.autograd.backward(loss / window.n_targets)
        parameters = list(self._network.parameters())
        if self.training.clip_value:
            nn.utils.clip_grad_value_(parameters, self.training.clip_value)
        if self.training.clip_norm:
            nn.utils.clip_grad_norm_(parameters, self.training.clip_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        self._state = detach(state)
        self._step += 1
        return loss.detach().double(), window.n_targets

    # budget

    def _steps_of_budget(self) -> int:
        """Return the number of steps of an `epochs` or `steps` budget."""
        if self.training.steps is not None:
            return self.training.steps
        epochs = self.training.epochs
        assert epochs is not None, "a Trainer needs exactly one budget"
        return max(1, math.ceil(epochs * self._lanes.steps_per_epoch))

    def _steps_of_time(self, budget_s: float, step_s: float) -> tuple[int, float]:
        """Return the total steps that fill a time budget, and the seconds they still take."""
        left = max(0.0, budget_s - self._elapsed) * (1 - EVALUATION_SHARE) - self._evaluation_s()
        steps = max(1, int(left / step_s))
        return self._step + steps, steps * step_s

    def _evaluation_s(self) -> float:
        """Estimate the time of one evaluation: a forward pass is a third of a training step."""
        return self.corpus.n_val / (3 * max(self._speed, 1.0))

    @property
    def _chars_per_step(self) -> float:
        """Mean number of characters that a step predicts."""
        return self.corpus.n_train / self._lanes.steps_per_epoch

    def _plan(self, total_steps: int, left_s: float | None) -> events.Planned:
        """Fix the number of steps, and from it how often to evaluate."""
        self._total_steps = total_steps
        evaluations = MAX_EVALUATIONS
        if left_s is not None:
            affordable = EVALUATION_SHARE * left_s / max(self._evaluation_s(), 1e-9)
            evaluations = int(min(MAX_EVALUATIONS, max(MIN_EVALUATIONS, affordable)))
        self._evaluate_every = max(1, math.ceil(total_steps / evaluations))
        return events.Planned(
            total_steps=total_steps,
            epochs=total_steps / self._lanes.steps_per_epoch,
            duration_s=left_s,
        )

    def _keep_to_time(self) -> Iterator[events.Event]:
        """Change the number of steps when the machine turns out slower or faster than measured."""
        budget_s, total = self.training.time_s, self._total_steps
        if budget_s is None or total is None or self._done():
            return
        step_s = self._chars_per_step / max(self._speed, 1e-9)
        needed_s = (total - self._step) * step_s
        left_s = budget_s - self._elapsed - self._evaluation_s()
        if abs(needed_s - left_s) > REPLAN_SHARE * budget_s:
            self._total_steps = self._step + max(1, int(left_s / step_s))
            change = "slower" if self._total_steps < total else "faster"
            yield events.Notice(
                text=f"the machine is {change} than measured before: {self._total_steps:,} "
                f"steps instead of {total:,}"
            )

    # divergence

    def _has_diverged(self) -> bool:
        """Say whether the loss since the last evaluation is no number, or far worse than chance."""
        loss = self._meter.mean()
        if loss is None or math.isfinite(loss):
            chance = math.log(self.model.vocab_size)
            return loss is not None and self._step >= EXPLOSION_FROM and loss > EXPLOSION * chance
        return True

    def _roll_back(self) -> events.Notice:
        """Go back to the last state saved, with a lower learning rate.

        Raises:
            DivergenceError: it has happened too often.
        """
        at, rollbacks, scale = self._step, self._rollbacks + 1, self._rate_scale * ROLLBACK_SCALE
        if rollbacks > MAX_ROLLBACKS:
            best = self.run_directory.model
            kept = f"the best model so far is {best}" if best.exists() else "no model was saved"
            raise DivergenceError(
                f"the loss exploded {rollbacks} times although the learning rate was lowered each "
                f"time; {kept}; try a lower --lr, a smaller --clip-norm or another --seed"
            )
        plan = self._total_steps, self._evaluate_every  # perhaps made after that state was saved
        self._restore(read_record(self.run_directory.resume))
        self._total_steps, self._evaluate_every = plan
        self._rollbacks, self._rate_scale = rollbacks, scale
        self._network.train()
        return events.Notice(
            text=f"the loss exploded near step {at:,}: back to step {self._step:,} with the "
            f"learning rate times {scale:g}"
        )

    # measuring and saving

    def _evaluate(self) -> Iterator[events.Event]:
        """Measure on the validation text, save, and show a sample."""
        train_loss = self._meter.take()
        val_loss = self._measure(validation=True) if self.corpus.n_val else None
        judged = train_loss if val_loss is None else val_loss
        if judged is None:  # stopped before the first step
            judged = math.inf
        elif not math.isfinite(judged):
            yield self._roll_back()
            return
        self._evaluated_step = self._step
        is_best = judged < self._best or not self.run_directory.model.exists()
        if is_best:
            self._best, self._best_step, self._stale = judged, self._step, 0
        else:
            self._stale += 1
        evaluated = events.Evaluated(
            step=self._step,
            total_steps=self._total_steps,
            epoch=self._lanes.epoch,
            elapsed_s=self._elapsed,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=self._learning_rate(),
            chars_per_s=self._speed,
            is_best=is_best,
        )
        self._metrics.append(
            {
                "step": self._step,
                "epoch": evaluated.epoch,
                "elapsed_s": evaluated.elapsed_s,
                "train_loss_nats": train_loss,
                "val_loss_nats": val_loss,
                "learning_rate": evaluated.learning_rate,
                "chars_per_s": self._speed,
            }
        )
        saved = self._saved_model(train_loss, val_loss)
        if is_best:
            save_model(self.run_directory.model, saved)
        elif self._done():
            save_model(self.run_directory.last, saved)
        self._save_state()
        yield evaluated
        every = self.training.sample_every
        if every and len(self._metrics) % every == 0:
            yield events.Sampled(text=self._sample_text(saved))

    def _measure(self, *, validation: bool, limit: int | None = None) -> float:
        """Return the loss on one part of the corpus, in nats per character."""
        network, device, dtype, corpus = self._network, self._device, self._dtype, self.corpus
        if corpus.documents is not None:
            return mean_document_loss(
                network, corpus, device, dtype, validation=validation, limit=limit
            )
        ids = corpus.val_ids if validation else corpus.train_ids
        return mean_loss(network, ids, device, dtype, limit=limit)

    def _sample_text(self, saved: SavedModel) -> str:
        """Write a short text with the model as it is."""
        engine = Engine(saved.config, saved.weights)
        options = SamplingConfig(length=SAMPLE_CHARS, seed=self._step)
        start = read_prompt(engine, saved.vocabulary.encode(""))
        request = Request(start, prompt="", temperature=SAMPLE_TEMPERATURE, index=0)
        return Stream(engine, saved.vocabulary, request, options).sample().text

    def _saved_model(self, train_loss: float | None, val_loss: float | None) -> SavedModel:
        corpus = self.corpus
        return SavedModel(
            config=self.model,
            vocabulary=corpus.vocabulary,
            text=corpus.config.text,
            weights=self._network.export_weights(),
            training={
                "corpus": {
                    "name": corpus.name,
                    "sha256": corpus.sha256,
                    "n_chars": corpus.n_chars,
                    "n_train": corpus.n_train,
                    "encodings": list(corpus.encodings),
                    "newlines": list(corpus.newlines),
                },
                "config": self.training.to_dict(),
                "dtype": self._dtype,
                "device": self._device.type,
                "step": self._step,
                "total_steps": self._total_steps,
                "epochs": self._lanes.epoch,
                "elapsed_s": self._elapsed,
                "val_loss_nats": val_loss,
                "train_loss_nats": train_loss,
                "curve": self._metrics,
            },
        )

    def _save_state(self) -> None:
        """Write the metrics and the resume state."""
        record = {
            "model": self.model.to_dict(),
            "training": self.training.to_dict(),
            "corpus_sha256": self.corpus.sha256,
            "n_train": self.corpus.n_train,
            "step": self._step,
            "total_steps": self._total_steps,
            "evaluate_every": self._evaluate_every,
            "dtype": self._dtype,
            "best": None if math.isinf(self._best) else self._best,
            "best_step": self._best_step,
            "stale": self._stale,
            "rate_scale": self._rate_scale,
            "rollbacks": self._rollbacks,
            "evaluated_step": self._evaluated_step,
            "meter": self._meter.state(),
            "elapsed_s": self._elapsed,
            "metrics": self._metrics,
            "lanes": self._lanes.state_dict(),
        }
        save_checkpoint(
            self.run_directory.resume, self._network, self._optimizers, self._state, record
        )
        if self._metrics:
            self.run_directory.write_metrics(self._metrics)

    def _restore(self, record: Mapping[str, Any]) -> None:
        self._state = load_checkpoint(
            self.run_directory.resume, self._network, self._optimizers, self._device
        )
        self._step = record["step"]
        self._total_steps = record["total_steps"]
        self._evaluate_every = record["evaluate_every"]
        self._dtype = record["dtype"]
        self._best = math.inf if record["best"] is None else record["best"]
        self._best_step = record["best_step"]
        self._stale = record["stale"]
        self._rate_scale = record["rate_scale"]
        self._rollbacks = record["rollbacks"]
        self._evaluated_step = record["evaluated_step"]
        self._meter.load(record["meter"])
        self._metrics = list(record["metrics"])
        self._lanes.load_state_dict(record["lanes"])

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
        complete = not self.stop_requested or self._step == self._total_steps
        stale = self.training.patience and self._stale >= self.training.patience
        train_loss = self._measure(validation=False, limit=TRAIN_LOSS_CHARS)
        if complete:
            self.run_directory.resume.unlink(missing_ok=True)
        return events.Finished(
            reason="interrupted" if not complete else "patience" if stale else "complete",
            model_path=self.run_directory.model,
            run=self.run_directory.path,
            step=self._step,
            elapsed_s=self._elapsed,
            best_step=self._best_step,
            val_loss=self._best if self.corpus.n_val else None,
            train_loss=train_loss,
            verdict=verdict(self._metrics, train_loss),
            padding_share=1 - self._lanes.served / max(1, self._lanes.computed),
        )

    # events

    def _learning_rate(self) -> float:
        return float(self._optimizers[0].param_groups[0]["lr"])

    def _started_event(self) -> events.Started:
        return events.Started(
            model=self.model,
            training=self.training,
            n_parameters=self.model.num_parameters(),
            n_train=self.corpus.n_train,
            n_val=self.corpus.n_val,
            device=str(self._device),
            dtype=self._dtype,
            run=self.run_directory.path,
            resumed_at=self._step,
        )

    def _progressed(self, train_loss: float | None) -> events.Progressed:
        eta_s = None
        if self._total_steps is not None:
            left = (self._total_steps - self._step) * self._chars_per_step
            eta_s = left / max(self._speed, 1e-9)
        return events.Progressed(
            step=self._step,
            total_steps=self._total_steps,
            train_loss=train_loss,
            learning_rate=self._learning_rate(),
            chars_per_s=self._speed,
            eta_s=eta_s,
        )


class _Clock:
    """Measures the speed of the steps, without the first ones and without pauses."""

    def __init__(self, step: int, served: int) -> None:
        self._first = step + 3  # the first steps allocate and compile; they are not measured
        self._begin = self._now = self._shown = time.monotonic()
        self._served_before = self._served = served
        self.steps = 0

    def tick(self, step: int, served: int) -> None:
        """Take note of a step."""
        self._now, self._served = time.monotonic(), served
        if step <= self._first:
            self._begin, self._served_before = self._now, served
        self.steps = max(0, step - self._first)

    @property
    def seconds(self) -> float:
        """Time of the measured steps."""
        return self._now - self._begin

    @property
    def chars_per_s(self) -> float:
        """Speed of the measured steps; 0 before there are any."""
        served = self._served - self._served_before
        return served / self.seconds if self.seconds > 0 else 0.0

    def since_shown(self) -> float:
        """Seconds since progress was shown."""
        return self._now - self._shown

    def shown(self) -> None:
        """Progress has been shown."""
        self._shown = self._now

    def leave_out_pause(self) -> None:
        """The time since the last step does not count."""
        self._begin += time.monotonic() - self._now
