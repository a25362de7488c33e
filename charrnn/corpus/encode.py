"""Decoded text → ids in a file, in one reading of the input and little memory.

The vocabulary is that of the training split, and where that split ends is known only when the
whole text has been read. So the text is first written with provisional ids, in order of
appearance; then the characters of the training split are counted, and the provisional ids are
replaced by the final ones, piece by piece.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charrnn.config import CorpusConfig
from charrnn.corpus.corpus import DOCUMENTS_FILE, IDS_FILE, Corpus, load_corpus, names, save_record
from charrnn.corpus.documents import Documents, choose_threshold, count_duplicates
from charrnn.corpus.draft import Draft
from charrnn.corpus.segment import END, NEWLINE, Segmenter
from charrnn.corpus.sources import Form, Source, find_sources, read_text
from charrnn.errors import CorpusError
from charrnn.storage.atomic import storage_errors
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, UNK_ID, ByteVocabulary, Ids, Vocabulary

VALIDATION_SHARE = 0.1
VALIDATION_CHARS = 1_000_000
"""Most characters kept for validation unless a share is asked for."""
TINY = 1000
"""A text with fewer characters is trained on whole unless a share is asked for."""


def encode_corpus(
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    config: CorpusConfig | None = None,
    *,
    held_out: Sequence[str | os.PathLike[str]] = (),
    known: Iterable[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Corpus:
    """Read the inputs once and write their ids to `folder`.

    Args:
        paths: files, directories, or `-` for standard input.
        folder: where the encoded text goes; made if needed.
        config: how files become ids.
        held_out: files that are the validation part, instead of a share of `paths`.
        known: characters that the alphabet has in any case.
        progress: called with the number of ids written so far.

    Raises:
        CorpusError: nothing to read, undecodable bytes, or an empty text.
        ConfigError: no character is frequent enough.
        StorageError: the ids cannot be written.
    """
    config = config or CorpusConfig()
    sources = find_sources(paths, config.glob)
    validation = find_sources(held_out, config.glob) if held_out else []
    existed = folder.exists()
    try:
        return _encode(sources, validation, folder, config, known, progress)
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _encode(
    sources: Sequence[Source],
    validation: Sequence[Source],
    folder: Path,
    config: CorpusConfig,
    known: Iterable[str],
    progress: Callable[[int], None] | None,
) -> Corpus:
    draft_path = folder / "draft.bin"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft_path, "w+b") as file:
                draft = Draft(file)
                digest, form = hashlib.sha256(), Form()
                _read_all(sources, draft, config, digest, form, progress)
                n_first = draft.length
                if validation:
                    _read_all(validation, draft, config, digest, form, progress)
                if n_first == 0:
                    raise CorpusError(
                        f"{names(sources)} has no text in it: give a file with some characters"
                    )
                split = _split(draft, folder, config, n_first if validation else None)
                written = _write_ids(draft, split, folder, config, known)
        finally:
            draft_path.unlink(missing_ok=True)
    n_documents = len(split.documents) if split.documents is not None else 0
    record = {
        "name": sources[0].stem,
        "config": config.to_dict(),
        "vocabulary": written.vocabulary.to_dict(),
        "n_chars": draft.length - n_documents,
        "n_train": written.n_train,
        "n_val": draft.length - written.n_train,
        "n_bytes": written.n_bytes,
        "n_unknown": written.n_unknown,
        "n_documents": n_documents,
        "n_duplicates": None,
        "has_held_out": bool(validation),
        "held_out_from": split.documents.held_out_from if split.documents is not None else None,
        "threshold": split.documents.threshold if split.documents is not None else 0.0,
        "sha256": digest.hexdigest(),
        "paths": _absolute([*sources, *validation]),
        "encodings": sorted(form.encodings),
        "newlines": sorted(form.newlines),
        "mean_line": draft.length / (written.n_newlines + 1),
        "has_blank_lines": draft.has_blank_lines,
    }
    save_record(folder, record)
    if split.documents is not None:
        corpus = load_corpus(folder)
        assert corpus.documents is not None
        record["n_duplicates"] = count_duplicates(corpus.documents, corpus.ids)
        save_record(folder, record)
    return load_corpus(folder)


def _read_all(
    sources: Sequence[Source],
    draft: Draft,
    config: CorpusConfig,
    digest: hashlib._Hash,
    form: Form,
    progress: Callable[[int], None] | None,
) -> None:
    segmenter = Segmenter(config.documents, config.unit)
    for source in sources:
        for text, final in _with_end(read_text(source, digest, config, form)):
            draft.write(segmenter.feed(text, final))
            if progress is not None:
                progress(draft.length)


def _with_end(texts: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Pair each piece with whether it is the last."""
    held = next(texts)
    for text in texts:
        yield held, False
        held = text
    yield held, True


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Which ids are for training: the first `n_train`, or those of the training documents."""

    n_train: int
    """Of one long text; 0 for documents."""
    documents: Documents | None

    def pieces(self, draft: Draft) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
        """Yield the draft's pieces with a mask of what is for training."""
        end_id = draft.find(END)
        begin = number = 0
        for ids in draft.pieces():
            if self.documents is None:
                train = np.arange(begin, begin + len(ids)) < self.n_train
            else:
                ends = np.flatnonzero(ids == end_id) + 1
                kept = self.documents.is_validation(np.arange(number, number + len(ends) + 1))
                edges = np.concatenate([[0], ends, [len(ids)]])
                train = ~np.repeat(kept, np.diff(edges))
                number += len(ends)
            yield ids, train
            begin += len(ids)


