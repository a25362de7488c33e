"""One long text in several parts side by side: faster, and not quite exact.

Shapes: B batch rows, T characters of one window, V ids.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.batches.windows import IGNORE, window_of
from charrnn.config import shown
from charrnn.errors import ConfigError
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import THE_TEXT, BothSidesScorer, Scorer, chunks, scored
from charrnn.vocab import EOS_ID, UNK_ID, Ids

WINDOW = 32
"""Characters that each row reads at a time; a device chooses for itself."""
MAX_ROWS = 4096
"""More would only fill the memory with states."""
PIECE_CHARS = 1 << 18
SEAMS, SEAM_CHARS = 64, 256
"""Most seams at which the cost is measured, and the characters looked at after each."""


class RowScore(NamedTuple):
    """The score of a text read in rows."""

    score: Score
    rows: int
    """Number of parts: no more than there are events."""
    cost_logprob: float
    """Log-probability lost at the seams (nats), estimated by a warm-up four times as long at some
    of them; by chance it may be below zero."""
    cost_error: float
    """Standard error of the estimate."""


class Part(NamedTuple):
    """A stretch of a text that one row reads."""

    first: int
    """Position of the first character that is read."""
    begin: int
    """Position of the first that counts."""
    end: int


def score_in_rows(
    scorer: Scorer,
    pieces: Iterable[str],
    *,
    rows: int,
    warmup: int,
    text: str = "",
    what: str = THE_TEXT,
) -> RowScore:
    """Score one text in `rows` parts of equal length, read side by side.

    Each part but the first begins with a zero state, and reads the `warmup` characters before it
    without counting them. The ids wait in a temporary file, so that memory does not grow with
    the text.

    Args:
        scorer: model and rules.
        pieces: the text.
        rows: number of parts.
        warmup: events, so bytes in a byte model; with the length of the text the score is exact.
        text: the name of the score.
        what: the text's name in a message.

    Raises:
        ConfigError: no row or too many, a negative warm-up, or a context, which only one row could
            have.
        UnknownCharacterError: see `charrnn.vocab.encode_known`.
    """
    check_rows(rows, warmup)
    if isinstance(scorer, BothSidesScorer):
        raise ConfigError(
            "reads with a model that goes from left to right only, and this one is bidirectional: "
            "leave it out",
            field="rows",
        )
    if scorer.context:
        raise ConfigError(
            "reads the text from several places, and a context stands before one: leave one out",
            field="rows",
        )
    with tempfile.TemporaryFile() as file:
        counts = Score.total(_store(scorer, pieces, file, what), text=text)
        size = file.seek(0, 2) // np.dtype(scorer.vocabulary.id_dtype).itemsize
        if not size:
            return RowScore(counts, 0, 0.0, 0.0)
        ids = np.memmap(file, scorer.vocabulary.id_dtype, "r", shape=(size,))
        rows = min(rows, size)
        edges = [k * size // rows for k in range(rows + 1)]
        parts = [Part(max(0, a - warmup), a, b) for a, b in itertools.pairwise(edges)]
        sums, unknown = _read_parts(scorer, ids, parts)
        cost, error = _seam_cost(scorer, ids, edges, warmup)
    score = replace(counts, logprob=math.fsum(sums), unknown_logprob=math.fsum(unknown))
    return RowScore(score, rows, cost, error)


def check_rows(rows: int, warmup: int) -> None:
    """Check the settings of `score_in_rows`.

    Raises:
        ConfigError: no row or too many, or a negative warm-up.
    """
    if not 1 <= rows <= MAX_ROWS:
        bound = f"at most {MAX_ROWS:,}" if rows > MAX_ROWS else "at least 1"
        raise ConfigError(f"must be {bound}, got {shown(rows)}", field="rows")
    if warmup < 0:
        raise ConfigError(f"must be at least 0, got {shown(warmup)}", field="warmup")


def _store(scorer: Scorer, pieces: Iterable[str], file: IO[bytes], what: str) -> Iterator[Score]:
    """Write the ids of a text to a file, and yield what is counted."""
    offset = 0
    for text in chunks(scorer.normalized(pieces), PIECE_CHARS):
        encoded = scorer.encode(text, offset=offset, what=what)
        offset += len(text)
        file.write(encoded.ids.astype(scorer.vocabulary.id_dtype).tobytes())
        yield scored(encoded)
    if scorer.eos:
        file.write(np.array([EOS_ID], scorer.vocabulary.id_dtype).tobytes())
        yield scored(scorer.encode(""), ends=True)
    file.flush()


def _read_parts(
    scorer: Scorer, ids: Ids, parts: Sequence[Part]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each part its log-probability `[B]`, and what of it UNK has."""
    first_B, begin_B, end_B = np.array(parts).T
    state = scorer.engine.initial_state(len(parts))
    width = scorer.engine.window(len(parts)) if scorer.is_on_device else WINDOW
    sums_B, unknown_B = np.zeros(len(parts)), np.zeros(len(parts))
    for offset in range(0, int((end_B - first_B).max()), width):
        starts = np.minimum(first_B + offset, end_B)
        ends = np.minimum(starts + width, end_B)
        places_B3 = np.stack([np.zeros_like(starts), starts, ends], 1)
        window = window_of(ids, places_B3, int((ends - starts).max()))
        logprobs_BT = scorer.logprobs(window.inputs_BT, np.maximum(window.targets_BT, 0), state)
        position_BT = starts[:, None] + np.arange(logprobs_BT.shape[1])
        counts_BT = (position_BT >= begin_B[:, None]) & (window.targets_BT != IGNORE)
        sums_B += logprobs_BT.sum(axis=1, where=counts_BT)
        unknown_B += logprobs_BT.sum(axis=1, where=counts_BT & (window.targets_BT == UNK_ID))
    return sums_B, unknown_B


def _seam_cost(scorer: Scorer, ids: Ids, edges: Sequence[int], warmup: int) -> tuple[float, float]:
    """Return how much a longer warm-up wins back at all seams, and its standard error, in nats."""
    rng = np.random.default_rng(0)
    n_seams = len(edges) - 2
    if n_seams < 1:
        return 0.0, 0.0
    some = np.sort(rng.choice(n_seams, min(SEAMS, n_seams), replace=False)).tolist()
    spans = [(edges[k + 1], min(edges[k + 1] + SEAM_CHARS, edges[k + 2])) for k in some]

    def after_seams(warm: int) -> NDArray[np.float64]:
        """Return the log-probability of what follows each seam, after a warm-up."""
        return _read_parts(scorer, ids, [Part(max(0, a - warm), a, b) for a, b in spans])[0]

    gains = after_seams(4 * warmup + SEAM_CHARS) - after_seams(warmup)
    spread = float(gains.std(ddof=1)) if len(gains) > 1 else abs(float(gains[0]))
    unseen = 1 - len(gains) / n_seams  # what all seams were measured at has no sampling error
    error = n_seams * spread * math.sqrt(unseen / len(gains))
    return n_seams * float(gains.mean()), error
