"""Drawing text from a model: filters on the distribution, and generators of characters."""

from charrnn.sampling.batch import sample_batch
from charrnn.sampling.prompt import Request, Start, encode_prompt, read_prompt
from charrnn.sampling.sample import Sample
from charrnn.sampling.stream import Stream

__all__ = [
    "Request",
    "Sample",
    "Start",
    "Stream",
    "encode_prompt",
    "read_prompt",
    "sample_batch",
]
