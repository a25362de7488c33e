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
from charrnn.modelfile import SavedModel, save_model
from charrnn.network import CharNetwork, NetworkState, detach
from charrnn.runs import RunDirectory
from charrnn.sampling import Request, Stream, read_prompt
from charrnn.training.checkpoint import load_checkpoint, save_checkpoint
from charrnn.training.evaluate import mean_document_loss, mean_loss, window_loss
from charrnn.training.machine import choose_device, choose_dtype
from charrnn.training.optimizers import build_optimizers
from charrnn.training.schedule import learning_rate_factor
from charrnn.training.verdict import verdict

SAMPLE_CHARS = 160
SAMPLE_TEMPERATURE = 0.8
REPORT_EVERY_S = 0.2
CALIBRATION_SHARE = 0.04
"""Share of a time budget spent on measuring the speed of the first steps."""
EVALUATION_SHARE = 0.03
"""Share of the training time that evaluations may cost."""
RELEASE_EVERY = 512
"""Steps after which the pages of a mapped text are let go."""
OVERRUN = 0.05
"""Share by which a run may exceed its time before steps are taken off."""
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
        self._network = CharNetwork(model, dropout=training.dropout).to(self._device)
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
        self._train_loss = math.nan
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
        elif self._dtype == "auto":
            self._dtype = choose_dtype(self._network, self._device, self._batch_size, self._bptt)
        yield self._started_event()
        yield from self._notices()
        if self._total_steps is None and self.training.time_s is None:
            yield self._plan(self._steps_of_budget(), None)
        yield from self._loop()
        if self._best_step != self._step or not self._metrics:
            yield from self._evaluate()
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
        loop_start = reported = time.monotonic()
        loop_chars = self._lanes.served
        recent = torch.zeros((), dtype=torch.float64, device=self._device)
        recent_count = 0
        warm = self._step + 3  # the first steps allocate and compile; they are not measured
        while not self._done():
            loss, count = self._take_step()
            recent += loss
            recent_count += count
            if self._step % RELEASE_EVERY == 0:
                self.corpus.release_memory()
            now = time.monotonic()
            if self._step == warm:
                loop_start, loop_chars = now, self._lanes.served
            self._speed = (self._lanes.served - loop_chars) / max(now - loop_start, 1e-9)
            if self._total_steps is None and self._step > warm + 5:
                budget = self.training.time_s
                assert budget is not None
                if now - loop_start > CALIBRATION_SHARE * budget or self._elapsed > 0.5 * budget:
                    step_s = (now - loop_start) / (self._step - warm)
                    yield self._plan(*self._steps_of_time(budget, step_s))
            due = self._evaluate_every and self._step % self._evaluate_every == 0
            if due or now - reported >= REPORT_EVERY_S:
                self._train_loss = float(recent) / recent_count
                recent.zero_()
                recent_count = 0
                reported = now
                yield self._progressed()
            if due and self._step != self._total_steps:
                yield from self._evaluate()
                yield from self._keep_to_time()
                loop_start += time.monotonic() - now
        if recent_count:
            self._train_loss = float(recent) / recent_count

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
                group["lr"] = group["peak_lr"] * factor
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
        return max(1, math.ceil(epochs * self.corpus.n_train / (self._batch_size * self._bptt)))

    def _steps_of_time(self, budget_s: float, step_s: float) -> tuple[int, float]:
        """Return the total steps that fill a time budget, and the seconds they still take."""
        left = max(0.0, budget_s - self._elapsed) * (1 - EVALUATION_SHARE) - self._evaluation_s()
        steps = max(1, int(left / step_s))
        return self._step + steps, steps * step_s

    def _evaluation_s(self) -> float:
        """Estimate the time of one evaluation: a forward pass is a third of a training step."""
        return self.corpus.n_val / (3 * max(self._speed, 1.0))

    def _plan(self, total_steps: int, left_s: float | None) -> events.Planned:
        """Fix the number of steps, and from it how often to evaluate."""
        self._total_steps = total_steps
        evaluations = MAX_EVALUATIONS
        if left_s is not None:
            affordable = EVALUATION_SHARE * left_s / max(self._evaluation_s(), 1e-9)
            evaluations = int(min(MAX_EVALUATIONS, max(MIN_EVALUATIONS, affordable)))
        self._evaluate_every = max(1, math.ceil(total_steps / evaluations))
        chars = total_steps * self._batch_size * self._bptt
        return events.Planned(
            total_steps=total_steps, epochs=chars / self.corpus.n_train, duration_s=left_s
        )

    def _keep_to_time(self) -> Iterator[events.Event]:
        """Take steps off the plan when a machine that has slowed down would overrun its time."""
        budget_s, total = self.training.time_s, self._total_steps
        if budget_s is None or total is None:
            return
        step_s = self._batch_size * self._bptt / max(self._speed, 1e-9)
        needed_s = self._elapsed + (total - self._step) * step_s + self._evaluation_s()
        if needed_s > budget_s * (1 + OVERRUN):
            left_s = budget_s - self._elapsed - self._evaluation_s()
            self._total_steps = self._step + max(1, int(left_s / step_s))
            yield events.Notice(
                text=f"the machine is slower than measured at the start: {self._total_steps:,} "
                f"steps instead of {total:,}"
            )

    # measuring and saving

    def _evaluate(self) -> Iterator[events.Event]:
        """Measure on the validation text, save, and show a sample."""
        val_loss = self._measure(validation=True) if self.corpus.n_val else None
        judged = self._train_loss if val_loss is None else val_loss
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
            train_loss=self._train_loss,
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
                "train_loss_nats": self._train_loss,
                "val_loss_nats": val_loss,
                "learning_rate": evaluated.learning_rate,
                "chars_per_s": self._speed,
            }
        )
        saved = self._saved_model(val_loss)
        if is_best:
            save_model(self.run_directory.model, saved)
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

    def _saved_model(self, val_loss: float | None) -> SavedModel:
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
                "train_loss_nats": None if math.isnan(self._train_loss) else self._train_loss,
                "curve": self._metrics,
            },
        )

    def _save_state(self) -> None:
        """Write the metrics and the resume state."""
        self.run_directory.write_metrics(self._metrics)
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
            "elapsed_s": self._elapsed,
            "metrics": self._metrics,
            "lanes": self._lanes.state_dict(),
        }
        save_checkpoint(
            self.run_directory.resume, self._network, self._optimizers, self._state, record
        )

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
        self._elapsed_before = record["elapsed_s"]
        self._metrics = list(record["metrics"])
        self._lanes.load_state_dict(record["lanes"])

    def _finish(self) -> events.Finished:
        """Compare with the training text, and close the run unless it was interrupted."""
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

    def _progressed(self) -> events.Progressed:
        eta_s = None
        if self._total_steps is not None:
            left = (self._total_steps - self._step) * self._batch_size * self._bptt
            eta_s = left / max(self._speed, 1e-9)
        return events.Progressed(
            step=self._step,
            total_steps=self._total_steps,
            train_loss=self._train_loss,
            learning_rate=self._learning_rate(),
            chars_per_s=self._speed,
            eta_s=eta_s,
        )
