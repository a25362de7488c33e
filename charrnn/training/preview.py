"""What a network can do so far, shown now and then while it is trained."""

from __future__ import annotations

import numpy as np

from charrnn.config import SamplingConfig
from charrnn.engine.bidirectional import BidirectionalEngine
from charrnn.engine.network import Engine
from charrnn.errors import CharRNNError
from charrnn.sampling.fill import Filler, GapText
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, read_prompt
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, Ids

CHARS, TEMPERATURE = 160, 0.8
GAP_EVERY, BEAM = 7, 8
"""Characters from one gap to the next, and fillings that are kept from gap to gap."""
MARKS = "_▁□"
"""The first of them that the text does not have marks its gaps."""


def preview(saved: SavedModel, ids: Ids, *, seed: int) -> str | None:
    """Return a short text by a model, or None if it cannot write one: no reason to stop training.

    It comes from the engine that `charrnn sample` uses. A bidirectional model fills gaps in the end
    of a text.

    Args:
        saved: the model as it is now.
        ids: the text.
        seed: of the sample.
    """
    try:
        with np.errstate(all="ignore"):  # a relu network may overflow beyond a window
            return _filled(saved, ids) if saved.config.bidirectional else _sample(saved, seed)
    except CharRNNError:
        return None


def _sample(saved: SavedModel, seed: int) -> str:
    engine = Engine(saved.config, saved.weights)
    options = SamplingConfig(length=CHARS, seed=seed)
    start = read_prompt(engine, saved.vocabulary.encode(""))
    request = Request(start, prompt="", temperature=TEMPERATURE, index=0)
    return Stream(engine, saved.vocabulary, request, options).sample().text


def _filled(saved: SavedModel, ids: Ids) -> str | None:
    """Return a text with gaps, and the same text as the model fills them."""
    last = np.asarray(ids[-4 * CHARS :])
    parts = np.split(last, np.flatnonzero(last == EOS_ID))
    text = " ".join(" ".join(map(saved.vocabulary.decode, parts)).split())[-CHARS // 2 :]
    mark = next((mark for mark in MARKS if mark not in text), None)
    if mark is None or len(text) < GAP_EVERY:
        return None
    # a byte model has one gap for a byte
    is_gap = [k % GAP_EVERY == GAP_EVERY - 1 and c.isascii() for k, c in enumerate(text)]
    shown = "".join(mark if gap else c for c, gap in zip(text, is_gap, strict=True))
    filler = Filler(BidirectionalEngine(saved.config, saved.weights), saved.vocabulary)
    (best,) = filler.best(GapText(shown, mark, saved, "unk"), top=1, beam=BEAM)
    return f"{shown}\n{best.text}"
