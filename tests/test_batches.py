"""Training rows serve a text exactly; evaluation windows count it exactly."""

from __future__ import annotations

import itertools
import json
from unittest import mock

import numpy as np
import pytest
import reference
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.batches import windows as text_batches
from charrnn.batches.documents import DocumentBatches
from charrnn.batches.windows import (
    IGNORE,
    TextBatches,
    Window,
    evaluation_windows,
    fit_window,
    shifted,
)
from charrnn.models.network import CharNetwork
from charrnn.training.loss import window_loss
from charrnn.vocab import EOS_ID, UNK_ID

CPU = torch.device("cpu")
NEWLINE = 2
FIRST = 3


def numbered_text(n, line=None):
    """Ids that tell their position, p + FIRST; every `line`-th one is a line end instead."""
    ids = np.arange(n, dtype=np.uint32) + FIRST
    if line:
        ids[line - 1 :: line] = NEWLINE
    return ids


def place(targets):
    """Position in a numbered text of the first target; line ends never come two together."""
    return targets[0] - FIRST if targets[0] != NEWLINE else targets[1] - FIRST - 1


class Reader:
    """Follows rows window by window, checks the inputs, and collects the segments' targets."""

    def __init__(self, batches):
        self.batches = batches
        self.segments = []  # in the order in which they begin
        self.current = [None] * batches.batch_size

    def read(self):
        window = self.batches.next_window()
        assert window.inputs_BT.shape == window.targets_BT.shape
        assert window.inputs_BT.shape == (self.batches.batch_size, self.batches.bptt)
        rows = zip(window.inputs_BT.tolist(), window.targets_BT.tolist(), strict=True)
        counted = 0
        for b, (inputs, targets) in enumerate(rows):
            count = sum(t != IGNORE for t in targets)
            assert count > 0
            assert targets[count:] == [IGNORE] * (len(targets) - count)
            if window.keep_B[b] == 0:
                self.current[b] = []
                self.segments.append(self.current[b])
                assert inputs[0] == EOS_ID
            else:
                assert window.keep_B[b] == 1
                assert inputs[0] == self.current[b][-1]
            assert inputs[1:count] == targets[: count - 1]
            self.current[b] += targets[:count]
            counted += count
        assert window.n_targets == counted
        return window


@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 7),
    bptt=st.integers(1, 40),
    line=st.none() | st.integers(2, 30),
    segment=st.sampled_from([20, 4096]),
    seed=st.integers(0, 5),
)
@example(n=5, batch_size=5, bptt=1, line=3, segment=20, seed=1)
def test_each_epoch_serves_every_character_exactly_once(n, batch_size, bptt, line, segment, seed):
    batch_size, bptt = fit_window(n, batch_size, bptt)
    newline_id = NEWLINE if line else None
    ids = numbered_text(n, line)
    epochs = 3
    with mock.patch.object(text_batches, "SEGMENT", segment):
        reader = Reader(
            TextBatches(ids, newline_id=newline_id, batch_size=batch_size, bptt=bptt, seed=seed)
        )
        # long enough for every segment of the first epochs to end, even if one holds the whole text
        while reader.batches.epoch < epochs + 1 + batch_size:
            reader.read()
    begun = iter(reader.segments)
    cuts = []
    for _ in range(epochs):
        parts = []
        while sum(map(len, parts)) < n:
            parts.append(next(begun))
        parts.sort(key=lambda part: place([*part, FIRST]))
        assert [*itertools.chain(*parts)] == ids.tolist()
        cuts.append([len(part) for part in parts])
    if n > 100 and batch_size > 1 and line is None:
        assert cuts[0] != cuts[1] or cuts[1] != cuts[2]  # every epoch cuts anew


@given(line=st.integers(2, 50), seed=st.integers(0, 20))
def test_segments_begin_at_line_starts(line, seed):
    batches = TextBatches(
        numbered_text(line * 20, line), newline_id=NEWLINE, batch_size=4, bptt=16, seed=seed
    )
    reader = Reader(batches)
    while batches.epoch < 3:
        reader.read()
    assert len(reader.segments) >= 8
    assert all(place([*part, FIRST]) % line == 0 for part in reader.segments)


def test_a_text_without_line_ends_is_cut_anywhere():
    batches = TextBatches(numbered_text(1000), newline_id=None, batch_size=4, bptt=16)
    reader = Reader(batches)
    while batches.epoch < 2:
        reader.read()
    assert len({part[0] for part in reader.segments}) >= 6


def test_the_seed_decides_the_cuts():
    def first_targets(seed):
        batches = TextBatches(numbered_text(500), newline_id=None, batch_size=3, bptt=8, seed=seed)
        return [batches.next_window().targets_BT.tolist() for _ in range(5)]

    assert first_targets(1) == first_targets(1)
    assert first_targets(1) != first_targets(2)


