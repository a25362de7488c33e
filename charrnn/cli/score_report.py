"""What `charrnn score` does with checked options: texts in, one report out."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from charrnn.api import CharModel, load
from charrnn.cli.options import open_model
from charrnn.cli.score import WARMUP, Request
from charrnn.cli.score_input import (
    first_of,
    lines_of,
    pieces_of,
    read_context,
    texts_of,
    waiting_stdin,
)
from charrnn.display import score as display
from charrnn.display.page import MAX_CHARS, page
from charrnn.errors import ConfigError
from charrnn.interrupts import interrupts_put_off
from charrnn.scoring.batch import score_many
from charrnn.scoring.compare import compare
from charrnn.scoring.details import char_scores
from charrnn.scoring.lanes import score_lanes
from charrnn.scoring.pairs import judge, rank, read_pairs
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer
from charrnn.scoring.text import score_blocks, score_pieces, scored
from charrnn.storage.atomic import write_text_atomically


def report(request: Request, output: str) -> None:
    """Score what is asked and write the report that is asked.

    Raises:
        CharRNNError: of whatever was given.
    """
    file = request.file
    if file is None and not request.texts and request.pairs is None:
        file = waiting_stdin()
    if request.pairs is not None:
        _pairs(request, output)
        return
    if file is None and not request.texts:
        first_of(iter(()))
    # the first line is awaited before the model is loaded: no text is a mistake of usage
    if request.whole:
        texts: Iterator[str] = iter(())
    else:
        texts = first_of(texts_of(request.texts, file))
    model = open_model(request.model)
    scorer = _scorer(model, request)
    name = "" if file is None else "standard input" if str(file) == "-" else str(file)
    documents: Iterable[tuple[str, Iterable[str]]] = (
        [(name, pieces_of(file, model.saved.vocabulary.unit))]
        if request.whole
        else ((text, [text]) for text in texts)
    )
    Report(request, output, model, scorer).write(documents)


class Report:
    """One report about some texts, each a name and its pieces."""

    def __init__(self, request: Request, output: str, model: CharModel, scorer: Scorer) -> None:
        """Keep what every report needs."""
        self._request = request
        self._output = output
        self._model = model
        self._scorer = scorer
        self._n_empty = 0

    def write(self, documents: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Write the report, then what is to be said about unknown characters and empty texts."""
        request = self._request
        if request.html is not None:
            documents = self._page(documents, request.html)
        if request.per_char or request.per_word:
            total = self._details(documents)
        elif request.compare is not None:
            self._compare(documents, request.compare)
            return
        elif request.adapt:
            total = self._adapt(documents)
        elif request.lanes is not None:
            total = self._lanes(documents)
        else:
            scores = self._count_empty(self._scores(documents))
            if request.sort:
                scores = iter(rank(scores, per_char=request.per_character_rank))
            total = display.show_scores(scores, self._output)
        sys.stdout.flush()
        display.tell_about(total, n_empty=self._n_empty, eos=self._scorer.eos)

    def _scores(self, documents: Iterable[tuple[str, Iterable[str]]]) -> Iterator[Score]:
        if self._request.whole:
            return (score_pieces(self._scorer, pieces, text=name) for name, pieces in documents)
        return score_many(self._scorer, (name for name, _ in documents))

    def _count_empty(self, scores: Iterable[Score]) -> Iterator[Score]:
        for one in scores:
            self._n_empty += one.n_chars == 0 and one.n_skipped == 0
            yield one

    def _details(self, documents: Iterable[tuple[str, Iterable[str]]]) -> Score:
        """Show characters or words, and return the counts."""
        tally = _Tally(self._scorer)
        k = self._request.alternatives if self._request.per_char else 0
        texts = (
            (name, char_scores(self._scorer, tally.pass_on(pieces), alternatives=k))
            for name, pieces in documents
        )
        if self._request.per_char:
            display.show_characters(texts, self._output, k)
        else:
            display.show_words(texts, self._output)
        self._n_empty = tally.n_empty
        return tally.total

    def _compare(self, documents: Iterable[tuple[str, Iterable[str]]], other: Path) -> None:
        second = load(other)
        if second.saved.text.normalize != self._model.saved.text.normalize:
            raise ConfigError(
                "the two models bring text into different Unicode forms, and so score different "
                "texts: they cannot be compared"
            )
        request = replace(self._request, eos=self._scorer.eos)
        scorers = (self._scorer, _scorer(second, request))
        several = list(documents)
        if len(several) == 1:
            copies = itertools.tee(several[0][1])
            blocks = zip(*map(score_blocks, scorers, copies), strict=True)
            columns = list(zip(*((_bare(a), _bare(b)) for a, b in blocks), strict=True))
            first, other_scores = (list(column) for column in columns or [(), ()])
        else:
            texts = [name for name, _ in several]
            first, other_scores = (list(score_many(one, texts)) for one in scorers)
        found = compare(first, other_scores, (self._scorer.vocabulary, second.saved.vocabulary))
        names = (str(self._model.path), str(second.path))
        display.show_comparison(found, names, self._output)
        sys.stdout.flush()
        for name, total in zip(names, (found.first, found.second), strict=True):
            if total.n_unknown:
                print(f"{name}:", file=sys.stderr, end=" ")
                display.tell_about(total, n_empty=0, eos=False)

    def _adapt(self, documents: Iterable[tuple[str, Iterable[str]]]) -> Score:
        with interrupts_put_off():
            from charrnn.scoring.adaptation import Adapter

        adapter = Adapter(self._model.saved, self._scorer)

        def both() -> Iterator[tuple[Score, Score]]:
            for name, pieces in documents:
                blocks = [(_bare(a), _bare(b)) for a, b in adapter.score(pieces)]
                columns = zip(*blocks, strict=True) if blocks else ((), ())
                static, adapted = (Score.total(column, text=name) for column in columns)
                self._n_empty += static.n_chars == 0 and static.n_skipped == 0
                yield static, adapted

        return display.show_adaptation(both(), self._output)

    def _lanes(self, documents: Iterable[tuple[str, Iterable[str]]]) -> Score:
        request = self._request
        assert request.lanes is not None
        warmup = WARMUP if request.warmup is None else request.warmup
        ((name, pieces),) = documents
        found = score_lanes(self._scorer, pieces, lanes=request.lanes, warmup=warmup, text=name)
        total = display.show_scores(self._count_empty([found.score]), self._output)
        sys.stdout.flush()
        display.tell_lanes(found, request.lanes, warmup)
        return total

    def _page(
        self, documents: Iterable[tuple[str, Iterable[str]]], path: Path
    ) -> list[tuple[str, list[str]]]:
        """Write the page, and return the texts for the report beside it."""
        for used in (self._request.file, self._model.path):
            if used is not None and path.exists() and used.exists() and path.samefile(used):
                raise ConfigError(
                    f"--html would write over {path}, which is read: name another file"
                )
        kept = [(name, list(pieces)) for name, pieces in documents]
        n_chars = sum(len(piece) for _, pieces in kept for piece in pieces)
        if n_chars > MAX_CHARS:
            raise ConfigError(
                f"--html is for at most {MAX_CHARS:,} characters, and these texts have "
                f"{n_chars:,}: a browser would not enjoy it"
            )
        k = self._request.alternatives
        texts = [list(char_scores(self._scorer, pieces, alternatives=k)) for _, pieces in kept]
        write_text_atomically(path, page(texts, str(self._model.path)))
        print(f"page {path}", file=sys.stderr)
        return kept


