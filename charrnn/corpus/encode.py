"""Decoded text → ids in a file, in one reading of the input and little memory.

The vocabulary is that of the training split, and where that split ends is known only when the
whole text has been read. So the text is first written with provisional ids, in order of
appearance; then the characters of the training split are counted, and the provisional ids are
replaced by the final ones, piece by piece.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.corpus.sources import Source, find_sources, read_bytes, read_text
from charrnn.errors import CorpusError
from charrnn.files import storage_errors, write_text_atomically
from charrnn.vocab import (
    MAX_CODE_POINT,
    UNK_ID,
    Ids,
    Vocabulary,
    code_points,
    id_dtype,
)

PIECE_IDS = 1 << 20
IDS_FILE = "ids.bin"
RECORD_FILE = "corpus.json"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as ids, cut into a training and a validation part."""

    name: str
    """Short name, from the first input."""
    vocabulary: Vocabulary
    ids: Ids
    """`[n_chars]`, memory-mapped."""
    n_train: int
    """Characters in the training part, which comes first."""
    n_bytes: int
    """Size of the decoded text in UTF-8 bytes."""
    n_unknown: int
    """Characters of the whole text that became UNK."""
    sha256: str
    """Of the raw bytes of all inputs, in order."""
    paths: tuple[str, ...]
    """Absolute paths of the files read; empty when standard input was among them."""

    @property
    def n_chars(self) -> int:
        """Characters in all."""
        return len(self.ids)

    @property
    def train_ids(self) -> Ids:
        """Ids of the training part `[n_train]`."""
        return self.ids[: self.n_train]

    @property
    def val_ids(self) -> Ids:
        """Ids of the validation part `[n_chars - n_train]`."""
        return self.ids[self.n_train :]


