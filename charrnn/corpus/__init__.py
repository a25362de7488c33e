"""From paths or standard input to ids on disk, split into training and validation text."""

from charrnn.corpus.encode import Corpus, check_unchanged, encode_corpus, load_corpus
from charrnn.corpus.sources import Source, find_sources, read_text

__all__ = [
    "Corpus",
    "Source",
    "check_unchanged",
    "encode_corpus",
    "find_sources",
    "load_corpus",
    "read_text",
]
