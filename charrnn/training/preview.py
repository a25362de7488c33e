"""A short sample during training, by the same engine that `charrnn sample` uses."""

from __future__ import annotations

from charrnn.config import SamplingConfig
from charrnn.engine.network import Engine
from charrnn.sampling.prompt import Request, read_prompt
from charrnn.sampling.stream import Stream
from charrnn.storage.model_file import SavedModel

CHARS = 160
TEMPERATURE = 0.8


def preview(saved: SavedModel, seed: int) -> str:
    """Return a short text by a model."""
    engine = Engine(saved.config, saved.weights)
    options = SamplingConfig(length=CHARS, seed=seed)
    start = read_prompt(engine, saved.vocabulary.encode(""))
    request = Request(start, prompt="", temperature=TEMPERATURE, index=0)
    return Stream(engine, saved.vocabulary, request, options).sample().text
