"""An encoded corpus on disk: its ids, its documents, and what is kept for validation."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from charrnn.config import MAX_COUNT, CorpusConfig, typed
from charrnn.corpus.sources import STDIN, find_sources, read_bytes
from charrnn.errors import CorpusError
from charrnn.rng import stream_keys, uniforms
from charrnn.storage.reading import open_ordinary, reason
from charrnn.vocab import UNK_ID, Ids, Vocabulary

BLOCK = 1 << 16
"""Documents looked at together."""
MIN_DOCUMENTS = 10
"""With fewer documents none is kept for validation unless a share is asked for."""
EXACT_SPLIT = 1 << 20
"""Most documents of which an exact number is kept; of more, each is kept with the probability."""
MAX_COMPARED = 1 << 21
"""Most documents compared to find duplicates across the split."""

Spans = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a corpus, EOS included in each.

    Attributes:
        ends: `[n]`, where each document ends in the ids (one past its EOS); memory-mapped.
        seed: of the choice of validation documents.
        threshold: a document is kept for validation if its random number is below it.
        held_out_from: number of the first document of a held-out file; those and only those are
            for validation then.
    """

    ends: Spans
    seed: int
    threshold: float
    held_out_from: int | None = None

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.ends)

    def is_validation(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Say for each document number whether it is kept for validation."""
        if self.held_out_from is not None:
            held_out: NDArray[np.bool_] = numbers >= self.held_out_from
            return held_out
        return _luck(self.seed, numbers) < self.threshold

    def blocks(self) -> int:
        """Return the number of blocks of documents."""
        return -(-len(self) // BLOCK)

    def spans(self, block: int, *, validation: bool) -> Spans:
        """Return begin and end `[m, 2]` of a block's training or validation documents."""
        first = block * BLOCK
        ends = np.asarray(self.ends[first : first + BLOCK])
        before = 0 if first == 0 else int(self.ends[first - 1])
        begins = np.concatenate([[before], ends[:-1]])
        chosen = self.is_validation(np.arange(first, first + len(ends))) == validation
        spans: Spans = np.stack([begins, ends], axis=1)[chosen]
        return spans

    def all_spans(self, *, validation: bool) -> Iterator[Spans]:
        """Yield the spans of all blocks."""
        for block in range(self.blocks()):
            yield self.spans(block, validation=validation)


def choose_threshold(n_documents: int, share: float | None, default: float, seed: int) -> float:
    """Return the threshold that keeps about `share` of the documents, or the default share.

    At least one document is left to train on.
    """
    if share is None:
        share = default if n_documents >= MIN_DOCUMENTS else 0.0
    if share == 0 or n_documents < 2:
        return 0.0
    if n_documents > EXACT_SPLIT:
        return share
    kept = min(max(1, round(share * n_documents)), n_documents - 1)
    luck = np.sort(_luck(seed, np.arange(n_documents)))
    return float(luck[kept])


def count_duplicates(documents: Documents, ids: Ids) -> int | None:
    """Return the number of validation documents that are also training documents.

    None when there are too many documents to compare.
    """
    if len(documents) > MAX_COMPARED:
        return None
    kept = [
        ids[begin:end].tobytes()
        for spans in documents.all_spans(validation=True)
        for begin, end in spans.tolist()
    ]
    wanted = set(kept)
    found: set[bytes] = set()
    lengths = {len(text) // ids.itemsize for text in wanted}
    for spans in documents.all_spans(validation=False) if wanted else ():
        for begin, end in spans.tolist():
            if end - begin in lengths:
                text = ids[begin:end].tobytes()
                if text in wanted:
                    found.add(text)
    return sum(text in found for text in kept)


def _luck(seed: int, numbers: NDArray[Any]) -> NDArray[np.float64]:
    return uniforms(stream_keys(seed, numbers), 0)


IDS_FILE = "ids.bin"
DOCUMENTS_FILE = "documents.bin"
RECORD_FILE = "corpus.json"
MAX_RECORD = 1 << 26
"""Bytes of the record: it names the files and the alphabet."""
CHECKED_IDS = 1 << 22
"""Ids looked at together."""
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
    n_files: int
    """Inputs read, the held-out ones included."""
    n_left_out: int
    """Files that were not: see `Sources`."""
    left_out: tuple[str, ...] = ()
    """The first of them."""
    n_copies: int = 0
    """Inputs of the training text with the bytes of another one; they are read all the same."""
    copies: tuple[str, ...] = ()
    """The first of them."""
    n_chars: int
    """Characters of the whole text, whatever the unit."""
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

    def validation_texts(self, limit: int, piece: int) -> list[str]:
        """Return the beginning of the validation part as texts to be read side by side.

        Args:
            limit: most ids of one long text, or of one document; documents are taken whole until
                there are as many characters.
            piece: ids of each text that one long text is cut into.
        """
        decode = self.vocabulary.decode
        if self.documents is None:
            ids = np.asarray(self.val_ids[:limit])
            return [decode(ids[k : k + piece]) for k in range(0, len(ids), piece)]
        texts, n = list[str](), 0
        for spans in self.documents.all_spans(validation=True):
            for begin, end in spans.tolist():
                if n >= limit:
                    return texts
                texts.append(decode(self.ids[begin : min(end, begin + limit)]))
                n += len(texts[-1])
        return texts

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
        """Release the memory of what has been read; it stays on disk.

        A mapped file counts as resident memory for as long as its pages are held.
        """
        for array in (self.ids, None if self.documents is None else self.documents.ends):
            mapping = getattr(array, "_mmap", None)
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)


def load_corpus(folder: Path) -> Corpus:
    """Open a corpus that `encode_corpus` wrote.

    Raises:
        CorpusError: the encoded text is missing or damaged.
    """
    try:
        with open_ordinary(folder / RECORD_FILE) as file:
            text = file.read(MAX_RECORD + 1)
        if len(text) > MAX_RECORD:
            raise ValueError("its record is too long")
        record = json.loads(text)
        config = CorpusConfig.from_dict(record.pop("config"))
        vocabulary = Vocabulary.from_dict(record.pop("vocabulary"))
        documents, split = None, record.pop("documents")
        if split is not None:
            ends, values = _mapped(folder / DOCUMENTS_FILE, np.int64), _checked(Documents, split)
            documents = Documents(ends=ends, seed=config.split_seed, **values)
        corpus = Corpus(
            config=config,
            vocabulary=vocabulary,
            ids=_mapped(folder / IDS_FILE, vocabulary.id_dtype),
            documents=documents,
            **_checked(Corpus, record),
        )
        _check_ids(corpus)
        return corpus
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CorpusError(
            f"the encoded text in {folder} cannot be used ({reason(error)}): start a new run"
        ) from error


def _mapped(path: Path, dtype: Any) -> NDArray[Any]:
    """Return a file as an array that stays on disk."""
    open_ordinary(path).close()
    return np.memmap(path, dtype, "r")


def _checked(kind: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record in the types of the fields of a class, none of them odd.

    Raises:
        ValueError: a value is of another type, not finite, negative or too large.
        LookupError: there is no such field.
    """
    hints = get_type_hints(kind)
    values = {name: typed(name, value, hints[name]) for name, value in record.items()}
    for name, value in values.items():
        if isinstance(value, int | float) and not 0 <= value <= MAX_COUNT:
            raise ValueError(f"{name} is out of range")
    return values


def _check_ids(corpus: Corpus) -> None:
    """Check that the parts of a corpus fit together, so that whatever reads it stays inside.

    Raises:
        ValueError: they do not.
    """
    ids, documents = corpus.ids, corpus.documents
    n_parts = [corpus.n_train, corpus.n_val]
    if corpus.n_train < 1 or len(ids) != sum(n_parts) + (documents is None and not corpus.n_val):
        raise ValueError("its length is not the one recorded")
    if (documents is None) != (corpus.config.documents == "none") or STDIN in (
        *corpus.paths,
        *corpus.held_out_paths,
    ):
        raise ValueError("its record contradicts itself")
    for start in range(0, len(ids), CHECKED_IDS):
        if int(ids[start : start + CHECKED_IDS].max()) >= len(corpus.vocabulary):
            raise ValueError("it has ids that its alphabet lacks")
        corpus.release_memory()
    if documents is None:
        return
    n_ids = [0, 0]
    for part in (0, 1):
        for spans in documents.all_spans(validation=part == 1):
            lengths = spans[:, 1] - spans[:, 0]
            if len(spans) and (lengths.min() < 1 or spans.min() < 0 or spans.max() > len(ids)):
                raise ValueError("its documents overlap")
            n_ids[part] += int(lengths.sum())
            corpus.release_memory()
    if n_ids != n_parts or documents.ends[-1] != len(ids):
        raise ValueError("its documents are not those recorded")


def digest_of(paths: Sequence[str | os.PathLike[str]], globs: Sequence[str]) -> str:
    """Return the SHA-256 of the (decompressed) bytes of inputs, in order.

    Raises:
        CorpusError: an input is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for source in find_sources(paths, globs):
        for _ in read_bytes(source, [digest]):
            pass
    return digest.hexdigest()
