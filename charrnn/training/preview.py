"""A short sample during training, by the same engine that `charrnn sample` uses."""

from __future__ import annotations

from charrnn.config import SamplingConfig
from charrnn.engine import Engine
from charrnn.modelfile import SavedModel
from charrnn.sampling import Request, Stream, read_prompt

CHARS = 160
TEMPERATURE = 0.8


def preview(saved: SavedModel, seed: int) -> str:
    """Return a short text by a model."""
    engine = Engine(saved.config, saved.weights)
    options = SamplingConfig(length=CHARS, seed=seed)
    start = read_prompt(engine, saved.vocabulary.encode(""))
    request = Request(start, prompt="", temperature=TEMPERATURE, index=0)
    return Stream(engine, saved.vocabulary, request, options).sample().text
