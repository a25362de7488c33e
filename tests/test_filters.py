"""The sampling filters on distributions worked out by hand, alone and together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.config import SamplingConfig
from charrnn.sampling import picker as filters
from charrnn.sampling.picker import Picker, remove_repeated
from charrnn.sampling.writer import Request, new_writer
from charrnn.vocab import Vocabulary

P = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
LOGITS = np.log(P)


VOCABULARY = Vocabulary("abc")


def survivors(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


@pytest.mark.parametrize(
    ("k", "kept"),
    [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (5, [0, 1, 2, 3, 4]), (99, [0, 1, 2, 3, 4])],
)
def test_top_k(k, kept):
    assert survivors(filters.top_k(LOGITS, k)) == kept


def test_top_k_keeps_exactly_k_of_equals_those_with_low_ids():
    assert survivors(filters.top_k(np.zeros(6), 2)) == [0, 1]


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (1e-9, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.64, [1, 3]),
        (0.66, [1, 2, 3]),
        (0.96, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    assert survivors(filters.top_p(LOGITS, p)) == kept


@pytest.mark.parametrize(
    ("p", "kept"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 2, 3]), (0.55, [1, 3]), (1.0, [1])]
)
def test_min_p_is_relative_to_the_most_probable(p, kept):
    assert survivors(filters.min_p(LOGITS, p)) == kept


def test_scale_divides_and_survives_extremes():
    np.testing.assert_allclose(
        filters.softmax(filters.scale(LOGITS, 0.5)), P**2 / (P**2).sum(), rtol=1e-12
    )
    np.testing.assert_allclose(filters.softmax(filters.scale(LOGITS, 1e-4)), P == 0.4, atol=1e-12)
    np.testing.assert_allclose(filters.softmax(filters.scale(LOGITS, 1e9)), 0.2, rtol=1e-6)
    assert np.isfinite(filters.scale(np.array([1e30, -1e30, 0.0]), 1e-4).max())


def test_rows_are_filtered_like_single_vectors():
    rows = np.log(np.random.default_rng(0).dirichlet(np.ones(9), size=7))
    for function, value in ((filters.top_k, 3), (filters.top_p, 0.6), (filters.min_p, 0.2)):
        together = function(rows, value)
        for row, filtered in zip(rows, together, strict=True):
            np.testing.assert_array_equal(function(row, value), filtered)


def test_the_order_is_temperature_top_k_top_p_min_p():
    # temperature 0.5 squares: .01 .16 .04 .0625 .0025 → top-k 3 leaves .16 .04 .0625 (sum .2625),
    # of which top-p 0.65 needs .16 + .0625 (.6095 alone is not enough), and min-p 0.5 drops .0625
    config = SamplingConfig(top_k=3, top_p=0.65, min_p=0.5)
    assert survivors(Picker(VOCABULARY, config).distribution(LOGITS, 0.5)) == [1]
    config = SamplingConfig(top_k=3, top_p=0.65, min_p=0.3)
    assert survivors(Picker(VOCABULARY, config).distribution(LOGITS, 0.5)) == [1, 3]
    # without the renormalisation after top-k, 0.65 of the whole would need a third character
    config = SamplingConfig(top_k=3, top_p=0.6)
    assert survivors(Picker(VOCABULARY, config).distribution(LOGITS, 0.5)) == [1]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=3, max_size=30),
    st.floats(1e-4, 100),
    st.integers(0, 40),
    st.floats(1e-6, 1),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_something_always_survives_and_is_picked(logits, temperature, k, p, q, uniform):
    config = SamplingConfig(top_k=k, top_p=p, min_p=q)
    picker = Picker(VOCABULARY, config)
    logits = np.array(logits, np.float32)
    picker.forbid(logits, new_writer(VOCABULARY, Request(None, "", 1.0, 0), config))
    left = picker.distribution(logits, temperature)
    chosen = picker.bind(temperature)(logits, uniform)
    assert chosen != 0, "UNK was written"
    assert np.isfinite(left[chosen])
    rows = picker.pick_rows(
        np.stack([logits, logits]), np.full((2, 1), temperature), np.full((2, 1), uniform)
    )
    assert rows.tolist() == [chosen, chosen]


def test_a_ban_that_would_leave_nothing_is_dropped():
    rows = np.array([[-np.inf, -np.inf, 1.0, 2.0], [-np.inf, 0.0, 1.0, 2.0], [-np.inf, 0, 1, 2]])
    remove_repeated(rows, [[2, 3], [2, 3], []])
    assert [survivors(row) for row in rows] == [[2, 3], [1], [1, 2, 3]]
