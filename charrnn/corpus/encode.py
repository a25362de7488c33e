"""Decoded text → ids in a file, in one reading of the input and little memory.

The vocabulary is that of the training split, and where that split ends is known only when the
whole text has been read. So the text is first written with provisional ids, in order of
appearance; then the characters of the training split are counted, and the provisional ids are
replaced by the final ones, piece by piece.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import CorpusConfig
from charrnn.corpus.corpus import (
    DOCUMENTS_FILE,
    IDS_FILE,
    RECORD_FILE,
    Corpus,
    Documents,
    choose_threshold,
    count_duplicates,
    load_corpus,
)
from charrnn.corpus.draft import END, NEWLINE, Draft, Segmenter
from charrnn.corpus.sources import Form, Source, Sources, find_sources, names, read_text
from charrnn.errors import CorpusError
from charrnn.storage.atomic import storage_errors, write_text_atomically
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, UNK_ID, ByteVocabulary, Ids, Vocabulary

VALIDATION_SHARE = 0.1
VALIDATION_CHARS = 1_000_000
"""Most characters kept for validation unless a share is asked for."""
SHOWN_NAMES = 3
"""Files that are left out, or copies, of which the names are kept."""
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
        CorpusError: nothing to read, undecodable bytes, an empty text, or one that is held out and
            trained on.
        ConfigError: no character is frequent enough.
        StorageError: the ids cannot be written.
    """
    config = config or CorpusConfig()
    sources = find_sources(paths, config.glob)
    validation = find_sources(held_out, config.glob) if held_out else Sources()
    existed = folder.exists()
    try:
        return _encode(sources, validation, folder, config, known, progress)
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read_ids(
    paths: Sequence[str | os.PathLike[str]],
    vocabulary: Vocabulary,
    config: CorpusConfig,
    digest: hashlib._Hash,
) -> Iterator[Ids]:
    """Yield the ids of a corpus piece by piece, in the alphabet of a model.

    Args:
        paths: files and directories.
        vocabulary: the alphabet; what is not in it is UNK.
        config: how files become ids.
        digest: gets the bytes.

    Raises:
        CorpusError: there is nothing to read, or it cannot be decoded.
    """
    sources, segmenter = find_sources(paths, config.glob), Segmenter(config.documents, config.unit)
    n = 0
    for source in sources:
        for text in itertools.chain(read_text(source, [digest], config), [None]):
            codes = segmenter.feed(text or "", text is None)
            n += len(codes)
            yield vocabulary.ids_of(codes, END)
    if not n:
        raise _no_text(sources)


def _encode(
    sources: Sources,
    validation: Sources,
    folder: Path,
    config: CorpusConfig,
    known: Iterable[str],
    progress: Callable[[int], None] | None,
) -> Corpus:
    draft_path = folder / "draft.bin"
    digest, held_out_digest, form = hashlib.sha256(), hashlib.sha256(), Form()
    _require_apart(*({source.identity: source for source in s} for s in (sources, validation)))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft_path, "w+b") as file:
                draft = Draft(file)
                trained, copies = _read_all(sources, draft, config, digest, form, progress)
                n_first = draft.length
                if n_first == 0:
                    raise _no_text(sources)
                held_out, _ = _read_all(validation, draft, config, held_out_digest, form, progress)
                if validation and draft.length == n_first:
                    raise _no_text(validation)
                _require_apart(trained, held_out)
                documents, n_train = _split(draft, folder, config, n_first if validation else None)
                written = _write_ids(draft, folder, config, known, documents, n_train)
        finally:
            draft_path.unlink(missing_ok=True)
    left_out = [*sources.left_out, *validation.left_out]
    record = {
        "name": sources.stem,
        "config": config.to_dict(),
        "n_files": len(sources) + len(validation),
        "n_left_out": len(left_out),
        "left_out": left_out[:SHOWN_NAMES],
        "n_copies": len(copies),
        "copies": copies[:SHOWN_NAMES],
        "documents": None,
        "sha256": digest.hexdigest(),
        "paths": _absolute(sources),
        "held_out_sha256": held_out_digest.hexdigest() if validation else None,
        "held_out_paths": _absolute(validation),
        "encodings": sorted(form.encodings),
        "newlines": sorted(form.newlines),
        "has_blank_lines": draft.has_blank_lines,
        **written,
    }
    if documents is not None:
        record["documents"] = {
            "threshold": documents.threshold,
            "held_out_from": documents.held_out_from,
        }
    write_text_atomically(folder / RECORD_FILE, json.dumps(record))
    return load_corpus(folder)


def _absolute(sources: Sequence[Source]) -> list[str]:
    """Return where inputs are; nothing if standard input is one of them."""
    paths = [str(source.path.resolve()) for source in sources if source.path is not None]
    return paths if len(paths) == len(sources) else []


def _read_all(
    sources: Sequence[Source],
    draft: Draft,
    config: CorpusConfig,
    digest: hashlib._Hash,
    form: Form,
    progress: Callable[[int], None] | None,
) -> tuple[dict[bytes, Source], list[str]]:
    """Read inputs.

    Returns:
        Those that are not empty by the digest of their bytes, and the names of those with the
        bytes of another.
    """
    segmenter = Segmenter(config.documents, config.unit)
    read: dict[bytes, Source] = {}
    empty, copies = hashlib.sha256().digest(), list[str]()
    for source in sources:
        own = hashlib.sha256()
        for text in read_text(source, [digest, own], config, form):
            draft.write(segmenter.feed(text, False))
            if progress is not None:
                progress(draft.length)
        draft.write(segmenter.feed("", True))
        if own.digest() in read:
            copies.append(source.name)
        elif own.digest() != empty:
            read[own.digest()] = source
    return read, copies


