"""One long text in several parts side by side: faster, and not quite exact.

Shapes: B batch rows, T characters of one window, V ids.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, NamedTuple

import numpy as np

from charrnn.batches.windows import IGNORE, evaluation_windows
from charrnn.config import shown
from charrnn.engine.network import target_logprobs
from charrnn.errors import ConfigError
from charrnn.scoring.batch import sum_logprobs
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer, chunks, scored
from charrnn.vocab import EOS_ID, UNK_ID, Ids

WINDOW = 32
MAX_ROWS = 4096
"""More would only fill the memory with states."""
PIECE_CHARS = 1 << 18
SEAMS, SEAM_CHARS = 16, 256
"""Most seams at which the cost is measured, and the characters looked at after each."""


class RowScore(NamedTuple):
    """The score of a text read in rows."""

    score: Score
    cost_logprob: float
    """Log-probability lost at the seams (nats), estimated by a warm-up four times as long."""


def score_in_rows(
    scorer: Scorer, pieces: Iterable[str], *, rows: int, warmup: int, text: str = ""
) -> RowScore:
    """Score one text in `rows` parts of equal length, read side by side.

    Each part but the first begins with a zero state, and reads the `warmup` characters before it
    without counting them. The ids wait in a temporary file, so that memory does not grow with
    the text.

    Args:
        scorer: model and rules.
        pieces: the text.
        rows: number of parts.
        warmup: characters; with the length of the text the score is exact.
        text: the name of the score.

    Raises:
        ConfigError: no row or too many, a negative warm-up, or a context, which only one row could
            have.
        UnknownCharacterError: see `charrnn.vocab.encode_known`.
    """
    if not 1 <= rows <= MAX_ROWS:
        bound = f"at most {MAX_ROWS:,}" if rows > MAX_ROWS else "at least 1"
        raise ConfigError(f"must be {bound}, got {shown(rows)}", field="rows")
    if warmup < 0:
        raise ConfigError(f"must be at least 0, got {warmup}", field="warmup")
    if scorer.context:
        raise ConfigError(
            "reads the text from several places, and a context stands before one: leave one out",
            field="rows",
        )
    with tempfile.TemporaryFile() as file:
        counts = Score.total(_store(scorer, pieces, file), text=text)
        size = file.seek(0, 2) // np.dtype(scorer.vocabulary.id_dtype).itemsize
        if not size:
            return RowScore(counts, 0.0)
        ids = np.memmap(file, scorer.vocabulary.id_dtype, "r", shape=(size,))
        logprob, unknown_logprob = _read_rows(scorer, ids, rows, warmup)
        cost = _seam_cost(scorer, ids, rows, warmup)
    score = replace(counts, logprob=logprob, unknown_logprob=unknown_logprob)
    return RowScore(score, cost)


def _store(scorer: Scorer, pieces: Iterable[str], file: IO[bytes]) -> Iterator[Score]:
    """Write the ids of a text to a file, and yield what is counted."""
    offset = 0
    for text in chunks(scorer.normalized(pieces), PIECE_CHARS):
        encoded = scorer.encode(text, offset=offset)
        offset += len(text)
        file.write(encoded.ids.astype(scorer.vocabulary.id_dtype).tobytes())
        yield scored(encoded)
    if scorer.eos:
        file.write(np.array([EOS_ID], scorer.vocabulary.id_dtype).tobytes())
        yield scored(scorer.encode(""), ends=True)
    file.flush()


def _read_rows(scorer: Scorer, ids: Ids, rows: int, warmup: int) -> tuple[float, float]:
    """Return the log-probability of the ids, and the part of it that UNK has."""
    state = None
    sums, unknown = [], []
    for window in evaluation_windows(ids, batch_size=rows, bptt=WINDOW, warmup=warmup):
        if state is None:
            state = scorer.engine.initial_state(len(window.inputs_BT))
        logits_BTV = scorer.run(window.inputs_BT, state)
        logprobs_BT = target_logprobs(logits_BTV, np.maximum(window.targets_BT, 0))
        sums.append(float(logprobs_BT.sum(where=window.targets_BT != IGNORE)))
        unknown.append(float(logprobs_BT.sum(where=window.targets_BT == UNK_ID)))
    return math.fsum(sums), math.fsum(unknown)


def _seam_cost(scorer: Scorer, ids: Ids, rows: int, warmup: int) -> float:
    """Return how much log-probability a longer warm-up wins back, in nats for all seams."""
    rows = min(rows, len(ids))
    seams = [k * len(ids) // rows for k in range(1, rows)]
    some = seams[:: max(1, math.ceil(len(seams) / SEAMS))]
    if not some:
        return 0.0
    plain = Scorer(scorer.engine, scorer.vocabulary)

    def after_seams(warm: int) -> float:
        """Return the log-probability of what follows the seams, after a warm-up."""
        starts = [max(0, seam - warm) for seam in some]
        both = [ids[a : seam + SEAM_CHARS] for a, seam in zip(starts, some, strict=True)]
        before = [ids[a:seam] for a, seam in zip(starts, some, strict=True)]
        return math.fsum(sum_logprobs(plain, both)[0]) - math.fsum(sum_logprobs(plain, before)[0])

    gain = after_seams(4 * warmup + SEAM_CHARS) - after_seams(warmup)
    return max(0.0, gain * len(seams) / len(some))
