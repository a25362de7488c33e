"""`charrnn compare`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import charrnn.cli.options as options
from charrnn.cli.score import Tally, check_files, places
from charrnn.config import DecodingErrors, OnUnknown
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.scoring.score import Score
    from charrnn.scoring.scorer import Scorer


def _model(help_text: str) -> Path:
    option: Path = typer.Argument(metavar="MODEL", parser=options.model_name, help=help_text)
    return option


def compare(
    first: Path = _model("Model file, run directory, or builtin."),
    second: Path = _model("The model to compare with it."),
    texts: list[str] = typer.Argument(
        None, metavar="TEXT", show_default=False, help="Texts to score with both."
    ),
    file: Path = options.FILE,
    whole: bool = options.WHOLE,
    context: str = options.CONTEXT,
    eos: bool = options.EOS,
    on_unknown: OnUnknown = options.ON_UNKNOWN,
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
    output_format: options.Format = options.FORMAT,
) -> None:
    """Compare two models on the same texts.

    The report gives the difference in bits and, from six texts on, its 95 % interval (paired
    bootstrap).
    """
    from charrnn.api import load
    from charrnn.display.score import TOO_FEW, show_comparison, tell_about
    from charrnn.display.terminal import say
    from charrnn.scoring.compare import compare as compare_scores

    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    given = options.Input(texts, file, whole=whole, read=read)
    check_files(context, given.file)
    text_before = read.context(context)
    models = [load(path) for path in (first, second)]
    if len({model.saved.text.normalize for model in models}) > 1:
        raise ConfigError(
            "the two models bring text into different Unicode forms, and so score different texts: "
            "they cannot be compared"
        )
    if eos is None:  # ends count if both models have learned where texts end
        eos = all(model.ends_count for model in models)
        say(f"the end of a text is {'counted (--eos)' if eos else 'not counted (--no-eos)'}")
    scorers = [
        options.make_scorer(model, eos=eos, on_unknown=on_unknown, context=text_before)
        for model in models
    ]
    documents = list(given.documents(models[0].saved.vocabulary.unit))
    where = places(texts, given)
    scores = _scores(scorers, documents, where)
    vocabularies = (scorers[0].vocabulary, scorers[1].vocabulary)
    found = compare_scores(scores[0], scores[1], vocabularies)
    names = (str(models[0].path), str(models[1].path))
    form = options.format_or_default(output_format)
    show_comparison(found, names, form)
    sys.stdout.flush()
    if form != "table" and not found.n_units:
        say(TOO_FEW)
    for name, scorer, column in zip(names, scorers, scores, strict=True):
        tally = Tally(scorer, where)
        for one in column:
            tally.add(one)
        tell_about(
            tally.total,
            scorer.vocabulary,
            n_texts=0,
            n_empty=0,
            eos=False,
            places=tally.places if len(documents) > 1 else {},
            model=name,
        )


def _scores(
    scorers: list[Scorer], documents: list[options.Document], where: Callable[[int], str]
) -> list[list[Score]]:
    """Return the scores by each model: of the texts, or of the blocks of a single text."""
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.scorer import score_blocks

    if len(documents) > 1:
        names = [text.name for text in documents]
        return [list(score_many(one, names, what=where)) for one in scorers]
    # both read the text at once, and keep none of it: it may be a gigabyte
    copies = itertools.tee(documents[0].pieces)
    both_read = (score_blocks(*one, what=where(1)) for one in zip(scorers, copies, strict=True))
    blocks = zip(*both_read, strict=True)
    scores: list[list[Score]] = [[], []]
    for both in blocks:
        for column, one in zip(scores, both, strict=True):
            column.append(replace(one, text=""))
    return scores