def _require_apart(trained: Mapping[Any, Source], held_out: Mapping[Any, Source]) -> None:
    """Require that no input is both held out and trained on.

    Raises:
        CorpusError: one is, by the key of both mappings.
    """
    for key in held_out:
        if key in trained:
            name, other = held_out[key].name, trained[key].name
            copy = "" if name == other else f", there as {other}"
            raise CorpusError(
                f"{name} is held out, and is in the training text too{copy}: leave it out there, "
                "or hold out another text"
            )


def _no_text(sources: Sequence[Source]) -> CorpusError:
    return CorpusError(f"there is no text in {names(sources)}: give a file with some characters")


def _split(
    draft: Draft, folder: Path, config: CorpusConfig, n_first: int | None
) -> tuple[Documents | None, int]:
    """Choose the training part: of documents, writing where they end, or the first ids of a text.

    Args:
        draft: the whole text.
        folder: for the ends of the documents.
        config: what a document is, and the share to keep for validation.
        n_first: number of ids before those of the held-out files, if there are any.

    Returns:
        The documents if there are any, and the number of training ids of one long text.
    """
    default = min(VALIDATION_SHARE, VALIDATION_CHARS / draft.length)
    if config.documents == "none":
        share = config.val_fraction
        if share is None:
            share = default if draft.length >= TINY else 0.0
        n_train = max(1, int(draft.length * (1 - share)))
        return None, n_train if n_first is None else n_first
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
    return documents, 0


def _training_masks(
    draft: Draft, documents: Documents | None, n_train: int
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """Yield the draft piece by piece, each with a mask of the ids that are for training."""
    end_id = draft.find(END)
    begin = number = 0
    for ids in draft.pieces():
        if documents is None:
            yield ids, np.arange(begin, begin + len(ids)) < n_train
        else:
            ends = np.flatnonzero(ids == end_id) + 1
            kept = documents.is_validation(np.arange(number, number + len(ends) + 1))
            edges = np.concatenate([[0], ends, [len(ids)]])
            yield ids, ~np.repeat(kept, np.diff(edges))
            number += len(ends)
        begin += len(ids)


def _write_ids(
    draft: Draft,
    folder: Path,
    config: CorpusConfig,
    known: Iterable[str],
    documents: Documents | None,
    n_train: int,
) -> dict[str, Any]:
    """Count, choose the vocabulary, write the final ids, and return what the record needs."""
    size = len(draft.codes)
    counts, others = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for ids, train in _training_masks(draft, documents, n_train):
        counts += np.bincount(ids[train], minlength=size)
        others += np.bincount(ids[~train], minlength=size)
    totals, n_train = counts + others, int(counts.sum())
    codes = np.array(draft.codes, dtype=np.int64)
    vocabulary, final = _choose_ids(codes, counts, config, known)
    with open(folder / IDS_FILE, "wb") as file:
        for ids in draft.pieces():
            file.write(final[ids].tobytes())
        if documents is None and n_train == draft.length:
            # the end of the text is in the training part, so its end can be learned
            file.write(np.array([EOS_ID], dtype=final.dtype).tobytes())
    n_duplicates = None
    if documents is not None:
        written = np.memmap(folder / IDS_FILE, dtype=final.dtype, mode="r")
        n_duplicates = count_duplicates(documents, written)
    n_newlines = int(totals[codes == NEWLINE].sum())
    is_text = codes != END
    if config.unit == "char":
        n_chars, n_bytes = totals[is_text].sum(), _utf8_lengths(codes)[is_text] @ totals[is_text]
    else:  # a byte such as 10xxxxxx continues a character
        n_chars, n_bytes = totals[is_text & (codes & 0xC0 != 0x80)].sum(), totals[is_text].sum()
    return {
        "vocabulary": vocabulary.to_dict(),
        "n_train": n_train,
        "n_val": draft.length - n_train,
        "n_chars": int(n_chars),
        "n_bytes": int(n_bytes),
        "n_unknown": int(totals[final == UNK_ID].sum()),
        "n_duplicates": n_duplicates,
        "mean_line": int(n_chars) / (n_newlines + 1),
    }


def _choose_ids(
    codes: NDArray[np.int64], counts: NDArray[np.int64], config: CorpusConfig, known: Iterable[str]
) -> tuple[Vocabulary, Ids]:
    """Return the vocabulary of the training text, and the final id of each provisional one."""
    is_text = codes != END
    if config.unit == "byte":
        vocabulary: Vocabulary = ByteVocabulary()
        final = np.where(is_text, codes + FIRST_CHARACTER_ID, EOS_ID)
        return vocabulary, final.astype(vocabulary.id_dtype)
    characters = [chr(code) for code in codes[is_text]]
    numbers = dict(zip(characters, counts[is_text].tolist(), strict=True))
    vocabulary = Vocabulary.from_counts(numbers, config.min_count, known)
    ids = np.full(len(codes), EOS_ID, dtype=vocabulary.id_dtype)
    ids[is_text] = vocabulary.encode("".join(characters))
    return vocabulary, ids


def _utf8_lengths(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the size in UTF-8 of each character."""
    return 1 + np.searchsorted([0x80, 0x800, 0x10000], codes, side="right").astype(np.int64)
