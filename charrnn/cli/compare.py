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
from charrnn.errors import ConfigError, ModelFileError

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

    The report has the difference in bits, from six texts on with a 95 % interval.
    """
    from charrnn.api import load
    from charrnn.display.score import show_comparison, tell_about
    from charrnn.display.terminal import say
    from charrnn.scoring.compare import compare as compare_scores

    _require_models(first, second)
    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    given = options.Input(texts, file, whole=whole, read=read)
    check_files(context, given.file)
    text_before = read.context(context)
    models = [load(path) for path in (first, second)]
    if len({model.saved.config.bidirectional for model in models}) > 1:
        raise ConfigError(
            "one of the two models is bidirectional: its figures are pseudo-log-likelihoods, which "
            "cannot be compared with the other's probabilities"
        )
    if len({model.saved.text.normalize for model in models}) > 1:
        raise ConfigError(
            "the two models bring text into different Unicode forms, and so score different texts: "
            "they cannot be compared"
        )
    if (
        eos is None and not models[0].saved.config.bidirectional
    ):  # ends count if both models have learned where texts end
        eos = all(model.ends_count for model in models)
        kinds = [options.trained_on(model) for model in models]
        why = f"both models were trained {kinds[0]}"
        if kinds[0] != kinds[1]:
            why = f"{first} was trained {kinds[0]}, {second} {kinds[1]}"
        say(f"ends of texts are {options.ends(eos)}: {why}")
    scorers = [
        options.make_scorer(
            model, eos=eos, on_unknown=on_unknown, context=text_before, is_first=number == 0
        )
        for number, model in enumerate(models)
    ]
    documents = list(given.documents(models[0].saved.vocabulary.unit))
    where = places(texts, given)
    scores = _scores(scorers, documents, where)
    vocabularies = (scorers[0].vocabulary, scorers[1].vocabulary)
    found = compare_scores(scores[0], scores[1], vocabularies)
    names = (str(first), str(second))
    form = options.format_or_default(output_format)
    show_comparison(found, names, form, in_blocks=len(documents) == 1)
    sys.stdout.flush()
    tallies = [Tally(scorer, where) for scorer in scorers]
    for tally, column in zip(tallies, scores, strict=True):
        for one in column:
            tally.add(one)
    told = list(zip(names, scorers, tallies, strict=True))
    if tallies[0].total.unknown == tallies[1].total.unknown:  # once is enough
        told = [("both models", scorers[0], tallies[0])]
    for name, scorer, tally in told:
        tell_about(
            tally.total,
            scorer.vocabulary,
            n_texts=0,
            n_empty=tally.n_empty if tally is tallies[0] and len(documents) > 1 else 0,
            first_empty=tally.first_empty,
            eos=bool(eos),
            places=tally.places if len(documents) > 1 else {},
            model=name,
        )


def _require_models(*names: Path) -> None:
    """See that models of these names exist.

    Raises:
        ModelFileError: one does not; it may be meant as a text.
    """
    from charrnn.storage.runs import find_model

    for name in names:
        try:
            find_model(name)
        except ModelFileError as error:
            raise ModelFileError(f"{error}; the texts come after the two models") from error


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
