"""`charrnn pairs`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

import charrnn.cli.options as options
from charrnn.cli.score import Tally, check_files
from charrnn.config import DecodingErrors, OnUnknown


def pairs(
    file: Path = typer.Argument(
        metavar="FILE",
        parser=options.path_name,
        help="One pair on each line: good, tab, bad, and perhaps tab, group; or JSON lines with "
        "sentence_good and sentence_bad. - is standard input.",
    ),
    model: Path = options.MODEL,
    context: str = options.CONTEXT,
    eos: bool = options.EOS,
    on_unknown: OnUnknown = options.ON_UNKNOWN,
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
    only_total: bool = options.TOTAL,
    by: options.By = options.by_option("Compare the probability in all, or per character."),
    output_format: options.Format = options.FORMAT,
) -> None:
    """Judge minimal pairs: is the better text more probable?

    The report has the share that the model gets right, with a 95 % interval, for each group.
    """
    from charrnn.display.score import show_pairs, tell_about, tell_pairs
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.pairs import judge, read_pairs

    name = options.file_name(file)
    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    check_files(context, file)
    found = read_pairs(read.lines(file), name)
    text_before = read.context(context)
    loaded = options.open_model(model)
    scorer = options.make_scorer(loaded, eos=eos, on_unknown=on_unknown, context=text_before)
    places: dict[str, str] = {}
    for pair in found:
        for which, text in (("good", pair.good), ("bad", pair.bad)):
            places.setdefault(text, f"the {which} text in line {pair.line:,} of {name}")
    names = list(places.values())
    tally = Tally(scorer, lambda number: names[number - 1])
    several = tally.numbered(score_many(scorer, places, what=tally.where))
    scores = {text: one for text, (_, one) in zip(places, several, strict=True)}
    groups = judge(found, scores, per_char=by == "per-char")
    form = options.format_or_default(output_format)
    show_pairs(groups, form, only_total=only_total)
    sys.stdout.flush()
    if form != "table" and not only_total and len(groups) > 1:
        tell_pairs(groups[-1])
    tell_about(
        tally.total,
        loaded.saved.vocabulary,
        n_texts=0,
        n_empty=0,
        first_empty="",
        eos=scorer.eos,
        places=tally.places,
    )