class _Tally:
    """Counts the characters of texts that pass by, for what is said at the end."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._total = Score.total(())
        self.n_empty = 0

    def pass_on(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of one text again."""
        n_chars = 0
        for piece in self._scorer.normalized(pieces):
            count = scored(self._scorer.encode(piece, offset=n_chars))
            self._total = Score.total((self._total, count))
            n_chars += len(piece)
            yield piece
        self.n_empty += n_chars == 0

    @property
    def total(self) -> Score:
        """The counts so far, without probabilities."""
        return self._total


def _bare(score: Score) -> Score:
    """Return a score without its text, of which there may be a gigabyte."""
    return replace(score, text="")


def _scorer(model: CharModel, request: Request) -> Scorer:
    """Return the rules; say on stderr whether ends count when nobody asked."""
    context = read_context(request.context)
    if request.eos is None:
        kind = model.saved.text.documents
        trained = "on one long text" if kind == "none" else f"on documents ({kind})"
        counted = "counted (--eos)" if model.ends_count else "not counted (--no-eos)"
        print(f"model trained {trained}: the end of a text is {counted}", file=sys.stderr)
    return model.scorer(eos=request.eos, on_unknown=request.on_unknown, context=context)


def _pairs(request: Request, output: str) -> None:
    assert request.pairs is not None
    name = "standard input" if str(request.pairs) == "-" else str(request.pairs)
    pairs = read_pairs(lines_of(request.pairs), name)
    model = open_model(request.model)
    scorer = _scorer(model, request)
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.good, pair.bad)))
    scores = dict(zip(texts, score_many(scorer, texts), strict=True))
    display.show_pairs(judge(pairs, scores, per_char=request.per_character_rank), output)
    sys.stdout.flush()
    display.tell_about(Score.total(scores.values()), n_empty=0, eos=scorer.eos)
