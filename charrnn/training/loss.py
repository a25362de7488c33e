"""The loss of a network on a text, and the temperature that calibrates it.

A network is overconfident on text it was not trained on. At every evaluation, the temperature that
fits the validation text best is found, and the output weights of the model that is saved are
divided by it: temperature scaling, Guo et al. 2017. So models are judged as they will be used. One
number fitted to thousands of characters leaves the validation text as good a judge as before.

Shapes: B batch rows, T characters of a window, N targets that count, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.batches.documents import document_windows
from charrnn.batches.windows import IGNORE, Share, Window, evaluation_windows
from charrnn.corpus.corpus import Corpus
from charrnn.models.device import to_device
from charrnn.models.network import (
    BothSides,
    Ensemble,
    Member,
    NetworkState,
    detach,
    select_rows,
)
from charrnn.training.records import real
from charrnn.training.system import autocast
from charrnn.vocab import EOS_ID, UNK_ID, Ids

ROWS, WINDOW, WARMUP = 64, 128, 256
"""Batch rows that read a text to measure it, their window, and the uncounted characters that each
reads before its part."""
FIT_CHARS, FIT_LOGITS = 50_000, 2**25
"""Characters that the temperature is fitted to; fewer where a large alphabet makes more logits
(128 MiB) of them."""
FIT_ROUNDS, FIT_STEP = 2, 0.1
FIT_RANGE = 0.5, 1.5
"""Of the inverse temperature."""

UPLOAD = 1 << 24
"""Ids of a text that go to the device at a time."""
LOSSES_TOGETHER = 64
"""Losses of steps that a meter keeps one by one before it joins them to one array."""

Network = Member | Ensemble
Prediction = tuple[Tensor, Tensor, NDArray[np.int64], int]
"""Logits `[N, V]` and targets `[N]` on the device, these targets `[N]` on the CPU, and how many all
processes together have."""


class PlacedWindow(NamedTuple):
    """A `Window` on the device; what the host has to know of it without asking."""

    inputs_BT: Tensor
    targets_BT: Tensor
    keep_B: Tensor | None
    """None where all rows continue, or none does."""
    rows_B: Tensor | None
    is_fresh: bool
    """All rows start from zero."""
    stateless: bool
    from_right: BothSides | None
    """What a bidirectional network reads from the right."""


@dataclass(frozen=True)
class Measured:
    """What reading a text has shown. Characters that the model does not know are read, and no
    figure counts them: nothing could be learned of them."""

    loss: float
    """Mean cross-entropy at this temperature, in nats per character; infinite where none counts."""
    temperature: float = 1.0
    """What the logits were divided by."""
    unknown_share: float = 0.0
    """Share of the characters that are unknown."""
    unigram: float = math.inf
    """Loss of the best model that knows only how often each character occurs in this text."""


class Meter:
    """A running mean that does not wait for the device: losses stay there until it is asked for.

    They are then summed in double precision on the CPU, whatever the device can do.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._sum = self._count = 0.0
        self._losses: list[Tensor] = []
        """The latest, not yet in the sum."""
        self._earlier: list[Tensor | None] = []
        """Before them: many at a time, and None where what came before began to count half."""

    def add(self, loss: Tensor, count: int) -> None:
        """Take a summed loss and the number of characters in it."""
        self._losses.append(loss)
        self._count += count
        if len(self._losses) == LOSSES_TOGETHER:
            self._put_together()

    def mean(self) -> float | None:
        """Return the mean in nats per character; None if empty."""
        self._read()
        return self._sum / self._count if self._count else None

    def fade(self) -> None:
        """Let what has been added so far count half."""
        self._put_together()
        self._earlier.append(None)
        self._count *= 0.5

    def take(self) -> float | None:
        """Return the mean and start again."""
        mean = self.mean()
        self.load([0.0, 0])
        return mean

    def state(self) -> list[float]:
        """Return sum and count as JSON values."""
        self._read()
        return [self._sum, self._count]

    def load(self, state: list[float]) -> None:
        """Restore what `state` returned."""
        total, count = state
        self._sum, self._count = real(total), real(count)
        self._losses, self._earlier = [], []

    def _put_together(self) -> None:
        if self._losses:
            self._earlier.append(torch.stack(self._losses))
            self._losses = []

    def _read(self) -> None:
        """Bring the sum up to date, with one transfer."""
        self._put_together()
        losses = iter(_read([part for part in self._earlier if part is not None]))
        for part in self._earlier:
            if part is None:
                self._sum *= 0.5
            else:
                for loss in islice(losses, len(part)):  # one by one, not as `sum` rounds
                    self._sum += loss
        self._earlier = []


def window_loss(
    network: Network,
    window: Window | PlacedWindow,
    state: NetworkState,
    device: torch.device,
    dtype: str,
) -> tuple[Tensor, NetworkState]:
    """Return the summed cross-entropy of a window in nats, and the state to carry on.

    Targets marked `IGNORE` add nothing to the sum. The state returned is not detached; after a
    stateless window it is the one that was given.
    """
    there = placed(window, device) if isinstance(window, Window) else window
    logits_BTV, after = _predict(network, there, state, dtype)
    loss = F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        there.targets_BT.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, after


