"""`charrnn score`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import charrnn.cli.options as options
from charrnn.config import OnUnknown
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.scoring.score import Score
    from charrnn.scoring.scorer import Scorer

ALTERNATIVES = 3
WARMUP = 256


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
    per_char: bool = options.report(
        False, "--per-char", "Show every character, coloured on a terminal."
    ),
    alternatives: int = options.report(
        ALTERNATIVES,
        "--alternatives",
        "With --per-char and --html: name the K most probable characters.",
        metavar="K",
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
        "evaluation).",
    ),
    rows: int = options.report(
        None,
        "--rows",
        "With --whole: read N pieces side by side, which is fast and nearly exact.",
        metavar="N",
        show_default=False,
    ),
    warmup: int = options.report(
        None,
        "--warmup",
        "With --rows: characters read before each piece without being counted.",
        show_default=str(WARMUP),
    ),
    output_format: options.Format = options.FORMAT,
    html: Path = options.output(
        None,
        "--html",
        "Write a page with the texts coloured by surprise, too.",
        metavar="FILE",
        show_default=False,
    ),
) -> None:
    """Say how probable texts are under the model.

    Logarithms are natural in logprob (nats), to base 2 in log2prob and bits.
    """
    reports = {"--per-char": per_char, "--per-word": per_word, "--sort": sort, "--adapt": adapt}
    asked = [name for name, is_on in {**reports, "--rows": rows is not None}.items() if is_on]
    if len(asked) > 1:
        raise ConfigError(f"{asked[0]} and {asked[1]} are different reports: ask for one")
    if alternatives < 0:
        raise ConfigError(f"must be at least 0, got {alternatives}", field="alternatives")
    if adapt and html is not None:
        raise ConfigError("--html shows the model as it is, not --adapt: ask for one")
    if whole and sort:
        raise ConfigError("--sort ranks several texts, and --whole is one")
    if rows is not None and (not whole or html is not None or context):
        raise ConfigError("--rows needs --whole, and excludes --html and --context")
    if rows is not None and rows < 1:
        raise ConfigError(f"must be at least 1, got {rows}", field="rows")
    if warmup is not None and rows is None:
        raise ConfigError("--warmup needs --rows")
    if warmup is not None and warmup < 0:
        raise ConfigError(f"must be at least 0, got {warmup}", field="warmup")
    if by is not None and not sort:
        raise ConfigError("--by needs --sort")

    given = options.Input(texts, file, whole=whole)
    text_before = options.read_context(context)
    loaded = options.open_model(model)
    scorer = options.make_scorer(loaded, eos=eos, on_unknown=on_unknown, context=text_before)
    documents = given.documents(loaded.saved.vocabulary.unit)
    form = options.format_or_default(output_format)
    tally = _Tally(scorer)

    from charrnn.display import heatmap
    from charrnn.display.score import show_adaptation, show_scores, tell_about, tell_rows
    from charrnn.scoring.details import char_scores
    from charrnn.scoring.pairs import rank
    from charrnn.scoring.rows import score_in_rows

    if html is not None:
        documents = _write_page(html, documents, loaded, scorer, alternatives, given.file)
    if per_char or per_word:
        named = alternatives if per_char else 0
        events = (
            char_scores(scorer, tally.counted(one.pieces), alternatives=named) for one in documents
        )
        if per_char:
            heatmap.show_characters(events, form, named)
        else:
            heatmap.show_words(events, form)
    elif adapt:
        show_adaptation(_adapt(loaded, scorer, documents, tally), form)
    elif rows is not None:
        (one,) = documents
        before = WARMUP if warmup is None else warmup
        found = score_in_rows(scorer, one.pieces, rows=rows, warmup=before, text=one.name)
        show_scores(tally.passed([found.score]), form)
        sys.stdout.flush()
        tell_rows(found, rows, before)
    else:
        scores = _scores(scorer, documents, whole)
        if sort:
            scores = rank(scores, per_char=by == "per-char")
        show_scores(tally.passed(scores), form)
    sys.stdout.flush()
    tell_about(tally.total, n_empty=tally.n_empty, eos=scorer.eos)


def _scores(scorer: Scorer, documents: Iterable[options.Document], whole: bool) -> Iterable[Score]:
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.scorer import score_pieces

    if whole:
        return (score_pieces(scorer, one.pieces, text=one.name) for one in documents)
    return score_many(scorer, (one.name for one in documents))


def _adapt(
    model: CharModel, scorer: Scorer, documents: Iterable[options.Document], tally: _Tally
) -> Iterator[tuple[Score, Score]]:
    """Yield the static and the adapted score of each text."""
    from charrnn.training.system import load_torch

    load_torch()
    from charrnn.scoring.adaptation import Adapter
    from charrnn.scoring.score import Score

    adapter = Adapter(model.saved, scorer)
    for one in documents:
        # without its text, of which there may be a gigabyte
        blocks = [[replace(s, text="") for s in both] for both in adapter.score(one.pieces)]
        columns = zip(*blocks, strict=True) if blocks else ((), ())
        static, adapted = (Score.total(column, text=one.name) for column in columns)
        tally.add(static)
        yield static, adapted


def _write_page(
    path: Path,
    documents: Iterable[options.Document],
    model: CharModel,
    scorer: Scorer,
    alternatives: int,
    source: Path | None,
) -> list[options.Document]:
    """Write the page, and return the texts for the report beside it.

    Raises:
        ConfigError: the page would replace what it is made from, or be too large.
    """
    from charrnn.display.page import MAX_CHARS, page
    from charrnn.scoring.details import char_scores
    from charrnn.storage.atomic import write_text_atomically

    for used in (source, model.path):
        if used is not None and path.exists() and used.exists() and path.samefile(used):
            raise ConfigError(f"--html would replace {path}, which is read: name another file")
    kept = [options.Document(one.name, list(one.pieces)) for one in documents]
    n_chars = sum(len(piece) for one in kept for piece in one.pieces)
    if n_chars > MAX_CHARS:
        raise ConfigError(
            f"--html is for at most {MAX_CHARS:,} characters, and these texts have {n_chars:,}"
        )
    texts = [list(char_scores(scorer, one.pieces, alternatives=alternatives)) for one in kept]
    write_text_atomically(path, page(texts, str(model.path)), follow_links=True)
    print(f"page {path}", file=sys.stderr)
    return kept


class _Tally:
    """Counts what is to be said at the end: unknown characters and empty texts."""

    def __init__(self, scorer: Scorer) -> None:
        from charrnn.scoring.score import Score

        self._scorer = scorer
        self.total = Score.total(())
        self.n_empty = 0

    def add(self, score: Score) -> None:
        """Count the score of a text."""
        self.total = self.total.total((self.total, score))
        self.n_empty += score.n_chars == 0 and score.n_skipped == 0

    def passed(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Yield scores again, and count them."""
        for one in scores:
            self.add(one)
            yield one

    def counted(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of one text again, and count what they consist of."""
        from charrnn.scoring.scorer import scored

        n_chars = 0
        parts = []
        for piece in self._scorer.normalized(pieces):
            parts.append(scored(self._scorer.encode(piece, offset=n_chars)))
            n_chars += len(piece)
            yield piece
        self.add(self.total.total(parts))
