"""Many samples at once on a device: ids, states and filters stay there.

The order of the filters is that of `charrnn.sampling.picker`, and number n of a sample the one of
`charrnn.rng`, in 24 bits. Everything is float32, so a text may differ from that of the NumPy engine
where a random number falls within the rounding between two characters.

A block of steps is drawn without asking the device. Then its ids are copied to the host, where the
writers find the texts that have ended: each gives its row to the next request, and is taken out of
the batch when none is left. What a row has drawn beyond its end is dropped.

Shapes: B streams being drawn, S steps of a block, V ids, L ids that a stream has drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.config import SamplingConfig
from charrnn.engine.network import require_finite
from charrnn.models.device import told_what_it_lacks
from charrnn.models.network import select_rows
from charrnn.models.runner import Runner, chosen_logprobs
from charrnn.rng import GAMMA, MIX_1, MIX_2, stream_keys
from charrnn.sampling.batch import in_order
from charrnn.sampling.writer import Request, Sample, Writer, is_watchful, new_writer
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, FOLLOWERS, UNK_ID, Vocabulary

ROWS, BLOCK = 4096, 32
"""Most streams side by side, and most steps of a block."""
LEAST = 1e-30
"""A lower temperature draws what this one does; dividing by it could overflow."""
UTF8_STATES = (b"", b"\xc3", b"\xe1", b"\xf1", b"\xe0", b"\xed", b"\xf0", b"\xf4")
"""Beginnings of characters, one for each set of ways to continue: between characters; one, two or
three more bytes of any kind; and after the four first bytes that restrict the second (RFC 3629)."""


def sample_on(
    runner: Runner,
    vocabulary: Vocabulary,
    requests: Iterable[Request],
    config: SamplingConfig,
    *,
    batch_size: int = ROWS,
) -> Iterator[Sample]:
    """Draw all requests on a device and yield the samples in the order of the requests.

    Args:
        runner: the network on its device.
        vocabulary: its characters.
        requests: what to draw; each is taken when there is a row for it.
        config: as for `charrnn.sampling.stream.Stream`.
        batch_size: most streams drawn side by side.

    Raises:
        ConfigError: the device has too little memory, or lacks an operator.
        ModelFileError: the model gives no probabilities.
    """
    waiting = iter(requests)
    first = list(islice(waiting, batch_size))
    if first:
        with told_what_it_lacks(runner.device):
            yield from in_order(_Batch(runner, vocabulary, first, waiting, config).run())


class _Row:
    """What the host knows of a stream.

    Attributes:
        number: of the request.
        drawn: ids so far.
        text: what the writer has made of them.
        ids: those that the writer has not seen, `[S]` of each block.
        logprobs: under the model and under what was drawn from, `[2, S]` of each block.
    """

    def __init__(self, number: int, writer: Writer) -> None:
        self.number = number
        self.writer = writer
        self.drawn = 0
        self.text: list[str] = []
        self.ids: list[NDArray[np.int64]] = []
        self.logprobs: list[NDArray[np.float32]] = []


class _Batch:
    """The rows being drawn; `_rows` has None for one that nobody needs any more.

    There are always two rows at least: the cumulative sum of a single one is not the same each
    time on CUDA.
    """

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        first: list[Request],
        waiting: Iterator[Request],
        config: SamplingConfig,
    ) -> None:
        """Give each of the first requests a row; the others wait until one is free."""
        self._runner = runner
        self._vocabulary = vocabulary
        self._waiting = waiting
        self._config = config
        self._is_watchful = is_watchful(vocabulary, config)
        self._next = 0
        B, device = max(2, len(first)), runner.device
        self._rows: list[_Row | None] = [None] * B
        self._parts = runner.initial_state(B).parts
        self._logits_BV = torch.zeros(B, len(vocabulary), device=device)
        self._temperature_B1 = torch.ones(B, 1, device=device)
        self._keys_B = torch.zeros(B, dtype=torch.int64, device=device)
        self._drawn_B = torch.zeros(B, dtype=torch.int64, device=device)
        self._written_B = torch.zeros(B, dtype=torch.int64, device=device)
        self._ids_V = torch.arange(len(vocabulary), device=device)
        self._utf8 = Utf8(runner, vocabulary, B) if vocabulary.unit == "byte" else None
        self._repeats = Repeats(runner, config.no_repeat, B) if config.no_repeat else None
        self._begin(list(range(len(first))), first)

    def _begin(self, rows: list[int], requests: list[Request]) -> None:
        """Put requests into rows."""
        for row, request in zip(rows, requests, strict=True):
            writer = new_writer(self._vocabulary, request, self._config)
            self._rows[row] = _Row(self._next, writer)
            self._next += 1
        placed = self._runner.placed
        starts = {id(request.start): request.start for request in requests}
        places = {key: k for k, key in enumerate(starts)}
        which = placed(np.array([places[id(request.start)] for request in requests]))
        where = placed(np.array(rows))
        parts = self._runner.after_prompts([start.state for start in starts.values()])
        logits = placed(np.stack([start.logits for start in starts.values()]).astype(np.float32))
        temperature = np.array([[request.temperature] for request in requests], np.float32)
        keys = stream_keys(self._config.seed, [request.index for request in requests])
        self._logits_BV = self._logits_BV.index_copy(0, where, logits.index_select(0, which))
        self._temperature_B1 = self._temperature_B1.index_copy(0, where, placed(temperature))
        self._keys_B = self._keys_B.index_copy(0, where, placed(keys.view(np.int64)))
        self._parts = [
            [
                tuple(
                    mine.index_copy(0, where, its.index_select(0, which))
                    for mine, its in zip(layer, other, strict=True)
                )
                for layer, other in zip(member, others, strict=True)
            ]
            for member, others in zip(self._parts, parts, strict=True)
        ]
        self._drawn_B = self._drawn_B.index_fill(0, where, 0)
        self._written_B = self._written_B.index_fill(0, where, 0)
        if self._utf8 is not None:
            self._utf8.restart(where)

    def run(self) -> Iterator[tuple[int, Sample]]:
        """Yield (number of the request, sample) as the streams end, block by block."""
        while any(self._rows):
            left = max(
                self._config.length - (row.writer.written if self._is_watchful else row.drawn)
                for row in self._rows
                if row is not None
            )
            ids_SB, logprobs_2SB = self._draw(min(BLOCK, left))
            ended = self._take(ids_SB, logprobs_2SB)
            for number in ended:
                row = self._rows[number]
                assert row is not None
                self._rows[number] = None
                yield row.number, self._finish(row)
            self._replace(ended)

    @torch.no_grad()
    def _draw(self, steps: int) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """Draw a block; return its ids `[S, B]`, and log-probabilities `[2, S, B]` if asked for.

        An id is -1 where the largest logit was not finite.
        """
        ids, tops, logprobs = [], [], []
        if self._repeats is not None:
            self._repeats.reserve(steps + max(row.drawn for row in self._rows if row is not None))
        for _ in range(steps):
            raw_BV = self._logits_BV
            logits_BV = self._allowed(raw_BV)
            top_B1 = logits_BV.amax(-1, keepdim=True)
            scaled_BV = (logits_BV - top_B1) / self._temperature_B1.clamp_min(LEAST)
            scaled_BV = narrowed(scaled_BV, self._config)
            best_B, is_greedy_B = logits_BV.argmax(-1), self._temperature_B1[:, 0] == 0
            uniform_B = uniforms(self._keys_B, self._drawn_B)
            chosen_B = torch.where(is_greedy_B, best_B, picked(scaled_BV, uniform_B, best_B))
            if self._config.logprobs:
                drawn_from = torch.where(is_greedy_B, 0.0, chosen_logprobs(scaled_BV, chosen_B))
                logprobs.append(torch.stack([chosen_logprobs(raw_BV, chosen_B), drawn_from]))
            ids.append(chosen_B)
            tops.append(top_B1[:, 0])
            if self._repeats is not None:
                self._repeats.add(chosen_B, self._drawn_B)
            whole_B = self._utf8.add(chosen_B) if self._utf8 is not None else 1
            self._drawn_B = self._drawn_B + 1
            self._written_B = self._written_B + whole_B
            self._logits_BV, self._parts = self._runner.step(chosen_B, self._parts)
        ids_SB = torch.stack(ids).where(torch.stack(tops).isfinite(), -1).cpu().numpy()
        return ids_SB, torch.stack(logprobs, 1).cpu().numpy() if logprobs else None

    def _allowed(self, logits_BV: Tensor) -> Tensor:
        """Return logits with what must not come next at -inf; see `Picker.forbid`."""
        never_BV = (self._ids_V == UNK_ID).expand_as(logits_BV)
        if self._config.min_length:
            is_early_B = self._written_B < self._config.min_length
            never_BV = never_BV | (is_early_B[:, None] & (self._ids_V == EOS_ID))
        if self._utf8 is not None:
            never_BV = never_BV | self._utf8.banned()
        logits_BV = logits_BV.masked_fill(never_BV, -math.inf)
        if self._repeats is None:
            return logits_BV
        is_inside_B = None if self._utf8 is None else self._utf8.is_inside()
        return self._repeats.removed(logits_BV, self._drawn_B, is_inside_B)

    def _take(self, ids_SB: NDArray[np.int64], logprobs: NDArray[np.float32] | None) -> list[int]:
        """Give each row its ids; return the rows that have ended.

        Raises:
            ModelFileError: before its end, a text was drawn from logits that are not finite.
        """
        steps, has_eos = len(ids_SB), (ids_SB == EOS_ID).any(0).tolist()
        sound_B = np.where((ids_SB < 0).any(0), (ids_SB < 0).argmax(0), steps).tolist()
        ended = []
        for number, row in enumerate(self._rows):
            if row is None:
                continue
            ids = ids_SB[:, number]
            if sound_B[number] < steps:
                ids = ids[: sound_B[number]]
                has_eos[number] = EOS_ID in ids
            row.drawn += len(ids)
            if logprobs is not None:
                row.logprobs.append(logprobs[:, :, number])
            if self._is_watchful:
                row.text.append(row.writer.take(ids))
                is_over = row.writer.stop_reason is not None
            else:  # the writer sees the ids when the text has ended
                row.ids.append(ids)
                is_over = has_eos[number] or row.drawn >= self._config.length
            if is_over:
                ended.append(number)
            elif len(ids) < steps:
                require_finite(math.nan)
        return ended

    def _finish(self, row: _Row) -> Sample:
        if row.ids:
            row.text.append(row.writer.take(np.concatenate(row.ids)))
        if row.logprobs:
            both = np.concatenate(row.logprobs, 1).astype(np.float64)
            row.writer.logprobs, row.writer.sampling_logprobs = both.tolist()
        return row.writer.finish("".join(row.text))

    def _replace(self, ended: list[int]) -> None:
        """Give ended rows to waiting requests, and take out those for which there is none."""
        requests = list(islice(self._waiting, len(ended)))
        if requests:
            self._begin(ended[: len(requests)], requests)
        kept = [number for number, row in enumerate(self._rows) if row is not None]
        if len(kept) == len(self._rows) or not kept:
            return
        if len(kept) == 1:
            kept.append((kept[0] + 1) % len(self._rows))
        if len(kept) == len(self._rows):
            return
        keep = self._runner.placed(np.array(kept))
        self._rows = [self._rows[number] for number in kept]
        self._parts = select_rows(self._parts, keep)
        self._logits_BV = self._logits_BV.index_select(0, keep)
        self._temperature_B1 = self._temperature_B1.index_select(0, keep)
        self._keys_B = self._keys_B.index_select(0, keep)
        self._drawn_B = self._drawn_B.index_select(0, keep)
        self._written_B = self._written_B.index_select(0, keep)
        for part in (self._utf8, self._repeats):
            if part is not None:
                part.keep(keep)


class Utf8:
    """Which bytes may follow in each row, as a table of states."""

    def __init__(self, runner: Runner, vocabulary: Vocabulary, rows: int) -> None:
        """Begin between characters."""
        n_states, n_ids = len(UTF8_STATES), len(vocabulary)
        banned_UV = np.zeros((n_states, n_ids), bool)
        next_UV = np.zeros((n_states, n_ids), np.int64)
        for number, begun in enumerate(UTF8_STATES):
            decoder = vocabulary.decoder()
            for byte in begun:
                decoder.feed(byte + FIRST_CHARACTER_ID)
            banned_UV[number, list(decoder.banned())] = True
            for byte in range(256):
                next_UV[number, byte + FIRST_CHARACTER_ID] = _after(begun, byte)
        self._banned_UV = runner.placed(banned_UV)
        self._next_UV = runner.placed(next_UV)
        self._state_B = torch.zeros(rows, dtype=torch.int64, device=runner.device)

    def restart(self, rows: Tensor) -> None:
        """Begin between characters in some rows."""
        self._state_B = self._state_B.index_fill(0, rows, 0)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self._state_B = self._state_B.index_select(0, rows)

    def banned(self) -> Tensor:
        """Return the ids `[B, V]` that would break a character off, or begin an impossible one."""
        return self._banned_UV.index_select(0, self._state_B)

    def is_inside(self) -> Tensor:
        """Return which rows are inside a character, `[B]`."""
        return self._state_B > 0

    def add(self, ids_B: Tensor) -> Tensor:
        """Take the ids drawn; return 1 for rows in which a character is whole now, 0 elsewhere."""
        next_BV = self._next_UV.index_select(0, self._state_B)
        self._state_B = next_BV.gather(1, ids_B[:, None])[:, 0]
        return ((self._state_B == 0) & (ids_B != EOS_ID)).long()


def _after(begun: bytes, byte: int) -> int:
    """Return the number of the state after a byte that may come, in `UTF8_STATES`."""
    if begun:  # the states of one, two and three more bytes of any kind have these numbers
        return FOLLOWERS[begun[0]] - len(begun)
    first = bytes([byte])
    return UTF8_STATES.index(first) if first in UTF8_STATES else FOLLOWERS.get(byte, 0)


class Repeats:
    """The ids of each row, to forbid N-grams that it has written before.

    The ids before the last one of an N-gram are known by a rolling hash (Karp and Rabin 1987) in 64
    bits, which wrap around; each place has the hash of the ids before it.
    """

    def __init__(self, runner: Runner, n: int, rows: int) -> None:
        """Watch N-grams of `n` ids."""
        self._context = n - 1
        self._weight = _signed(pow(BASE, self._context, 1 << 64))
        self._places_L = torch.arange(BLOCK, device=runner.device)
        self._ids_BL = torch.zeros(rows, BLOCK, dtype=torch.int64, device=runner.device)
        self._hashes_BL = torch.zeros_like(self._ids_BL)
        self._hash_B = torch.zeros(rows, dtype=torch.int64, device=runner.device)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self._ids_BL, self._hashes_BL = (
            self._ids_BL.index_select(0, rows),
            self._hashes_BL.index_select(0, rows),
        )
        self._hash_B = self._hash_B.index_select(0, rows)

    def reserve(self, n_ids: int) -> None:
        """Make room for rows of this length."""
        while n_ids > len(self._places_L):
            self._ids_BL = torch.cat([self._ids_BL, torch.zeros_like(self._ids_BL)], 1)
            self._hashes_BL = torch.cat([self._hashes_BL, torch.zeros_like(self._hashes_BL)], 1)
            self._places_L = torch.arange(self._ids_BL.shape[1], device=self._ids_BL.device)

    def removed(self, logits_BV: Tensor, drawn_B: Tensor, is_inside_B: Tensor | None) -> Tensor:
        """Return logits with the ids that would repeat an N-gram at -inf.

        A ban that would leave nothing is dropped; inside a character there is none.
        """
        is_before_BL = (self._places_L < drawn_B[:, None]) & (self._places_L >= self._context)
        is_same_BL = is_before_BL & (self._hashes_BL == self._hash_B[:, None])
        counts_BV = torch.zeros_like(logits_BV).scatter_add(1, self._ids_BL, is_same_BL.float())
        is_banned_BV = (counts_BV > 0) & (drawn_B >= self._context)[:, None]
        if is_inside_B is not None:
            is_banned_BV = is_banned_BV & ~is_inside_B[:, None]
        left_BV = logits_BV.masked_fill(is_banned_BV, -math.inf)
        is_empty_B = left_BV.amax(-1) == -math.inf
        return torch.where(is_empty_B[:, None], logits_BV, left_BV)

    def add(self, ids_B: Tensor, drawn_B: Tensor) -> None:
        """Take the ids drawn, of which each row has drawn some before."""
        # a row that nobody needs may have drawn more than there is room for
        place_B1 = drawn_B[:, None].clamp_max(len(self._places_L) - 1)
        self._hash_B = torch.where(drawn_B == 0, 0, self._hash_B)
        self._hashes_BL = self._hashes_BL.scatter(1, place_B1, self._hash_B[:, None])
        self._ids_BL = self._ids_BL.scatter(1, place_B1, ids_B[:, None])
        first_B1 = (place_B1 - self._context).clamp_min(0)
        leaving_B = self._ids_BL.gather(1, first_B1)[:, 0] + 1
        leaving_B = torch.where(drawn_B >= self._context, leaving_B, 0)
        self._hash_B = self._hash_B * BASE + ids_B + 1 - leaving_B * self._weight


def narrowed(scaled_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Apply top-k, top-p and min-p to scaled logits, the largest 0; see `sampling.picker`."""
    if 0 < config.top_k < scaled_BV.shape[1] or config.top_p < 1:
        ordered_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
        rank_V = torch.arange(scaled_BV.shape[1], device=scaled_BV.device)
        if config.top_k:
            ordered_BV = ordered_BV.masked_fill(rank_V >= config.top_k, -math.inf)
        if config.top_p < 1:
            p_BV = ordered_BV.softmax(-1)
            is_dropped_BV = (p_BV.cumsum(-1) - p_BV >= config.top_p) & (rank_V > 0)
            ordered_BV = ordered_BV.masked_fill(is_dropped_BV, -math.inf)
        scaled_BV = torch.zeros_like(scaled_BV).scatter(1, order_BV, ordered_BV)
    if config.min_p:
        scaled_BV = scaled_BV.masked_fill(scaled_BV < math.log(config.min_p), -math.inf)
    return scaled_BV


