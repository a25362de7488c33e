"""From paths or standard input to ids on disk, split into training and validation text."""

from charrnn.corpus.advice import advice
from charrnn.corpus.corpus import Corpus, check_unchanged, load_corpus
from charrnn.corpus.documents import Documents
from charrnn.corpus.encode import encode_corpus
from charrnn.corpus.sources import Source, find_sources, read_text

__all__ = [
    "Corpus",
    "Documents",
    "Source",
    "advice",
    "check_unchanged",
    "encode_corpus",
    "find_sources",
    "load_corpus",
    "read_text",
]
