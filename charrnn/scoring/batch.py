"""Many texts at once: one matrix product serves a whole batch.

Shapes: N texts, B texts of one batch, T characters of one window, V ids.

Texts are sorted by length, the longest of a batch first, so that finished rows are at the end and
can be dropped; the results come back in the order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from charrnn.batches.windows import shifted
from charrnn.engine.network import Floats
from charrnn.normalize import normalize
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import BothSidesScorer, Scorer, score_pieces, scored
from charrnn.vocab import EOS_ID, UNK_ID, Encoded, code_points

BATCH_SIZE, DEVICE_BATCH_SIZE = 128, 2048
"""Texts side by side in the NumPy engine, and on a device."""
WINDOW = 16
"""Characters between two looks at which rows have ended; a device chooses for itself."""
GROUP_TEXTS = 16_384
GROUP_CHARS = 1 << 22
"""Texts are sorted, and kept in memory, in groups of at most this size."""
LONG = 20_000
"""A text of more characters is read alone."""


def score_many(
    scorer: Scorer,
    texts: Iterable[str],
    *,
    batch_size: int | None = None,
    what: Callable[[int], str] = "text {}".format,
) -> Iterator[Score]:
    """Yield the scores of texts, in their order; each is what the text scores alone.

    Args:
        scorer: model and rules.
        texts: may be endless.
        batch_size: most texts read side by side; None for what suits the scorer.
        what: returns a text's name in a message, given its number, from 1.

    Raises:
        UnknownCharacterError: see `charrnn.vocab.encode_known`.
    """
    if batch_size is None:
        batch_size = DEVICE_BATCH_SIZE if scorer.is_on_device else BATCH_SIZE
    n_before = 0
    for group in _groups(texts):
        whats = [what(n_before + k) for k in range(1, len(group) + 1)]
        yield from _score_group(scorer, group, whats, batch_size)
        n_before += len(group)


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut the texts into groups that are sorted and held in memory together."""
    group: list[str] = []
    n_chars = 0
    for text in texts:
        group.append(text)
        n_chars += len(text)
        if len(group) == GROUP_TEXTS or n_chars >= GROUP_CHARS:
            yield group
            group, n_chars = [], 0
    if group:
        yield group


def _score_group(
    scorer: Scorer, texts: Sequence[str], whats: Sequence[str], batch_size: int
) -> Iterator[Score]:
    longest = -1 if isinstance(scorer, BothSidesScorer) else LONG
    short = [k for k, text in enumerate(texts) if len(text) <= longest]
    normal = [normalize(texts[k], scorer.form) for k in short]
    encoded = _encode_all(scorer, normal, [whats[k] for k in short])
    sums_N, unknown_N = sum_logprobs(scorer, [one.ids for one in encoded], batch_size)
    done = dict(zip(short, range(len(short)), strict=True))
    for k, text in enumerate(texts):
        if k not in done:
            yield score_pieces(scorer, [text], text=text, what=whats[k])
            continue
        n = done[k]
        yield scored(
            encoded[n],
            text=text,
            logprob=sums_N[n],
            unknown_logprob=unknown_N[n],
            ends=scorer.eos,
        )


def _encode_all(scorer: Scorer, texts: list[str], whats: list[str]) -> list[Encoded]:
    """Encode short texts; in one go if none of their characters needs a closer look."""
    joined = "".join(texts)
    ids = scorer.vocabulary.encode(joined)
    ends = np.cumsum([len(text) for text in texts])
    if len(ids) != len(joined) or (ids == UNK_ID).any():
        return [scorer.encode(text, what=what) for text, what in zip(texts, whats, strict=True)]
    codes = code_points(joined)
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    edges = [0, *ends.tolist()]
    sizes = np.diff(bytes_before[edges]).tolist()
    return [
        Encoded(text, ids[a:b], size, 0, 0, ())
        for text, a, b, size in zip(texts, edges, edges[1:], sizes, strict=False)
    ]


def sum_logprobs(
    scorer: Scorer, ids_N: Sequence[NDArray[np.unsignedinteger]], batch_size: int = BATCH_SIZE
) -> tuple[list[float], list[float]]:
    """Return for each text the log-probability, and the part of it that UNK has.

    Args:
        scorer: model and rules.
        ids_N: the ids of each text.
        batch_size: most texts read side by side.
    """
    lengths_N = np.array([len(ids) for ids in ids_N], np.int64)
    order_N = np.argsort(-lengths_N, kind="stable")
    sums_N, unknown_N = np.zeros(len(ids_N)), np.zeros(len(ids_N))
    for start in range(0, len(ids_N), batch_size):
        rows = order_N[start : start + batch_size]
        lengths_B = lengths_N[rows] + scorer.eos
        targets_BT = np.full((len(rows), int(lengths_B[0])), EOS_ID, np.int64)
        for row, n in zip(targets_BT, rows.tolist(), strict=True):
            row[: len(ids_N[n])] = ids_N[n]
        logprobs_BT = _batch_logprobs(scorer, targets_BT, lengths_B)
        sums_N[rows] = logprobs_BT.sum(axis=1)
        unknown_N[rows] = logprobs_BT.sum(axis=1, where=targets_BT == UNK_ID)
    return sums_N.tolist(), unknown_N.tolist()


def _batch_logprobs(
    scorer: Scorer, targets_BT: NDArray[np.int64], lengths_B: NDArray[np.int64]
) -> Floats:
    """Return the log-probabilities of padded targets; 0 in the padding.

    Args:
        scorer: model and rules.
        targets_BT: ids, the longest row first.
        lengths_B: number of targets in each row that count.
    """
    B, T = targets_BT.shape
    logprobs_BT = np.zeros((B, T))
    engine, (beginning, last) = scorer.engine, scorer.beginning
    inputs_BT = shifted(targets_BT, last)
    working, state = B, engine.initial_state(B)
    state.assign(beginning)
    window = engine.window(B) if scorer.is_on_device else WINDOW
    for start in range(0, T, window):
        rows = int(np.searchsorted(-lengths_B, -start))  # those longer than `start`
        if rows < working:
            working, state = rows, engine.copy_state(state, np.arange(rows))
        part = slice(start, start + window)
        logprobs_BT[:rows, part] = scorer.logprobs(
            inputs_BT[:rows, part], targets_BT[:rows, part], state
        )
    logprobs_BT[np.arange(T) >= lengths_B[:, None]] = 0.0
    return logprobs_BT