def picked(scaled_BV: Tensor, uniform_B: Tensor, best_B: Tensor) -> Tensor:
    """Return the first ids whose cumulative probability exceeds a number in [0, 1).

    Sums that are rounded in parallel may rise where the probability is 0: such an id is not taken.
    Where none is left, it is the best one.
    """
    p_BV = scaled_BV.exp()
    sums_BV = p_BV.cumsum(-1)
    is_beyond_BV = (sums_BV > uniform_B[:, None] * sums_BV[:, -1:]) & (p_BV > 0)
    return torch.where(is_beyond_BV.any(-1), is_beyond_BV.float().argmax(-1), best_B)


def uniforms(keys_B: Tensor, positions_B: Tensor) -> Tensor:
    """Return numbers in [0, 1): the first 24 bits of those of `charrnn.rng.uniforms`."""
    z = keys_B + (positions_B + 1) * _signed(int(GAMMA))
    z = (z ^ _shifted(z, 30)) * _signed(int(MIX_1))
    z = (z ^ _shifted(z, 27)) * _signed(int(MIX_2))
    return _shifted(z ^ _shifted(z, 31), 40).float() * 2.0**-24


def _shifted(words: Tensor, n: int) -> Tensor:
    """Shift 64 bits to the right; torch would draw the sign after them."""
    return (words >> n) & ((1 << (64 - n)) - 1)


def _signed(word: int) -> int:
    """Return 64 bits as the number that torch takes them for."""
    return word - (1 << 64) if word >> 63 else word


BASE = _signed(int(GAMMA))
