"""`charrnn pairs`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

import charrnn.cli.options as options
from charrnn.config import OnUnknown


def pairs(
    file: Path = typer.Argument(
        metavar="FILE",
        help="One pair on each line: good, tab, bad, and perhaps tab, group; or JSON lines with "
        "sentence_good and sentence_bad. - is standard input.",
    ),
    model: Path = options.MODEL,
    context: str = options.CONTEXT,
    eos: bool = options.EOS,
    on_unknown: OnUnknown = options.ON_UNKNOWN,
    by: options.By = options.by_option("Compare the probability in all, or per character."),
    output_format: options.Format = options.FORMAT,
) -> None:
    """Judge minimal pairs: is the better text more probable?

    The report has the share that the model gets right, with a 95 % interval, for each group.
    """
    from charrnn.corpus.sources import lines_of
    from charrnn.display.score import show_pairs, tell_about
    from charrnn.scoring.batch import score_many
    from charrnn.scoring.pairs import judge, read_pairs
    from charrnn.scoring.score import Score

    name = "standard input" if file == options.STDIN else str(file)
    found = read_pairs(lines_of(file), name)
    text_before = options.read_context(context)
    loaded = options.open_model(model)
    scorer = options.make_scorer(loaded, eos=eos, on_unknown=on_unknown, context=text_before)
    texts = list(dict.fromkeys(text for pair in found for text in (pair.good, pair.bad)))
    scores = dict(zip(texts, score_many(scorer, texts), strict=True))
    show_pairs(
        judge(found, scores, per_char=by == "per-char"), options.format_or_default(output_format)
    )
    sys.stdout.flush()
    tell_about(Score.total(scores.values()), n_empty=0, eos=scorer.eos)