def corpus_windows(
    corpus: Corpus, *, validation: bool, limit: int | None = None, share: Share = Share()
) -> Iterator[Window]:
    """Yield windows that measure one part of a corpus: its text, or its documents with EOS.

    Args:
        corpus: encoded text.
        validation: the validation part, or else the training part.
        limit: stop after this number of ids.
        share: the rows of this process.
    """
    if corpus.documents is None:
        ids = corpus.val_ids if validation else corpus.train_ids
        yield from text_windows(ids, limit=limit, share=share)
        return
    left = math.inf if limit is None else limit
    for spans in corpus.documents.all_spans(validation=validation):
        lengths = np.cumsum(spans[:, 1] - spans[:, 0])
        spans = spans[: int(np.searchsorted(lengths, left)) + 1]
        yield from document_windows(corpus.ids, spans, batch_size=ROWS, bptt=WINDOW, share=share)
        left -= int(lengths[-1]) if len(lengths) else 0
        if left <= 0:
            return


def text_windows(ids: Ids, *, limit: int | None = None, share: Share = Share()) -> Iterator[Window]:
    """Return windows that measure a text, in up to `ROWS` rows that are warmed up."""
    n = len(ids) if limit is None else min(limit, len(ids))
    rows = max(1, min(ROWS, n // (2 * WARMUP)))
    return evaluation_windows(
        ids, batch_size=rows, bptt=WINDOW, warmup=WARMUP, limit=limit, share=share
    )


@torch.no_grad()
def measure(
    network: Network,
    windows: Iterable[Window],
    device: torch.device,
    dtype: str,
    *,
    temperature: float | None = 1.0,
    sums: Callable[[Sequence[float]], list[float]] = list,
) -> Measured:
    """Read a text once, without learning from it.

    Args:
        network: what to measure.
        windows: of the text.
        device: where to compute.
        dtype: precision of the products.
        temperature: divides the logits; None for the one that fits the first windows best.
        sums: adds numbers up over all processes, where each has rows of its own.
    """
    was_training = network.training
    network.eval()
    predictions = _predictions(network, windows, device, dtype)
    first: list[Prediction] = []
    if temperature is None:
        first = _first(predictions)
        temperature = fit_temperature(
            lambda trial: sums(
                [sum(_read([_loss(logits, targets, trial) for logits, targets, _, _ in first]))]
            )[0]
        )
    losses: list[Tensor] = []
    counts_V = np.zeros(network.config.vocab_size, np.int64)
    for logits_NV, targets_N, ids_N, _ in chain(first, predictions):
        losses.append(_loss(logits_NV, targets_N, temperature))
        counts_V += np.bincount(ids_N, minlength=len(counts_V))
    network.train(was_training)
    total, *counts = sums([sum(_read(losses)), *counts_V.tolist()])
    counts_V = np.array(counts)
    n_all = int(counts_V.sum())
    counts_V[UNK_ID] = 0
    count = int(counts_V.sum())
    if not count:
        return Measured(math.inf, 1.0, unknown_share=1.0)
    occurring = counts_V[counts_V > 0]
    entropy = math.log(count) - float(np.sum(occurring * np.log(occurring))) / count
    return Measured(total / count, temperature, 1 - count / n_all, entropy)


def fit_temperature(loss_at: Callable[[float], float]) -> float:
    """Return the temperature of least loss, to three digits.

    The loss is convex in the inverse temperature. Its minimum is that of the parabola through three
    points, laid a second time around the first minimum found.

    Args:
        loss_at: the loss at a temperature.
    """
    inverse = 1.0 - FIT_STEP
    for _ in range(FIT_ROUNDS):
        below, here, above = (loss_at(1 / (inverse + k * FIT_STEP)) for k in (-1, 0, 1))
        curvature = below - 2 * here + above
        if curvature <= 0:  # nearly a straight line: no minimum in sight
            return 1.0
        inverse -= FIT_STEP * (above - below) / (2 * curvature)
        inverse = min(FIT_RANGE[1], max(FIT_RANGE[0], inverse))
    return round(1 / inverse, 3)


def placed(window: Window, device: torch.device, text_N: Tensor | None = None) -> PlacedWindow:
    """Return a window with its arrays on the device.

    Args:
        window: arrays, or places in a text.
        device: where to put them.
        text_N: the ids there, from which places are read; see `text_on`.
    """
    if window.places_B3 is None:
        inputs_BT, targets_BT = (
            to_device(array, device) for array in (window.inputs_BT, window.targets_BT)
        )
    else:
        assert text_N is not None
        inputs_BT, targets_BT = _from_text(window, text_N)
    is_fresh = window.stateless or not window.keep_B.any()
    is_kept = is_fresh or bool(window.keep_B.all())
    return PlacedWindow(
        inputs_BT=inputs_BT,
        targets_BT=targets_BT,
        keep_B=None if is_kept else to_device(window.keep_B, device),
        rows_B=None if is_fresh or window.rows_B is None else to_device(window.rows_B, device),
        is_fresh=is_fresh,
        stateless=window.stateless,
        from_right=None
        if window.reversed_BT is None or window.order_BT is None
        else (to_device(window.reversed_BT, device), to_device(window.order_BT, device)),
    )


def text_on(device: torch.device, ids: Ids) -> Tensor:
    """Return a text on the device, in its own integer type; torch reads large ids as negative."""
    signed = {np.dtype(np.uint16): np.int16, np.dtype(np.uint32): np.int32}
    array = ids.view(signed.get(ids.dtype, ids.dtype))
    text_N = to_device(np.array(array[:0]), device).new_empty(len(ids))
    for begin in range(0, len(ids), UPLOAD):  # the host need not hold a text of gigabytes
        part = to_device(np.array(array[begin : begin + UPLOAD]), device)
        text_N[begin : begin + UPLOAD].copy_(part)
    return text_N


def _from_text(window: Window, text_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a window of places, as `window_of` makes them of the text."""
    assert window.places_B3 is not None
    device, (rows, width) = text_N.device, window.inputs_BT.shape
    begin_B, position_B, end_B = to_device(window.places_B3.T.copy(), device)[..., None]
    at_BT = position_B + torch.arange(width, device=device)
    bits = (1 << 8 * text_N.element_size()) - 1

    def read(at_BT: Tensor) -> Tensor:
        at_N = at_BT.clamp(0, len(text_N) - 1).flatten()
        return (text_N.index_select(0, at_N).long() & bits).view(rows, width)

    is_inside_BT = at_BT < end_B
    targets_BT = read(at_BT).where(is_inside_BT, IGNORE)
    inputs_BT = read(at_BT - 1).where(is_inside_BT & (at_BT > begin_B), EOS_ID)
    if window.hidden_N is not None and len(window.hidden_N):
        hidden_N = to_device(window.hidden_N, device)
        is_hidden_N = torch.zeros(rows * width, dtype=torch.bool, device=device)
        is_hidden_BT = is_hidden_N.index_fill(0, hidden_N, True).view(rows, width)
        inputs_BT = inputs_BT.masked_fill(is_hidden_BT & (inputs_BT != EOS_ID), UNK_ID)
    return inputs_BT, targets_BT


def _predict(
    network: Network, window: PlacedWindow, state: NetworkState, dtype: str
) -> tuple[Tensor, NetworkState]:
    """Return the logits of a window, and the state to carry on."""
    with autocast(window.inputs_BT.device, dtype):
        before = _state_before(network, window, state)
        logits_BTV, after = network(window.inputs_BT, before, window.from_right)
    return logits_BTV, state if window.stateless else after


def _state_before(network: Network, window: PlacedWindow, state: NetworkState) -> NetworkState:
    """Return the state in which each row of the window begins."""
    if window.is_fresh:
        return network.initial_state(len(window.inputs_BT))
    if window.rows_B is not None:
        state = select_rows(state, window.rows_B)
    return state if window.keep_B is None else detach(state, window.keep_B)


def _predictions(
    network: Network, windows: Iterable[Window], device: torch.device, dtype: str
) -> Iterator[Prediction]:
    """Yield the logits and the targets that count, window by window.

    Which ones count is found on the CPU: to find it on a device, the host would wait for it.
    """
    state: NetworkState = []
    for window in windows:
        if not len(window.inputs_BT):  # more processes than rows
            none_N = np.zeros(0, np.int64)
            logits_NV = torch.zeros(0, network.config.vocab_size, device=device)
            yield logits_NV, to_device(none_N, device), none_N, window.n_targets
            continue
        there = placed(window, device)
        logits_BTV, state = _predict(network, there, state, dtype)
        logits_NV, targets_N = logits_BTV.float().flatten(0, 1), there.targets_BT.flatten()
        ids_N = window.targets_BT.reshape(-1)
        if (ids_N == IGNORE).any():
            places_N = np.flatnonzero(ids_N != IGNORE)
            counted_N = to_device(places_N, device)
            logits_NV, targets_N = logits_NV[counted_N], targets_N[counted_N]
            ids_N = ids_N[places_N]
        yield logits_NV, targets_N, ids_N, window.n_targets


def _first(predictions: Iterator[Prediction]) -> list[Prediction]:
    """Take the predictions that the temperature is fitted to, the same however many share them."""
    taken, n_chars, n_logits = [], 0, 0
    for prediction in predictions:
        taken.append(prediction)
        logits_NV, _, _, n_targets = prediction
        n_chars += n_targets
        n_logits += n_targets * logits_NV.shape[1]
        if n_chars >= FIT_CHARS or n_logits >= FIT_LOGITS:
            break
    return taken


def _loss(logits_NV: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    """Return the summed cross-entropy of the known targets in nats, at a temperature."""
    return F.cross_entropy(logits_NV / temperature, targets_N, ignore_index=UNK_ID, reduction="sum")


def _read(losses: list[Tensor]) -> list[float]:
    """Return the numbers of all these tensors in their order, after one transfer."""
    values: list[float] = (
        torch.cat([loss.reshape(-1) for loss in losses]).cpu().tolist() if losses else []
    )
    return values
