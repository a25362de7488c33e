"""What may come next: the model's distribution, and the one that a sample is drawn from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charrnn.config import SamplingConfig
from charrnn.engine.network import log_softmax
from charrnn.sampling.picker import LEAST, Picker, softmax
from charrnn.sampling.writer import Request, Start, new_writer
from charrnn.scoring.details import id_labels
from charrnn.vocab import Vocabulary


class Next(NamedTuple):
    """A character that may come next."""

    character: str
    """The character itself, `<end>`, `<unk>`, or in a byte model `<E9>`."""
    logprob: float
    """Under the model, in nats."""
    probability: float
    sampling_probability: float
    """Under what a sample is drawn from: temperature and filters applied, impossible ones gone."""


def next_characters(start: Start, vocabulary: Vocabulary, config: SamplingConfig) -> list[Next]:
    """Return every id of a model by how probable it is after a text, the most probable first.

    The rules are those of the sampler itself.

    Args:
        start: the place after the text.
        vocabulary: the model's.
        config: temperature and filters.

    Raises:
        ModelFileError: the model gives no probabilities.
    """
    picker, logits_V = Picker(vocabulary, config), start.logits.copy()
    writer = new_writer(vocabulary, Request(start, "", config.temperature, 0), config)
    picker.forbid(logits_V, writer)
    drawn_V = softmax(picker.distribution(logits_V, max(config.temperature, LEAST)))
    if config.temperature == 0:
        drawn_V = np.where(np.arange(len(drawn_V)) == logits_V.argmax(), 1.0, 0.0)
    logprobs_V = log_softmax(start.logits)
    labels = id_labels(vocabulary)
    rows = zip(
        labels,
        logprobs_V.tolist(),
        np.exp(logprobs_V).tolist(),
        drawn_V.tolist(),
        strict=True,
    )
    return sorted((Next(*row) for row in rows), key=lambda one: -one.logprob)