@given(windows_before=st.integers(0, 60), rate=st.sampled_from([0.0, 0.2]))
def test_batches_continue_exactly_where_they_were_saved(windows_before, rate):
    def batches(seed):
        return TextBatches(
            numbered_text(700, 9),
            newline_id=NEWLINE,
            batch_size=3,
            bptt=10,
            unknown_rate=rate,
            seed=seed,
        )

    original, other = batches(7), batches(8)
    for _ in range(windows_before):
        original.next_window()
    other.load_state_dict(json.loads(json.dumps(original.state_dict())))
    for _ in range(60):  # more than two epochs
        expected, found = original.next_window(), other.next_window()
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, two)
    assert other.served == original.served


def documents_of_numbers(seed=0):
    """Batches over documents of 1 to 40 ids, in three blocks."""
    ends = np.cumsum(np.random.default_rng(3).integers(1, 40, 60))
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return DocumentBatches(
        numbered_text(int(ends[-1])),
        blocks=3,
        spans=lambda block: spans[20 * block : 20 * block + 20],
        n_ids=int(ends[-1]),
        batch_size=2,
        bptt=10,
        seed=seed,
    )


def long_text(seed=0):
    return TextBatches(numbered_text(700, 9), newline_id=NEWLINE, batch_size=3, bptt=10, seed=seed)


ODD = [None, -1, 10**9, 10**30, 1.5, float("nan"), True, "", "x", [], [1], [-1], [10**9], {}, [[]],
       [[0, 0, 0]] * 3, [[0, 5, 701]] * 3, [[5, 0, 9]] * 3, [[0, 0, 9]] * 4, [0, 1, 2, 0],
]  # fmt: skip


@pytest.mark.parametrize("make", [long_text, documents_of_numbers])
def test_a_position_from_a_stranger_is_refused_or_harmless(make):
    saved = make(1)
    for _ in range(9):
        saved.next_window()
    record = saved.state_dict()
    (generator,) = {"rng", "block_rng"} & set(record)
    changed = [{**record, name: odd} for name in record for odd in ODD]
    changed += [
        {**record, generator: {**record[generator], part: odd}}
        for part in record[generator]
        for odd in ODD
    ]
    changed += [{k: v for k, v in record.items() if k != name} for name in record]
    n_refused = 0
    for one in changed:
        batches = make(2)
        try:
            batches.load_state_dict(one)
        except (LookupError, TypeError, ValueError):
            n_refused += 1
            continue
        for _ in range(40):
            window = batches.next_window()
            assert window.n_targets > 0
            assert window.inputs_BT.max() < 3000
    assert n_refused > 0.75 * len(changed)
    batches = make(2)
    batches.load_state_dict(json.loads(json.dumps(record)))
    for _ in range(40):
        np.testing.assert_array_equal(
            batches.next_window().targets_BT, saved.next_window().targets_BT
        )


def test_unknown_rate_hides_inputs_only():
    def batches(rate):
        return TextBatches(
            numbered_text(40_000), newline_id=None, batch_size=8, bptt=50, unknown_rate=rate
        )

    plain, hiding = batches(0.0), batches(0.1)
    hidden = total = 0
    for _ in range(80):  # within the first epoch, which both cut alike
        expected, found = plain.next_window(), hiding.next_window()
        np.testing.assert_array_equal(found.targets_BT, expected.targets_BT)
        np.testing.assert_array_equal(found.keep_B, expected.keep_B)
        changed = found.inputs_BT != expected.inputs_BT
        assert (found.inputs_BT[changed] == UNK_ID).all()
        assert (expected.inputs_BT[changed] != EOS_ID).all()
        hidden += changed.sum()
        total += changed.size
    assert hidden / total == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (3, 0), (3, 1), (3, 4)])
def test_inputs_are_the_predecessors_of_the_targets(shape):
    targets = np.arange(100, 100 + np.prod(shape)).reshape(shape)
    for first in (7, np.arange(shape[0]) if len(shape) == 2 else 7):
        found = shifted(targets, first)
        assert found.shape == targets.shape
        rows = zip(np.atleast_2d(found), np.atleast_2d(targets), strict=True)
        for b, (inputs, row) in enumerate(rows):
            before = first if np.ndim(first) == 0 else first[b]
            assert inputs.tolist() == [before, *row.tolist()][: len(row)]


# what a window means for the loss


@pytest.fixture(params=reference.CELLS)
def network(request):
    torch.manual_seed(0)
    return CharNetwork(reference.make_config(request.param, layers=2, embedding=3, hidden=6))


def a_window(keep=(1, 0, 1, 1)):
    rng = np.random.default_rng(4)
    ids = rng.integers(7, size=(4, 10))
    targets_BT = ids[:, 1:].copy()
    targets_BT[1, 5:] = IGNORE
    targets_BT[3, 2:] = IGNORE
    return Window(ids[:, :-1], targets_BT, np.array(keep, np.float32), 25)


def a_state(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randn(part.shape, generator=generator) for part in parts)
        for parts in network.initial_state(4)
    ]