def _split(draft: Draft, folder: Path, config: CorpusConfig, n_first: int | None) -> _Split:
    """Choose the training part; for documents, write where they end.

    `n_first` is the number of ids before those of the held-out files, if there are any.
    """
    default = min(VALIDATION_SHARE, VALIDATION_CHARS / draft.length)
    if config.documents == "none" and n_first is not None:
        return _Split(n_train=n_first, documents=None)
    if config.documents == "none":
        share = config.val_fraction
        if share is None:
            share = default if draft.length >= TINY else 0.0
        n_train = max(1, int(draft.length * (1 - share)))
        return _Split(n_train=n_train, documents=None)
    end_id, begin, n = draft.find(END), 0, 0
    held_out_from = None
    with open(folder / DOCUMENTS_FILE, "wb") as file:
        for ids in draft.pieces():
            ends = np.flatnonzero(ids == end_id) + (begin + 1)
            file.write(ends.astype(np.int64).tobytes())
            if n_first is not None and begin <= n_first:
                held_out_from = n + int(np.searchsorted(ends, n_first, side="right"))
            n += len(ends)
            begin += len(ids)
    documents = Documents(
        ends=np.memmap(folder / DOCUMENTS_FILE, dtype=np.int64, mode="r"),
        seed=config.split_seed,
        threshold=choose_threshold(n, config.val_fraction, default, config.split_seed),
        held_out_from=held_out_from,
    )
    return _Split(n_train=0, documents=documents)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What writing the final ids has shown."""

    vocabulary: Vocabulary
    n_train: int
    n_unknown: int
    n_bytes: int
    n_newlines: int


def _write_ids(
    draft: Draft, split: _Split, folder: Path, config: CorpusConfig, known: Iterable[str]
) -> _Written:
    """Count, choose the vocabulary, and write the final ids."""
    size = len(draft.codes)
    counts, others = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for ids, train in split.pieces(draft):
        counts += np.bincount(ids[train], minlength=size)
        others += np.bincount(ids[~train], minlength=size)
    totals, n_train = counts + others, int(counts.sum())
    codes = np.array(draft.codes, dtype=np.int64)
    is_text = codes != END
    vocabulary: Vocabulary
    if config.unit == "byte":
        vocabulary = ByteVocabulary()
        final = np.where(is_text, codes + FIRST_CHARACTER_ID, EOS_ID).astype(vocabulary.id_dtype)
        n_bytes = int(totals[is_text].sum())
    else:
        characters = [chr(code) for code in codes[is_text]]
        vocabulary = Vocabulary.from_counts(
            dict(zip(characters, counts[is_text].tolist(), strict=True)), config.min_count, known
        )
        final = np.full(size, EOS_ID, dtype=vocabulary.id_dtype)
        final[is_text] = vocabulary.encode("".join(characters))
        n_bytes = int(totals[is_text] @ _utf8_lengths(codes[is_text]))
    with open(folder / IDS_FILE, "wb") as file:
        for ids in draft.pieces():
            file.write(final[ids].tobytes())
        if split.documents is None and n_train == draft.length:
            # the end of the text is in the training part, so its end can be learned
            file.write(np.array([EOS_ID], dtype=vocabulary.id_dtype).tobytes())
    return _Written(
        vocabulary=vocabulary,
        n_train=n_train,
        n_unknown=int(totals[final == UNK_ID].sum()),
        n_bytes=n_bytes,
        n_newlines=int(totals[codes == NEWLINE].sum()),
    )


def _utf8_lengths(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    bounds = np.array([0x80, 0x800, 0x10000])
    return 1 + np.searchsorted(bounds, codes, side="right").astype(np.int64)


def _absolute(sources: Sequence[Source]) -> list[str]:
    if any(source.path is None for source in sources):
        return []
    return [str(source.path.resolve()) for source in sources if source.path is not None]
