"""An encoded corpus on disk."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charrnn.config import CorpusConfig
from charrnn.corpus.documents import Documents
from charrnn.corpus.sources import find_sources, read_bytes
from charrnn.errors import CorpusError
from charrnn.vocab import UNK_ID, Ids, Vocabulary

IDS_FILE = "ids.bin"
DOCUMENTS_FILE = "documents.bin"
RECORD_FILE = "corpus.json"
SHORT_LINE = 60
MANY_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as ids, divided into a training and a validation part."""

    name: str
    """Short name, from the first input."""
    config: CorpusConfig
    vocabulary: Vocabulary
    ids: Ids
    """All ids, memory-mapped; documents end with EOS."""
    n_chars: int
    """Characters (bytes in a byte model) of the whole text."""
    n_train: int
    """Ids in the training part."""
    n_val: int
    """Ids in the validation part."""
    n_bytes: int
    """Size of the decoded text in UTF-8 bytes."""
    n_unknown: int
    """Characters of the whole text that became UNK."""
    documents: Documents | None
    """Where the documents lie; None for one long text."""
    n_duplicates: int | None
    """Validation documents that also stand in the training part; None if not counted."""
    sha256: str
    """Of the (decompressed) bytes of all inputs but the held-out files, in order."""
    held_out_sha256: str | None
    """Of those of the held-out files; None without any."""
    paths: tuple[str, ...]
    """Absolute paths of the files read; empty when standard input was among them."""
    held_out_paths: tuple[str, ...]
    """Those of the held-out files."""
    encodings: tuple[str, ...]
    """Encodings found."""
    newlines: tuple[str, ...]
    """Line ends found; all became `\\n`."""
    mean_line: float
    """Mean length of a line in characters."""
    has_blank_lines: bool
    """True if one line end follows another somewhere."""

    @property
    def train_ids(self) -> Ids:
        """The training part of one long text; it ends with EOS if nothing was held out."""
        assert self.documents is None
        return self.ids[: self.n_train if self.n_val else None]

    @property
    def val_ids(self) -> Ids:
        """The validation part of one long text."""
        assert self.documents is None
        return self.ids[self.n_train :][: self.n_val]

    @property
    def newline_id(self) -> int | None:
        """Id of the line end; None if the training text has none."""
        found = int(self.vocabulary.encode("\n")[0])
        return None if found == UNK_ID else found

    @property
    def looks_like_list(self) -> bool:
        """True if the text, read as one, looks like one document a line."""
        return (
            self.documents is None
            and not self.has_blank_lines
            and self.mean_line <= SHORT_LINE
            and self.n_chars >= MANY_LINES * self.mean_line
            and self.newline_id is not None
        )

    def release_memory(self) -> None:
        """Release the memory of the ids that have been read; they stay on disk.

        A mapped file counts as resident memory for as long as its pages are held.
        """
        mapping = getattr(self.ids, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def load_corpus(folder: Path) -> Corpus:
    """Open a corpus that `encode_corpus` wrote.

    Raises:
        CorpusError: the encoded text is missing or damaged.
    """
    try:
        record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
        record["config"] = config = CorpusConfig.from_dict(record["config"])
        record["vocabulary"] = vocabulary = Vocabulary.from_dict(record["vocabulary"])
        if record["documents"] is not None:
            ends = np.memmap(folder / DOCUMENTS_FILE, dtype=np.int64, mode="r")
            record["documents"] = Documents(
                ends=ends, seed=config.split_seed, **record["documents"]
            )
        for name in ("paths", "held_out_paths", "encodings", "newlines"):
            record[name] = tuple(record[name])
        ids = np.memmap(folder / IDS_FILE, dtype=vocabulary.id_dtype, mode="r")
        corpus = Corpus(ids=ids, **record)
        ends_with_eos = corpus.documents is None and corpus.n_val == 0
        if len(ids) != corpus.n_train + corpus.n_val + ends_with_eos:
            raise ValueError("its length is not the one recorded")
        return corpus
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorpusError(
            f"the encoded text in {folder} cannot be used ({error}): start a new run"
        ) from error


def digest_of(paths: Sequence[str | os.PathLike[str]], glob: str) -> str:
    """Return the SHA-256 of the (decompressed) bytes of inputs, in order.

    Raises:
        CorpusError: an input is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for source in find_sources(paths, glob):
        for _ in read_bytes(source, digest):
            pass
    return digest.hexdigest()
