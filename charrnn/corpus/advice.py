"""What a user should know about the corpus before it is trained on."""

from __future__ import annotations

from charrnn.corpus.corpus import Corpus

SHORT_LINE = 60
MANY_LINES = 20


def advice(corpus: Corpus) -> list[str]:
    """Return sentences about the corpus that matter, most often none."""
    said: list[str] = []
    unusual = [e for e in corpus.encodings if e != "UTF-8"]
    if unusual:
        said.append(f"read as {', '.join(unusual)}")
    foreign = [repr(n)[1:-1] for n in corpus.newlines if n != "\n"]
    if foreign:
        said.append(f"line ends {', '.join(foreign)} became \\n")
    if corpus.n_val == 0:
        said.append("nothing is held out for validation: the best model is the one that fits best")
    if corpus.n_duplicates:
        said.append(
            f"{corpus.n_duplicates:,} validation documents also stand in the training text: "
            "validation is easier than new text would be"
        )
    if looks_like_list(corpus):
        said.append(
            "this looks like a list of short lines: with --documents line the model learns to "
            "begin and end each by itself"
        )
    return said


def looks_like_list(corpus: Corpus) -> bool:
    """Say whether a corpus read as one long text looks like one document a line."""
    return (
        corpus.documents is None
        and not corpus.has_blank_lines
        and corpus.mean_line <= SHORT_LINE
        and corpus.n_chars >= MANY_LINES * corpus.mean_line
        and corpus.newline_id is not None
    )