def loss_and_gradients(network, window, state):
    network.zero_grad()
    loss, _ = window_loss(network, window, state, CPU, "float32")
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in network.named_parameters()}


def assert_same(one, other, rtol=1e-5):
    assert one[0] == pytest.approx(other[0], rel=rtol)
    for name, gradient in one[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(other[1][name], gradient, rtol=rtol, atol=rtol * scale)


def test_the_loss_is_the_sum_over_the_targets_that_count(network):
    window = a_window(keep=(0, 0, 0, 0))
    weights = {name: a.astype(np.float64) for name, a in network.export_weights().items()}
    expected = sum(
        reference.loss(network.config, weights, inputs, targets)
        for inputs, targets in zip(window.inputs_BT, window.targets_BT, strict=True)
    )
    loss, _ = loss_and_gradients(network, window, a_state(network))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_masked_tail_of_a_row_contributes_nothing(network):
    window, state = a_window(), a_state(network)
    expected = loss_and_gradients(network, window, state)
    inputs_BT = window.inputs_BT.copy()
    masked_BT = window.targets_BT == IGNORE
    inputs_BT[masked_BT] = (inputs_BT[masked_BT] + 1) % 7
    assert_same(loss_and_gradients(network, window._replace(inputs_BT=inputs_BT), state), expected)


def test_the_order_of_the_rows_does_not_matter(network):
    window, state = a_window(), a_state(network)
    expected = loss_and_gradients(network, window, state)
    order = [2, 0, 3, 1]
    shuffled = Window(*(array[order] for array in window[:3]), window.n_targets)
    moved = [tuple(part[order] for part in parts) for parts in state]
    assert_same(loss_and_gradients(network, shuffled, moved), expected)


def test_a_row_that_wraps_forgets(network):
    """Where keep is 0 the state that comes in does not matter; where it is 1 it does."""
    window = a_window(keep=(1, 0, 1, 1))
    state, other = a_state(network, 0), a_state(network, 1)
    expected = loss_and_gradients(network, window, state)

    def exchanged(b):
        mixed = [tuple(part.clone() for part in parts) for parts in state]
        for mine, theirs in zip(mixed, other, strict=True):
            for part, new in zip(mine, theirs, strict=True):
                part[b] = new[b]
        return loss_and_gradients(network, window, mixed)

    assert_same(exchanged(1), expected)
    assert exchanged(0)[0] != pytest.approx(expected[0], rel=1e-4)


# evaluation


@given(
    n=st.integers(1, 400),
    batch_size=st.integers(1, 9),
    bptt=st.integers(1, 70),
    warmup=st.integers(0, 80),
    limit=st.none() | st.integers(1, 500),
)
def test_evaluation_counts_every_character_once(n, batch_size, bptt, warmup, limit):
    ids = numbered_text(n)
    end = n if limit is None else min(n, limit)
    counted = []
    rows = min(batch_size, end)
    read = [0] * rows  # characters read so far in each row
    for k, window in enumerate(
        evaluation_windows(ids, batch_size=batch_size, bptt=bptt, warmup=warmup, limit=limit)
    ):
        assert window.inputs_BT.shape == window.targets_BT.shape
        assert window.inputs_BT.shape[0] == rows
        assert window.inputs_BT.shape[1] <= bptt
        assert (window.keep_B == (k > 0)).all()
        assert window.n_targets == (window.targets_BT != IGNORE).sum()
        for b, t in np.argwhere(window.targets_BT != IGNORE):
            position = int(window.targets_BT[b, t]) - FIRST
            before = window.inputs_BT[b, t]
            assert before == (ids[position - 1] if position else EOS_ID)
            assert read[b] + t >= min(warmup, position)  # warmed up, or from the very start
            counted.append(position)
        read = [r + window.inputs_BT.shape[1] for r in read]
    assert sorted(counted) == list(range(end))


@given(n=st.integers(1, 200), bptt=st.integers(1, 70))
def test_one_evaluation_row_is_the_text_itself(n, bptt):
    ids = numbered_text(n)
    found = list(evaluation_windows(ids, batch_size=1, bptt=bptt, warmup=30))
    inputs = np.concatenate([w.inputs_BT[0] for w in found])
    targets = np.concatenate([w.targets_BT[0] for w in found])
    np.testing.assert_array_equal(targets, ids)
    np.testing.assert_array_equal(inputs, [EOS_ID, *ids[:-1]])


def test_an_empty_text_has_no_evaluation_windows():
    assert not list(evaluation_windows(numbered_text(0), batch_size=2, bptt=8, warmup=4))


@given(n=st.integers(1, 5000), batch_size=st.integers(1, 64), bptt=st.integers(1, 256))
def test_rows_and_window_fit_the_text(n, batch_size, bptt):
    rows, window = fit_window(n, batch_size, bptt)
    assert 1 <= rows <= batch_size
    assert 1 <= window <= bptt
    assert rows * window <= n
    if batch_size * bptt <= n:
        assert (rows, window) == (batch_size, bptt)
