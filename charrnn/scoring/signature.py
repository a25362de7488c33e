"""What a score was computed with, in one line that makes it citable (after sacreBLEU's)."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from charrnn import __version__
from charrnn.scoring.scorer import Scorer
from charrnn.storage.model_file import SavedModel

SHOWN = 12
"""Hexadecimal digits of a hash."""
ADAPTING = "mixed.1"
"""Names the method of `charrnn score --adapt`; changes when its figures do."""


def signature(
    saved: SavedModel,
    scorer: Scorer,
    *,
    rows: int = 1,
    warmup: int = 0,
    adapts: bool = False,
    with_corpus: str = "",
) -> str:
    """Return the version, the model, the arithmetic and the rules that a score depends on.

    The hash of the model is that of its shape, alphabet and weights, whatever file they are in.

    Args:
        saved: the model.
        scorer: the rules.
        rows: pieces that the text is read in.
        warmup: characters read before each of them.
        adapts: the model learns from what it has scored.
        with_corpus: hash of a text counted before.
    """
    digest = hashlib.sha256()
    record = (saved.config.to_dict(), saved.vocabulary.to_dict(), saved.text.to_dict())
    digest.update(json.dumps(record, sort_keys=True).encode())
    for name in sorted(saved.weights):
        digest.update(np.ascontiguousarray(saved.weights[name], "<f4").tobytes())
    context = hashlib.sha256(scorer.context.encode("utf-8", "surrogatepass")).hexdigest()
    parts = {
        "charrnn": __version__,
        "model": digest.hexdigest()[:SHOWN],
        "precision": "float32",
        "eos": "yes" if scorer.eos else "no",
        "unknown": scorer.on_unknown,
        "context": context[:SHOWN] if scorer.context else "none",
        "rows": "1" if rows == 1 else f"{rows}+{warmup}",
        "adapt": ADAPTING if adapts else "no",
        "from": with_corpus[:SHOWN] or "none",
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items())
