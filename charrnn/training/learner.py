"""A network that learns: its optimisers, its windows of text and the state carried between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from charrnn.batches.documents import DocumentBatches
from charrnn.batches.windows import TextBatches, Window, fit_window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus.corpus import Corpus
from charrnn.errors import CorpusError
from charrnn.models.network import CharNetwork, Ensemble, NetworkState, detach, transfer_weights
from charrnn.storage.model_file import MAX_WEIGHT, SavedModel
from charrnn.training.loss import Measured, Meter, corpus_windows, measure, window_loss
from charrnn.training.optimizers import Muon, build_optimizers
from charrnn.training.records import listed, whole
from charrnn.training.system import Workers, choose_device, choose_dtype


class Learner:
    """Takes steps of truncated backpropagation through time, and measures the outcome.

    Args:
        corpus: encoded text.
        model: shape of the network.
        training: how to train.
        initial: a trained model to begin from; see `transfer_weights`.

    Raises:
        ConfigError: the device asked for is not here.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: ModelConfig,
        training: TrainingConfig,
        initial: SavedModel | None = None,
    ) -> None:
        """Seed torch, and build the network and the windows."""
        self.corpus = corpus
        self.device = choose_device(training.device)
        self.dtype: str = training.dtype
        self._clip_norm, self._clip_value = training.clip_norm, training.clip_value
        torch.manual_seed(training.seed)
        members = [
            CharNetwork(
                replace(model, members=1),
                dropout=training.dropout,
                input_dropout=training.input_dropout,
                recurrent_dropout=training.recurrent_dropout,
                generator=_fresh_generator(self.device),
            ).to(self.device)
            for _ in range(model.members)
        ]
        self.network = Ensemble(members)
        """Each member learns for itself; the ensemble is evaluated and saved."""
        if initial is not None:
            fresh = self.network.export_weights()
            self.network.import_weights(transfer_weights(initial, corpus.vocabulary, fresh))
        self._optimizers = [build_optimizers(member, training) for member in members]
        self._workers = Workers(model.members, self.device)
        self.windows = _training_windows(corpus, training)
        self.state: NetworkState = self.network.initial_state(self.windows.batch_size)
        """Carried from window to window, detached."""
        self.meter = Meter(self.device)
        """Training loss since the last evaluation, the latest steps most."""

    def settle_dtype(self) -> None:
        """Replace the precision `auto` by the one that suits the machine."""
        if self.dtype == "auto":
            self.dtype = choose_dtype(self.device, self.network.config.hidden_size)

    def take_step(self, rate_factor: float) -> tuple[Tensor, int]:
        """Read one window, update the weights, and return the summed loss and its count.

        The loss of an ensemble is the mean of its members'.

        Args:
            rate_factor: learning rates as a share of their peaks.

        Raises:
            CorpusError: another program has cut the encoded text short.
        """
        self._require_whole_text()
        window = self.windows.next_window()

        def learn(
            member: CharNetwork, optimizers: list[Optimizer], state: NetworkState
        ) -> tuple[Tensor, NetworkState]:
            return self._learn(member, optimizers, rate_factor, window, state)

        outcomes = self._workers.map(learn, self.network.members, self._optimizers, self.state)
        self.state = [state for _, state in outcomes]
        loss = torch.stack([loss for loss, _ in outcomes]).mean()
        self.meter.add(loss, window.n_targets)
        return loss, window.n_targets

    def _learn(
        self,
        member: CharNetwork,
        optimizers: list[Optimizer],
        rate_factor: float,
        window: Window,
        state: NetworkState,
    ) -> tuple[Tensor, NetworkState]:
        """Update one member's weights; return the summed loss and the state to carry on."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate_factor
        loss, state = window_loss(member, window, state, self.device, self.dtype)
        torch.autograd.backward(loss / window.n_targets)
        parameters = list(member.parameters())
        if self._clip_value:
            nn.utils.clip_grad_value_(parameters, self._clip_value)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach().double(), detach(state)

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those of all members."""
        return [optimizer for optimizers in self._optimizers for optimizer in optimizers]

    @property
    def _muons(self) -> list[Muon]:
        return [optimizer for optimizer in self.optimizers if isinstance(optimizer, Muon)]

    @property
    def generators(self) -> list[torch.Generator]:
        """Of the members' dropout masks."""
        return [m.generator for m in self.network.members if m.generator is not None]

    @property
    def learning_rate(self) -> float:
        """AdamW's learning rate in the last step."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def measure(
        self, *, validation: bool, temperature: float | None = 1.0, limit: int | None = None
    ) -> Measured:
        """Return the loss on one part of the corpus, in nats per character.

        Neither weights nor random generators change.

        Args:
            validation: read the validation text, or else the training text.
            temperature: divides the logits; None for the one that fits the text best.
            limit: stop after this number of characters.
        """
        windows = corpus_windows(self.corpus, validation=validation, limit=limit)
        return measure(
            self.network, self._watched(windows), self.device, self.dtype, temperature=temperature
        )

    def _watched(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yield windows, each read from a text that is still whole."""
        self._require_whole_text()
        for window in windows:
            yield window
            self._require_whole_text()

    def _require_whole_text(self) -> None:
        """See that the mapped files are as long as they were: reading beyond an end is fatal.

        Raises:
            CorpusError: one is not.
        """
        documents = self.corpus.documents
        for array in (self.corpus.ids, None if documents is None else documents.ends):
            mapping = getattr(array, "_mmap", None)
            if mapping is not None and mapping.size() < len(mapping):
                raise CorpusError(
                    f"another program has cut {array.filename} short: the models saved so far "  # type: ignore[union-attr]
                    "are sound; start a new run"
                )

    @property
    def is_sound(self) -> bool:
        """False if a weight is no number, or too large for a model file."""
        return all(bool((p.abs() <= MAX_WEIGHT).all()) for p in self.network.parameters())

    def to_record(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the arrays, as JSON values."""
        return {
            "dtype": self.dtype,
            "meter": self.meter.state(),
            "muon_steps": [muon.steps for muon in self._muons],
            "windows": self.windows.state_dict(),
        }

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Restore what `to_record` returned.

        Raises:
            LookupError, TypeError, ValueError: it does not fit.
        """
        self.dtype = record["dtype"]
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError("its dtype is none")
        self.meter.load(listed(record["meter"], most=2))
        for muon, steps in zip(self._muons, listed(record["muon_steps"]), strict=True):
            muon.steps = whole(steps)
        self.windows.load_state_dict(record["windows"])


def _fresh_generator(device: torch.device) -> torch.Generator:
    """Return a generator seeded by torch's current one."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


def _training_windows(corpus: Corpus, training: TrainingConfig) -> TextBatches | DocumentBatches:
    """Return the training windows that suit the corpus, smaller than asked for if it is short."""
    batch_size, bptt = fit_window(corpus.n_train, training.batch_size, training.bptt)
    documents = corpus.documents
    if documents is None:
        return TextBatches(
            corpus.train_ids,
            newline_id=corpus.newline_id,
            batch_size=batch_size,
            bptt=bptt,
            unknown_rate=training.unknown_rate,
            seed=training.seed,
        )
    return DocumentBatches(
        corpus.ids,
        blocks=documents.blocks(),
        spans=lambda block: documents.spans(block, validation=False),
        n_ids=corpus.n_train,
        batch_size=batch_size,
        bptt=bptt,
        unknown_rate=training.unknown_rate,
        seed=training.seed,
    )
