"""A network that learns: its optimisers, its windows of text and the state carried between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from charrnn.batches.documents import DocumentBatches
from charrnn.batches.windows import Share, TextBatches, Window, fit_window, from_both_sides
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus.corpus import Corpus
from charrnn.errors import CorpusError, RunError
from charrnn.models.device import is_out_of_memory
from charrnn.models.network import (
    Ensemble,
    Member,
    NetworkState,
    build_member,
    detach,
    transfer_weights,
)
from charrnn.storage.model_file import MAX_WEIGHT, SavedModel
from charrnn.training.distributed import ALONE, Group, merged
from charrnn.training.loss import (
    Measured,
    Meter,
    PlacedWindow,
    corpus_windows,
    measure,
    placed,
    text_on,
    window_loss,
)
from charrnn.training.optimizers import Muon, build_optimizers
from charrnn.training.records import listed, real, whole
from charrnn.training.system import Workers, choose_dtype, has_room_for_text


class Learner:
    """Takes steps of truncated backpropagation through time, and measures the outcome.

    Args:
        corpus: encoded text.
        model: shape of the network.
        training: how to train.
        initial: a trained model to begin from; see `transfer_weights`.
        group: the processes that train together. Each trains ensemble members of its own, if they
            can be shared out evenly, so that no gradient is sent; else all, on rows of its own.

    Raises:
        ConfigError: the device asked for is not here.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: ModelConfig,
        training: TrainingConfig,
        initial: SavedModel | None = None,
        group: Group = ALONE,
    ) -> None:
        """Seed torch, and build the network and the windows."""
        self.corpus = corpus
        self.group = group
        self.by_members = group.size > 1 and model.members % group.size == 0
        """Each process trains members of its own on all rows; else all members on its own rows."""
        self.device = group.device(training.device)
        self.dtype: str = training.dtype
        self._training = training
        self._clip_norm, self._clip_value = training.clip_norm, training.clip_value
        torch.manual_seed(training.seed)
        members = [
            build_member(
                model,
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
        first, step = (group.rank, group.size) if self.by_members else (0, 1)
        self.own = range(first, model.members, step)
        """Numbers of the members that this process trains."""
        self._scalers = {member: GradScaler(self.device.type, enabled=False) for member in members}
        """Of the losses in float16; in other precisions they change nothing."""
        self._workers = Workers(len(self.own), self.device)
        text = corpus.ids if corpus.documents is not None else corpus.train_ids
        is_there = not model.bidirectional and has_room_for_text(self.device, text.nbytes)
        self._text_N = text_on(self.device, text) if is_there else None
        """The encoded text, where the device has room for it; the rows of a bidirectional network
        are laid out on the host."""
        self.windows = self._windows()
        self.state: NetworkState = self._fresh_state()
        """Of the rows of this process, carried from window to window, detached."""
        self.separate_generators()
        self.meter = Meter()
        """Training loss since the last evaluation, the latest steps most."""

    @property
    def _share(self) -> Share:
        """The batch rows of this process."""
        return Share() if self.by_members else self.group.share

    def _windows(self) -> TextBatches | DocumentBatches:
        on_device = self._text_N is not None
        return _training_windows(self.corpus, self._training, self._share, on_device=on_device)

    def settle_dtype(self) -> None:
        """Replace the precision `auto` by the one that suits the machine of process 0."""
        if self.dtype == "auto":
            self.dtype = choose_dtype(self.device, self.network.config.hidden_size)
        self._take_dtype(self.group.agree(self.dtype))

    def _take_dtype(self, dtype: str) -> None:
        self.dtype = dtype
        if dtype == "float16":
            self._scalers = {member: GradScaler(self.device.type) for member in self._scalers}

    def halve_rows(self) -> TrainingConfig:
        """Read half as many batch rows from now on, and return the settings that say so.

        The rows begin anew, at other places of the text.
        """
        self._training = replace(self._training, batch_size=max(1, self.windows.batch_size // 2))
        served, self.windows = self.windows.served, self._windows()
        self.windows.served = served
        self.state = self._fresh_state()
        return self._training

    def _fresh_state(self) -> NetworkState:
        """Return the state with which the rows of this process begin."""
        return self.network.initial_state(int((self.windows.readers_A == self._share.rank).sum()))

    @torch.no_grad()
    def exchange_weights(self, *, are_first: bool = False) -> None:
        """Give every process the weights of all members.

        Args:
            are_first: those of process 0, before the first step; later, where each process trains
                rows, all have the same anyway.
        """
        if self.group.size == 1 or not (are_first or self.by_members):
            return
        for k, member in enumerate(self.network.members):
            flat = nn.utils.parameters_to_vector(member.parameters())
            self.group.send(flat, 0 if are_first else k % self.group.size)
            nn.utils.vector_to_parameters(flat, member.parameters())

    def separate_generators(self) -> None:
        """Let the rows of each process have dropout masks of their own."""
        if self.by_members or not self.group.rank:
            return
        for generator in self.generators:
            drawn = torch.randint(2**62, (), generator=generator, device=generator.device)
            generator.manual_seed(int(drawn) + self.group.rank)

    def take_step(self, rate_factor: float) -> tuple[Tensor, int]:
        """Read one window, update the weights, and return the summed loss and its count.

        The loss of an ensemble is the mean of its members'.

        Args:
            rate_factor: learning rates as a share of their peaks.

        Raises:
            CorpusError: another program has cut the encoded text short.
            RunError: the carried state of a resumed run is of other rows.
            torch.OutOfMemoryError: this process has too little memory for the step. The others do
                not know yet, and must be told before the next one.
        """
        self._require_whole_text()
        window = self._as_read(self.windows.next_window())
        self._require_state_of(window)
        there = placed(window, self.device, self._text_N)

        def learn(
            member: Member, optimizers: list[Optimizer], state: NetworkState
        ) -> tuple[Tensor, NetworkState]:
            outcome = self._backward(member, there, window.n_targets, state)
            if not is_shared:
                self._update(member, optimizers, rate_factor)
            return outcome

        is_shared = self.group.size > 1 and not self.by_members
        members = [self.network.members[k] for k in self.own]
        optimizers = [self._optimizers[k] for k in self.own]
        states = [self.state[k] for k in self.own]
        outcomes = None
        try:
            outcomes = self._workers.map(learn, members, optimizers, states)
        except RuntimeError as error:
            if self.group.size == 1 or not is_out_of_memory(error):
                raise
        if outcomes is None:  # the error, which kept the tensors of the step, has gone
            self._sit_out(is_shared=is_shared)
            raise torch.cuda.OutOfMemoryError("a step needs more memory than the device has")
        for k, (_, state) in zip(self.own, outcomes, strict=True):
            self.state[k] = state
        losses_M = torch.stack([loss for loss, _ in outcomes])
        if is_shared:
            losses_M = self._add_up(losses_M)
            self._workers.map(
                lambda member, mine: self._update(member, mine, rate_factor), members, optimizers
            )
        loss = losses_M.mean()
        if self.by_members:
            self.group.add(loss)
            loss /= self.group.size
        self.meter.add(loss, window.n_targets)
        return loss, window.n_targets

    def _sit_out(self, *, is_shared: bool) -> None:
        """Add nothing to the sums of a step: the others wait for them."""
        nothing_M = torch.zeros(len(self.own), device=self.device)
        if not is_shared:
            self.group.add(nothing_M.mean())
            return
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._add_up(nothing_M)

    def _require_state_of(self, window: Window) -> None:
        """See that the carried state has the rows that a window continues.

        Raises:
            RunError: it has others, as only a damaged resume state can have.
        """
        if window.stateless or not window.keep_B.any():
            return
        n_rows = len(self.state[self.own[0]][0][0])
        if window.rows_B is None:
            fits = n_rows == len(window.inputs_BT)
        else:
            fits = window.rows_B.max(initial=-1) < n_rows
        if not fits:
            raise RunError(
                "the resume state is damaged, its carried state is of other rows than the text: "
                "begin a new run"
            )

    def _add_up(self, losses_M: Tensor) -> Tensor:
        """Sum the gradients over all processes, and return the sums of the losses.

        All are sent as one array: many small ones would take longer.
        """
        parameters = list(self.network.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), losses_M])
        self.group.add(flat)
        *sums, losses_M = torch.split(flat, [*(p.numel() for p in parameters), len(losses_M)])
        for parameter, part in zip(parameters, sums, strict=True):
            parameter.grad = part.view_as(parameter)
        return losses_M

    def _backward(
        self, member: Member, window: PlacedWindow, n_targets: int, state: NetworkState
    ) -> tuple[Tensor, NetworkState]:
        """Compute one member's gradients; return the summed loss and the state to carry on."""
        member.zero_grad(set_to_none=True)
        if not len(window.inputs_BT):  # more processes than rows
            for parameter in member.parameters():
                parameter.grad = torch.zeros_like(parameter)
            nothing = torch.zeros((), device=self.device)
            return nothing, state if window.stateless else member.initial_state(0)
        loss, state = window_loss(member, window, state, self.device, self.dtype)
        torch.autograd.backward(self._scalers[member].scale(loss / n_targets))
        return loss.detach(), detach(state)

    def _update(self, member: Member, optimizers: list[Optimizer], rate_factor: float) -> None:
        """Update one member's weights by its gradients."""
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate_factor
        scaler = self._scalers[member]
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        parameters = list(member.parameters())
        if self._clip_value:
            nn.utils.clip_grad_value_(parameters, self._clip_value)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()

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
        windows = corpus_windows(
            self.corpus, validation=validation, limit=limit, share=self.group.share
        )
        measured = measure(
            self.network,
            self._watched(windows),
            self.device,
            self.dtype,
            temperature=temperature,
            sums=self.group.sums,
        )
        return self.group.agree(measured)

    def _watched(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yield windows, each read from a text that is still whole."""
        self._require_whole_text()
        for window in windows:
            yield self._as_read(window)
            self._require_whole_text()

    def _as_read(self, window: Window) -> Window:
        """Return a window as the network reads it, from one side or from both."""
        return from_both_sides(window) if self.network.config.bidirectional else window

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
        sound = [(p.abs() <= MAX_WEIGHT).all() for p in self.network.parameters()]
        return bool(torch.stack(sound).all())  # asks the device once

    def to_record(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the arrays, as JSON values.

        All processes call it: of a member, the one that trains it knows how its loss is scaled.
        """
        scalers = [self._scalers[member] for member in self.network.members]
        own = {k: scalers[k].state_dict() for k in self.own if scalers[k].is_enabled()}
        known = merged(self.group.gather(own) if self.dtype == "float16" else [])
        scales = [known[k] for k in sorted(known)]
        return {
            **({"scales": scales} if scales else {}),
            "dtype": self.dtype,
            "meter": self.meter.state(),
            # other processes have taken the steps of their members
            "muon_steps": [max((muon.steps for muon in self._muons), default=0)] * len(self._muons),
            "windows": self.windows.state_dict(),
        }

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Restore what `to_record` returned.

        Raises:
            LookupError, TypeError, ValueError: it does not fit.
        """
        if record["dtype"] not in ("float32", "bfloat16", "float16"):
            raise ValueError("its dtype is none")
        self._take_dtype(record["dtype"])
        if self.dtype == "float16":
            scales = listed(record["scales"])
            for scaler, scale in zip(self._scalers.values(), scales, strict=True):
                values = {"scale": real(scale["scale"])}
                values["_growth_tracker"] = whole(scale["_growth_tracker"])
                scaler.load_state_dict({**scaler.state_dict(), **values})
        self.meter.load(listed(record["meter"], most=2))
        for muon, steps in zip(self._muons, listed(record["muon_steps"]), strict=True):
            muon.steps = whole(steps)
        self.windows.load_state_dict(record["windows"])


def _fresh_generator(device: torch.device) -> torch.Generator:
    """Return a generator seeded by torch's current one."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


def _training_windows(
    corpus: Corpus, training: TrainingConfig, share: Share = Share(), *, on_device: bool = False
) -> TextBatches | DocumentBatches:
    """Return the training windows that suit the corpus, smaller than asked for if it is short.

    With `on_device` they are places only, for a device that has the text.
    """
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
            share=share,
            on_device=on_device,
        )
    return DocumentBatches(
        None if on_device else corpus.ids,
        blocks=documents.blocks(),
        spans=lambda block: documents.spans(block, validation=False),
        n_ids=corpus.n_train,
        batch_size=batch_size,
        bptt=bptt,
        unknown_rate=training.unknown_rate,
        seed=training.seed,
        share=share,
    )
