"""Where the documents of a corpus lie, and which of them are kept for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.rng import stream_keys, uniforms
from charrnn.vocab import Ids

BLOCK = 1 << 16
"""Documents looked at together."""
MIN_DOCUMENTS = 10
"""With fewer documents none is kept for validation unless a share is asked for."""
EXACT_SPLIT = 1 << 20
"""Most documents of which an exact number is kept; of more, each is kept with the probability."""
MAX_COMPARED = 1 << 21
"""Most documents compared to find duplicates across the split."""

Spans = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a corpus, EOS included in each.

    Attributes:
        ends: `[n]`, where each document ends in the ids (one past its EOS); memory-mapped.
        seed: of the choice of validation documents.
        threshold: a document is kept for validation if its random number is below it.
        held_out_from: number of the first document of a held-out file; those and only those are
            for validation then.
    """

    ends: Spans
    seed: int
    threshold: float
    held_out_from: int | None = None

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.ends)

    def is_validation(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Say for each document number whether it is kept for validation."""
        if self.held_out_from is not None:
            held_out: NDArray[np.bool_] = numbers >= self.held_out_from
            return held_out
        return _luck(self.seed, numbers) < self.threshold

    def blocks(self) -> int:
        """Return the number of blocks of documents."""
        return -(-len(self) // BLOCK)

    def spans(self, block: int, *, validation: bool) -> Spans:
        """Return begin and end `[m, 2]` of a block's training or validation documents."""
        first = block * BLOCK
        ends = np.asarray(self.ends[first : first + BLOCK])
        before = 0 if first == 0 else int(self.ends[first - 1])
        begins = np.concatenate([[before], ends[:-1]])
        chosen = self.is_validation(np.arange(first, first + len(ends))) == validation
        spans: Spans = np.stack([begins, ends], axis=1)[chosen]
        return spans

    def all_spans(self, *, validation: bool) -> Iterator[Spans]:
        """Yield the spans of all blocks."""
        for block in range(self.blocks()):
            yield self.spans(block, validation=validation)


def choose_threshold(n_documents: int, share: float | None, default: float, seed: int) -> float:
    """Return the threshold that keeps about `share` of the documents, or the default share.

    At least one document is left to train on.
    """
    if share is None:
        share = default if n_documents >= MIN_DOCUMENTS else 0.0
    if share == 0 or n_documents < 2:
        return 0.0
    if n_documents > EXACT_SPLIT:
        return share
    kept = min(max(1, round(share * n_documents)), n_documents - 1)
    luck = np.sort(_luck(seed, np.arange(n_documents)))
    return float(luck[kept])


def count_duplicates(documents: Documents, ids: Ids) -> int | None:
    """Return the number of validation documents that are also training documents.

    None when there are too many documents to compare.
    """
    if len(documents) > MAX_COMPARED:
        return None
    kept = [
        ids[begin:end].tobytes()
        for spans in documents.all_spans(validation=True)
        for begin, end in spans.tolist()
    ]
    wanted = set(kept)
    found: set[bytes] = set()
    lengths = {len(text) // ids.itemsize for text in wanted}
    for spans in documents.all_spans(validation=False) if wanted else ():
        for begin, end in spans.tolist():
            if end - begin in lengths:
                text = ids[begin:end].tobytes()
                if text in wanted:
                    found.add(text)
    return sum(text in found for text in kept)


def _luck(seed: int, numbers: NDArray[Any]) -> NDArray[np.float64]:
    return uniforms(stream_keys(seed, numbers), 0)
