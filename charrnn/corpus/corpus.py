"""An encoded corpus on disk."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.config import CorpusConfig
from charrnn.corpus.documents import Documents
from charrnn.corpus.sources import Source, find_sources, read_bytes
from charrnn.errors import CorpusError
from charrnn.storage.atomic import write_text_atomically
from charrnn.vocab import UNK_ID, Ids, Vocabulary

IDS_FILE = "ids.bin"
DOCUMENTS_FILE = "documents.bin"
RECORD_FILE = "corpus.json"


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
    """Of the (decompressed) bytes of all inputs, in order."""
    paths: tuple[str, ...]
    """Absolute paths of the files read; empty when standard input was among them."""
    has_held_out: bool
    """True if the validation part is from files of its own."""
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

    def release_memory(self) -> None:
        """Let go of the pages of the ids that have been read; they stay on disk.

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
        config = CorpusConfig.from_dict(record["config"])
        vocabulary = Vocabulary.from_dict(record["vocabulary"])
        ids = np.memmap(folder / IDS_FILE, dtype=vocabulary.id_dtype, mode="r")
        documents = None
        if config.documents != "none":
            ends = np.memmap(folder / DOCUMENTS_FILE, dtype=np.int64, mode="r")
            documents = Documents(
                ends=ends,
                seed=config.split_seed,
                threshold=record["threshold"],
                held_out_from=record["held_out_from"],
            )
        extra = 1 if documents is None and record["n_val"] == 0 else 0
        if len(ids) != record["n_train"] + record["n_val"] + extra:
            raise ValueError("its length is not the one recorded")
        return Corpus(
            name=record["name"],
            config=config,
            vocabulary=vocabulary,
            ids=ids,
            n_chars=record["n_chars"],
            n_train=record["n_train"],
            n_val=record["n_val"],
            n_bytes=record["n_bytes"],
            n_unknown=record["n_unknown"],
            documents=documents,
            n_duplicates=record["n_duplicates"],
            sha256=record["sha256"],
            paths=tuple(record["paths"]),
            has_held_out=record["has_held_out"],
            encodings=tuple(record["encodings"]),
            newlines=tuple(record["newlines"]),
            mean_line=record["mean_line"],
            has_blank_lines=record["has_blank_lines"],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorpusError(
            f"the encoded text in {folder} cannot be used ({error}): start a new run"
        ) from error


def check_unchanged(corpus: Corpus, paths: Sequence[str | os.PathLike[str]]) -> None:
    """Compare the text on disk with the one that was encoded.

    Args:
        corpus: the encoded text.
        paths: where the text should be; if empty, the files it was read from.

    Raises:
        CorpusError: the text is not the same, or a file is gone.
    """
    wanted = corpus.paths if corpus.has_held_out else paths or corpus.paths
    sources = find_sources(wanted, corpus.config.glob) if wanted else []
    if not sources or any(source.path is None for source in sources):
        return
    digest = hashlib.sha256()
    for source in sources:
        for _ in read_bytes(source, digest):
            pass
    if digest.hexdigest() != corpus.sha256:
        raise CorpusError(
            f"{names(sources)} has changed since this run began: start a new run, or put the "
            "old text back"
        )


def save_record(folder: Path, record: dict[str, Any]) -> None:
    """Write what is known about an encoded corpus."""
    write_text_atomically(folder / RECORD_FILE, json.dumps(record))


def names(sources: Sequence[Source]) -> str:
    """Name the inputs in a message."""
    return sources[0].name if len(sources) == 1 else f"the {len(sources)} inputs together"