def encode_corpus(
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    val_fraction: float = 0.1,
    min_count: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Corpus:
    """Read the inputs once and write their ids to `folder`.

    Args:
        paths: files, directories, or `-` for standard input.
        folder: where the encoded text goes; made if needed.
        val_fraction: share of the text, at its end, kept for validation.
        min_count: characters rarer than this in the training part become UNK.
        progress: called with the number of characters read so far.

    Raises:
        CorpusError: nothing to read, undecodable bytes, or an empty text.
        StorageError: the ids cannot be written.
    """
    if not 0 <= val_fraction < 1:
        raise CorpusError(f"the validation fraction must be in [0, 1), got {val_fraction}")
    sources = find_sources(paths)
    draft_path, final_path = folder / "draft.bin", folder / IDS_FILE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(draft_path, "w+b") as file:
            draft = _Draft(file)
            _read_all(sources, draft, progress)
    if draft.n_chars == 0:
        raise CorpusError(f"{_names(sources)} has no text in it: give a file with some characters")
    n_train = max(1, int(draft.n_chars * (1 - val_fraction)))
    drafted = np.memmap(draft_path, dtype=draft.dtype, mode="r")
    counts = _count(drafted[:n_train], draft.size)
    totals = counts + _count(drafted[n_train:], draft.size)
    characters = [chr(code) for code in draft.codes]
    vocabulary = Vocabulary.from_counts(
        dict(zip(characters, counts.tolist(), strict=True)), min_count
    )
    final_id = vocabulary.encode("".join(characters))
    with storage_errors(final_path), open(final_path, "wb") as file:
        for start in range(0, len(drafted), PIECE_IDS):
            file.write(final_id[drafted[start : start + PIECE_IDS]].tobytes())
    del drafted
    draft_path.unlink()
    corpus = Corpus(
        name=sources[0].stem,
        vocabulary=vocabulary,
        ids=np.memmap(final_path, dtype=vocabulary.id_dtype, mode="r"),
        n_train=n_train,
        n_bytes=int(totals @ _utf8_lengths(draft.codes)),
        n_unknown=int(totals[final_id == UNK_ID].sum()),
        sha256=draft.digest.hexdigest(),
        paths=_absolute(sources),
    )
    _save_record(folder, corpus)
    return corpus


def load_corpus(folder: Path) -> Corpus:
    """Open a corpus that `encode_corpus` wrote.

    Raises:
        CorpusError: the encoded text is missing or damaged.
    """
    try:
        record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
        vocabulary = Vocabulary.from_dict(record.pop("vocabulary"))
        ids = np.memmap(folder / IDS_FILE, dtype=vocabulary.id_dtype, mode="r")
        if len(ids) != record.pop("n_chars"):
            raise ValueError("its length is not the one recorded")
        record["paths"] = tuple(record["paths"])
        return Corpus(vocabulary=vocabulary, ids=ids, **record)
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
    sources = find_sources(paths or corpus.paths) if paths or corpus.paths else []
    if not sources or any(source.path is None for source in sources):
        return
    digest = hashlib.sha256()
    for source in sources:
        for _ in read_bytes(source, digest):
            pass
    if digest.hexdigest() != corpus.sha256:
        raise CorpusError(
            f"{_names(sources)} has changed since this run began: start a new run, or put the "
            "old text back"
        )


def _save_record(folder: Path, corpus: Corpus) -> None:
    record = {
        "name": corpus.name,
        "vocabulary": corpus.vocabulary.to_dict(),
        "n_chars": corpus.n_chars,
        "n_train": corpus.n_train,
        "n_bytes": corpus.n_bytes,
        "n_unknown": corpus.n_unknown,
        "sha256": corpus.sha256,
        "paths": list(corpus.paths),
    }
    write_text_atomically(folder / RECORD_FILE, json.dumps(record))


def _absolute(sources: Sequence[Source]) -> tuple[str, ...]:
    if any(source.path is None for source in sources):
        return ()
    return tuple(str(source.path.resolve()) for source in sources if source.path is not None)


class _Draft:
    """Text written with provisional ids, numbered as the characters appear."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.codes: list[int] = []
        self.n_chars = 0
        self.dtype: type[np.unsignedinteger[Any]] = np.uint8
        # int32, one entry a code point; the pages of unused planes are never touched
        self._ids = np.full(MAX_CODE_POINT + 1, -1, dtype=np.int32)

    @property
    def size(self) -> int:
        return len(self.codes)

    def write(self, text: str) -> None:
        codes = code_points(text)
        ids = self._ids[codes]
        new = codes[ids < 0]
        if new.size:
            fresh, first = np.unique(new, return_index=True)
            fresh = fresh[np.argsort(first)]
            self._ids[fresh] = np.arange(self.size, self.size + len(fresh))
            self.codes += fresh.tolist()
            ids = self._ids[codes]
            self._widen(id_dtype(self.size))
        self.file.write(ids.astype(self.dtype).tobytes())  # tofile loses the error of a full disk
        self.n_chars += len(ids)

    def _widen(self, dtype: type[np.unsignedinteger[Any]]) -> None:
        """Rewrite the file in a wider type, from its end so that nothing is overwritten unread."""
        if dtype is self.dtype:
            return
        old, new = np.dtype(self.dtype), np.dtype(dtype)
        self.file.flush()
        for start in reversed(range(0, self.n_chars, PIECE_IDS)):
            count = min(PIECE_IDS, self.n_chars - start)
            self.file.seek(start * old.itemsize)
            piece = np.frombuffer(self.file.read(count * old.itemsize), dtype=old)
            self.file.seek(start * new.itemsize)
            self.file.write(piece.astype(new).tobytes())
        self.file.seek(self.n_chars * new.itemsize)
        self.file.flush()
        self.dtype = dtype


def _read_all(
    sources: Sequence[Source], draft: _Draft, progress: Callable[[int], None] | None
) -> None:
    for source in sources:
        for text in read_text(source, draft.digest):
            if text:
                draft.write(text)
            if progress is not None:
                progress(draft.n_chars)


def _count(ids: Ids, size: int) -> NDArray[np.int64]:
    """Return how often each provisional id occurs, `[size]`, reading piece by piece."""
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(ids), PIECE_IDS):
        counts += np.bincount(ids[start : start + PIECE_IDS], minlength=size)
    return counts


def _utf8_lengths(codes: Sequence[int]) -> NDArray[np.int64]:
    bounds = np.array([0x80, 0x800, 0x10000])
    return 1 + np.searchsorted(bounds, np.array(codes), side="right").astype(np.int64)


def _names(sources: Sequence[Source]) -> str:
    return sources[0].name if len(sources) == 1 else f"the {len(sources)} inputs together"
