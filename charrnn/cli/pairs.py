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
    from charrnn.display.score import show_pairs, tell_about
    from charrnn.display.terminal import say
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.pairs import judge, read_pairs

    name = options.file_name(file)
    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    check_files(context, file)
    found = read_pairs(read.lines(file), name)
    text_before = read.context(context)
    loaded = options.open_model(model)
    scorer = options.make_scorer(loaded, eos=eos, on_unknown=on_unknown, context=text_before)
    lines: dict[str, int] = {}
    for pair in found:
        for text in (pair.good, pair.bad):
            lines.setdefault(text, pair.line)
    places = [f"line {line:,} of {name}" for line in lines.values()]
    tally = Tally(scorer, lambda number: places[number - 1])
    several = score_many(scorer, lines, what=tally.where)
    scores = dict(zip(lines, tally.passed(several), strict=True))
    groups = judge(found, scores, per_char=by == "per-char")
    form = options.format_or_default(output_format)
    show_pairs(groups, form, only_total=only_total)
    sys.stdout.flush()
    if form != "table" and not only_total and len(groups) > 1:
        say(f"total: {groups[-1].n_correct:,} of {groups[-1].n:,} pairs, {groups[-1].accuracy:.1%}")
    tell_about(
        tally.total,
        loaded.saved.vocabulary,
        n_texts=0,
        n_empty=0,
        eos=scorer.eos,
        places=tally.places,
    )
