"""One long text in several pieces side by side: faster, and not quite exact.

Shapes: B lanes, T characters of one window, V ids.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, NamedTuple

import numpy as np

from charrnn.batches.evaluation import evaluation_windows
from charrnn.batches.windows import IGNORE
from charrnn.errors import ConfigError
from charrnn.scoring.batch import sum_logprobs
from charrnn.scoring.logprobs import target_logprobs
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer, chunks
from charrnn.scoring.text import scored
from charrnn.vocab import EOS_ID, UNK_ID, Ids

WINDOW = 32
PIECE_CHARS = 1 << 18
SEAMS, SEAM_CHARS = 16, 256
"""Where the cost is measured: at so many seams, on so many characters after each."""


class LaneScore(NamedTuple):
    """The score of a text read in lanes."""

    score: Score
    cost_logprob: float
    """Log-probability lost at the seams (nats), estimated by a warm-up four times as long."""


def score_lanes(
    scorer: Scorer, pieces: Iterable[str], *, lanes: int, warmup: int, text: str = ""
) -> LaneScore:
    """Score one text in `lanes` pieces of equal length, read side by side.

    Each piece but the first begins with a zero state, and reads the `warmup` characters before it
    without counting them. The ids wait in a temporary file, so that memory does not grow with
    the text.

    Args:
        scorer: model and rules.
        pieces: the text.
        lanes: how many pieces.
        warmup: characters; as many as the text has make the score exact.
        text: what the score is to be called.

    Raises:
        ConfigError: no lane, a negative warm-up, or a context, which only one lane could have.
        UnknownCharacterError: see `Scorer.encode`.
    """
    if lanes < 1 or warmup < 0:
        raise ConfigError(f"--lanes must be at least 1 and --warmup 0, got {lanes} and {warmup}")
    if scorer.context:
        raise ConfigError("--lanes reads a text from several places, and --context is one: choose")
    with tempfile.TemporaryFile() as file:
        counts = Score.total(_store(scorer, pieces, file), text=text)
        size = file.seek(0, 2) // np.dtype(scorer.vocabulary.id_dtype).itemsize
        if not size:
            return LaneScore(counts, 0.0)
        ids = np.memmap(file, scorer.vocabulary.id_dtype, "r", shape=(size,))
        logprob, unknown_logprob = _read_lanes(scorer, ids, lanes, warmup)
        cost = _seam_cost(scorer, ids, lanes, warmup)
    score = replace(counts, logprob=logprob, unknown_logprob=unknown_logprob)
    return LaneScore(score, cost)


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


def _read_lanes(scorer: Scorer, ids: Ids, lanes: int, warmup: int) -> tuple[float, float]:
    """Return the log-probability of the ids, and the part of it that UNK has."""
    state = None
    sums, unknown = [], []
    for window in evaluation_windows(ids, batch_size=lanes, bptt=WINDOW, warmup=warmup):
        if state is None:
            state = scorer.engine.initial_state(len(window.inputs_BT))
        logits_BTV = scorer.engine.run(window.inputs_BT, state)
        logprobs_BT = target_logprobs(logits_BTV, np.maximum(window.targets_BT, 0))
        sums.append(float(logprobs_BT.sum(where=window.targets_BT != IGNORE)))
        unknown.append(float(logprobs_BT.sum(where=window.targets_BT == UNK_ID)))
    return math.fsum(sums), math.fsum(unknown)


def _seam_cost(scorer: Scorer, ids: Ids, lanes: int, warmup: int) -> float:
    """Return how much log-probability a longer warm-up wins back, in nats for all seams."""
    lanes = min(lanes, len(ids))
    seams = [k * len(ids) // lanes for k in range(1, lanes)]
    some = seams[:: max(1, math.ceil(len(seams) / SEAMS))]
    if not some:
        return 0.0
    plain = Scorer(scorer.engine, scorer.vocabulary)

    def after(seam: int, warm: int) -> tuple[Ids, Ids]:
        start = max(0, seam - warm)
        return ids[start:seam], ids[start : seam + SEAM_CHARS]

    differences = []
    for warm, sign in ((warmup, -1), (4 * warmup + SEAM_CHARS, 1)):
        before, both = zip(*(after(seam, warm) for seam in some), strict=True)
        differences += [sign * x for x in sum_logprobs(plain, both)[0]]
        differences += [-sign * x for x in sum_logprobs(plain, before)[0]]
    return max(0.0, math.fsum(differences) * len(seams) / len(some))
