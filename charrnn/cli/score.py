"""`charrnn score`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import charrnn.cli.options as options
from charrnn.config import CorpusConfig, DecodingErrors, OnUnknown
from charrnn.errors import ConfigError
from charrnn.training.system import leave_cores_to_threads

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.scoring.mixing import Mixer
    from charrnn.scoring.score import Score
    from charrnn.scoring.scorer import Scorer

ALTERNATIVES = 3
MAX_ALTERNATIVES = 1000
"""More would be a table of the alphabet at each character."""
WARMUP = 256
PAGE_HEAD = 512
"""Bytes at the beginning of a page by which it is known."""


def score(
    texts: list[str] = typer.Argument(
        None, metavar="TEXT", show_default=False, help="Texts to score."
    ),
    model: Path = options.MODEL,
    file: Path = options.FILE,
    whole: bool = options.WHOLE,
    context: str = options.CONTEXT,
    eos: bool = options.EOS,
    on_unknown: OnUnknown = options.ON_UNKNOWN,
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
    only_total: bool = options.TOTAL,
    per_char: bool = options.report(
        False, "--per-char", "Show every character, coloured on a terminal."
    ),
    alternatives: int = options.report(
        None,
        "--alternatives",
        "With --per-char and --html: name the K most probable characters.",
        metavar="K",
        show_default=str(ALTERNATIVES),
    ),
    per_word: bool = options.report(
        False, "--per-word", "Show every word, with the sum over its characters."
    ),
    sort: bool = options.report(False, "--sort", "Show the most probable text first."),
    by: options.By = options.by_option(
        "With --sort: rank by the probability in all, or per character."
    ),
    adapt: bool = options.report(
        False,
        "--adapt",
        "Score also with a copy of the model that learns from what it has scored (dynamic "
        "evaluation), mixed with counts of it.",
    ),
    corpus: list[str] = options.report(
        None,
        "--from",
        "With --adapt: first count this text, such as the one the model was trained on. May be "
        "given several times.",
        metavar="CORPUS",
        show_default="none",
    ),
    rows: int = options.report(
        None,
        "--rows",
        "With --whole: read N pieces side by side, which is fast and nearly exact.",
        metavar="N",
        show_default="1, which is exact",
    ),
    warmup: int = options.report(
        None,
        "--warmup",
        "With --rows: characters (in a byte model bytes) read before each piece without being "
        "counted.",
        show_default=str(WARMUP),
    ),
    device: str = options.DEVICE,
    output_format: options.Format = options.FORMAT,
    html: Path = options.output(
        None,
        "--html",
        "Also write a page with the texts coloured by surprise.",
        metavar="FILE",
        parser=options.path_name,
        show_default="none",
    ),
) -> None:
    """Say how probable texts are under the model.

    Logarithms are natural in logprob (nats), to base 2 in log2prob and bits.
    """
    if adapt:
        leave_cores_to_threads()
    reports = {"--per-char": per_char, "--per-word": per_word, "--sort": sort}
    others = {"--adapt": adapt, "--rows": rows is not None}
    for several in ({**reports, **others}, {**reports, "--total": only_total}):
        asked = [name for name, is_on in several.items() if is_on]
        if len(asked) > 1:
            raise ConfigError(f"{asked[0]} and {asked[1]} are different reports: ask for one")
    if alternatives is not None and not (per_char or html is not None):
        raise ConfigError("--alternatives needs --per-char or --html")
    if alternatives is None:
        alternatives = ALTERNATIVES
    if not 0 <= alternatives <= MAX_ALTERNATIVES:
        raise ConfigError(
            f"must be from 0 to {MAX_ALTERNATIVES:,}, got {alternatives}", field="alternatives"
        )
    if corpus and not adapt:
        raise ConfigError("--from needs --adapt: it names a text to count before others are scored")
    if adapt and html is not None:
        raise ConfigError("--html shows the model as it is, not --adapt: ask for one")
    if whole and sort:
        raise ConfigError("--sort ranks several texts, and --whole is one")
    if rows is not None and not whole:
        raise ConfigError("--rows needs --whole: it reads one long text in pieces")
    if rows is not None and (html is not None or context):
        raise ConfigError("--rows excludes --html and --context: leave them out")
    if warmup is not None and rows is None:
        raise ConfigError("--warmup needs --rows")
    if rows is not None:
        from charrnn.scoring.rows import check_rows

        check_rows(rows, WARMUP if warmup is None else warmup)
    if html == options.STDIN:
        raise ConfigError("--html writes a file beside the report: name it")
    if by is not None and not sort:
        raise ConfigError("--by needs --sort")

    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    given = options.Input(texts, file, whole=whole, read=read)
    check_files(context, given.file, html)
    _check_corpus(corpus, given.file)
    if adapt and device not in ("auto", "cpu"):
        raise ConfigError(
            "is not for --adapt, which learns on the CPU: leave it out", field="device"
        )
    is_one = adapt or per_char or per_word or html is not None
    asked, device = device, options.choose_device(device, **_extent(given, 1 if is_one else rows))
    text_before = read.context(context)
    loaded = options.open_model(model)
    if asked == "auto" and loaded.saved.config.bidirectional:
        device = "cpu"
    scorer = options.make_scorer(
        loaded, eos=eos, on_unknown=on_unknown, context=text_before, device=device
    )
    documents = given.documents(loaded.saved.vocabulary.unit)
    form = options.format_or_default(output_format)
    where = places(texts, given)
    tally = Tally(scorer, where)

    from charrnn.display import heatmap
    from charrnn.display.score import (
        show_adaptation,
        show_scores,
        tell_about,
        tell_corpus,
        tell_rows,
    )
    from charrnn.display.terminal import say
    from charrnn.scoring.details import char_scores
    from charrnn.scoring.pairs import rank
    from charrnn.scoring.rows import score_in_rows
    from charrnn.scoring.signature import signature

    made = ""
    if html is not None:
        documents = _write_page(html, documents, loaded, scorer, alternatives, where)
    if per_char or per_word:
        named = alternatives if per_char else 0
        events = (
            char_scores(scorer, tally.counted(one.pieces), alternatives=named, what=where(number))
            for number, one in enumerate(documents, 1)
        )
        if per_char:
            from_both_sides = loaded.saved.config.bidirectional and named > 0
            heatmap.show_characters(events, form, named, likelier=from_both_sides)
        else:
            heatmap.show_words(events, form)
    elif adapt:
        mixer, digest = _count(loaded, corpus or (), encoding, errors)
        scores = _adapt(loaded, scorer, documents, tally, mixer)
        made = signature(loaded.saved, scorer, adapts=True, with_corpus=digest)
        show_adaptation(scores, form, made, only_total=only_total)
        sys.stdout.flush()
        if corpus:
            tell_corpus(mixer.n_counted, mixer.n_left_out, mixer.n_copied, tally.total.n_scored)
    elif rows is not None:
        (one,) = documents
        before = WARMUP if warmup is None else warmup
        found = score_in_rows(
            scorer, one.pieces, rows=rows, warmup=before, text=one.name, what=where(1)
        )
        made = signature(loaded.saved, scorer, rows=found.rows, warmup=before)
        show_scores(tally.numbered([found.score]), form, made, only_total=only_total)
        sys.stdout.flush()
        tell_rows(found, before, loaded.saved.vocabulary.unit)
    else:
        scored: Iterable[tuple[int, Score]]
        scored = tally.numbered(_scores(scorer, documents, whole, where))
        if sort:
            scored = rank(scored, per_char=by == "per-char")
        made = signature(loaded.saved, scorer)
        show_scores(scored, form, made, only_total=only_total)
    sys.stdout.flush()
    if made and (whole or adapt or only_total):
        say(f"signature {made}")
    if given.hint():
        say(given.hint())
    tell_about(
        tally.total,
        loaded.saved.vocabulary,
        n_texts=0 if only_total or per_char or per_word or form == "table" else tally.n_texts,
        n_empty=tally.n_empty,
        first_empty=tally.first_empty,
        eos=scorer.eos,
        places=tally.places if tally.n_texts > 1 else {},
    )


def _extent(given: options.Input, rows: int | None) -> dict[str, int]:
    """Return the texts read side by side and their size, as far as the name of a file tells.

    Args:
        given: the texts.
        rows: pieces of one text; None reads it in one, or many lines side by side.
    """
    from charrnn.scoring.batch import DEVICE_BATCH_SIZE

    if rows is None:
        rows = 1 if given.whole else DEVICE_BATCH_SIZE
    path = "" if given.file in (None, options.STDIN) else str(given.file)
    return {"rows": rows, "chars": os.path.getsize(path) if os.path.isfile(path) else 0}


def places(texts: Sequence[str] | None, given: options.Input) -> Callable[[int], str]:
    """Return what gives a text of a command line its name in messages, by its number from 1."""
    n_texts = len(texts or ())
    file = options.file_name(given.file)

    def place(number: int) -> str:
        if given.whole:
            return file
        if number > n_texts:
            return f"line {number - n_texts:,} of {file}"
        return "the text" if n_texts == 1 and given.file is None else f"text {number:,}"

    return place


def _scores(
    scorer: Scorer,
    documents: Iterable[options.Document],
    whole: bool,
    where: Callable[[int], str],
) -> Iterable[Score]:
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.scorer import score_pieces

    if whole:
        return (score_pieces(scorer, one.pieces, text=one.name, what=one.name) for one in documents)
    return score_many(scorer, (one.name for one in documents), what=where)


def _check_corpus(corpus: Sequence[str] | None, file: Path | None) -> None:
    """See that a corpus can be counted, and is not what is scored.

    Raises:
        ConfigError: it is, or comes from standard input.
        CorpusError: it does not exist or cannot be read.
    """
    if not corpus:
        return
    from charrnn.corpus.sources import find_sources

    if str(options.STDIN) in corpus:
        raise ConfigError("--from reads a file or a directory, not standard input: name it")
    scored = None if file is None or file == options.STDIN else options.identity(file)
    for source in find_sources(corpus):
        if scored is not None and source.identity == scored:
            raise ConfigError(
                f"--from {source.name} is the text that is scored: count another one, such as the "
                "part that the model was trained on"
            )


def _count(
    model: CharModel, corpus: Sequence[str], encoding: str, errors: DecodingErrors
) -> tuple[Mixer, str]:
    """Return a mixer that has counted a corpus, and the hash of the corpus.

    Of a long corpus the end is counted.

    Raises:
        CorpusError: it cannot be read or decoded, or there is nothing in it.
    """
    import hashlib

    from charrnn.corpus.encode import read_ids
    from charrnn.scoring.mixing import Mixer

    mixer = Mixer(model.saved.vocabulary)
    if not corpus:
        return mixer, ""
    digest = hashlib.sha256()
    rules = CorpusConfig(
        documents=model.saved.text.documents,
        normalize=model.saved.text.normalize,
        unit=model.saved.vocabulary.unit,
        encoding=encoding,
        errors=errors,
    )
    mixer.read_end(read_ids(corpus, model.saved.vocabulary, rules, digest))
    return mixer, digest.hexdigest()


def _adapt(
    model: CharModel,
    scorer: Scorer,
    documents: Iterable[options.Document],
    tally: Tally,
    mixer: Mixer,
) -> Iterator[tuple[Score, Score]]:
    """Yield the static and the adapted score of each text."""
    from charrnn.training.system import load_torch

    load_torch()
    from charrnn.scoring.adaptation import Adapter
    from charrnn.scoring.score import Score

    adapter = Adapter(model.saved, scorer, mixer=mixer)
    for number, one in enumerate(documents, 1):
        read = adapter.score(one.pieces, what=tally.where(number))
        # without its text, of which there may be a gigabyte
        blocks = [[replace(s, text="") for s in both] for both in read]
        columns = zip(*blocks, strict=True) if blocks else ((), ())
        static, adapted = (Score.total(column, text=one.name) for column in columns)
        tally.add(static)
        yield static, adapted


def check_files(context: str, file: Path | None, html: Path | None = None) -> None:
    """See that no output is a file that is read, and that a page replaces at most another page.

    Standard input can be read once.

    Args:
        context: the option; after an @ it names a file.
        file: what is read, beside standard input.
        html: the page to write.

    Raises:
        ConfigError: something else would be written over, or standard input is read twice.
    """
    from charrnn.display.page import is_page

    if file == options.STDIN and context == f"@{options.STDIN}":
        raise ConfigError("--context and the texts both come from standard input: name a file")
    read = options.require_apart(
        [
            *([] if file is None or file == options.STDIN else [file]),
            *([Path(context[1:])] if context[:1] == "@" and context[:2] != "@@" else []),
        ]
    )
    page = options.identity(html) if html is not None else None
    if html is None or page is None:
        return
    why = ""
    if page in read:
        why = "which is read"
    elif page in (options.identity(1), options.identity(2)):
        why = "where the report or the messages go"
    elif html.stat().st_size:
        with open(html, "rb") as old:
            why = "" if is_page(old.read(PAGE_HEAD)) else "which is no page of charrnn"
    if why:
        raise ConfigError(f"--html would replace {html}, {why}: name another file")


def _write_page(
    path: Path,
    documents: Iterable[options.Document],
    model: CharModel,
    scorer: Scorer,
    alternatives: int,
    where: Callable[[int], str],
) -> list[options.Document]:
    """Write the page, and return the texts for the report beside it.

    Raises:
        ConfigError: the page would be too large.
    """
    from charrnn.display.format import UNITS
    from charrnn.display.page import MAX_EVENTS, page
    from charrnn.display.terminal import say
    from charrnn.scoring.details import char_scores
    from charrnn.storage.atomic import write_text_atomically
    from charrnn.storage.runs import MODEL_FILE
    from charrnn.vocab import utf8

    assert model.path is not None
    kept: list[options.Document] = []
    unit = scorer.vocabulary.unit
    most, n_units = MAX_EVENTS // (1 + max(alternatives, ALTERNATIVES)), 0
    for one in documents:
        pieces = []
        for piece in one.pieces:
            pieces.append(piece)
            n_units += len(utf8(piece) if unit == "byte" else piece)
            if n_units > most:
                raise ConfigError(
                    f"--html is for at most {most:,} {UNITS[unit][1]} with {alternatives} "
                    "alternatives each: give it less text"
                )
        kept.append(options.Document(one.name, pieces))
    texts = [
        list(char_scores(scorer, one.pieces, alternatives=alternatives, what=where(number)))
        for number, one in enumerate(kept, 1)
    ]
    name = model.path.resolve().parent.name if model.path.name == MODEL_FILE else model.path.stem
    write_text_atomically(path, page(texts, name), follow_links=True)
    say(f"page {path}")
    return kept


class Tally:
    """Counts what is to be said at the end: texts, unknown characters and empty texts.

    Attributes:
        total: of all texts.
        n_texts: how many there were.
        n_empty: how many of them were empty.
        first_empty: the name of the first of those.
        places: the name of the first text with each unknown character.
    """

    def __init__(self, scorer: Scorer, where: Callable[[int], str]) -> None:
        """Begin with nothing; `where` names a text by its number."""
        from charrnn.scoring.score import Score

        self.where = where
        self.places: dict[str, str] = {}
        self._scorer = scorer
        self.total = Score.total(())
        self.n_texts = self.n_empty = 0
        self.first_empty = ""

    def add(self, score: Score) -> None:
        """Count the score of a text."""
        self.total = self.total.total((self.total, score))
        self.n_texts += 1
        if score.n_chars == 0 and score.n_skipped == 0:
            self.n_empty += 1
            self.first_empty = self.first_empty or self.where(self.n_texts)
        for one in score.unknown:
            self.places.setdefault(one.character, self.where(self.n_texts))

    def numbered(self, scores: Iterable[Score]) -> Iterator[tuple[int, Score]]:
        """Yield scores again, each with its number from 1, and count them."""
        for one in scores:
            self.add(one)
            yield self.n_texts, one

    def counted(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of one text again, and count what they consist of."""
        from charrnn.scoring.scorer import scored

        n_chars = 0
        parts = []
        for piece in self._scorer.normalized(pieces):
            what = self.where(self.n_texts + 1)
            parts.append(scored(self._scorer.encode(piece, offset=n_chars, what=what)))
            n_chars += len(piece)
            yield piece
        self.add(self.total.total(parts))
