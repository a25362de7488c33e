"""`charrnn merge`."""

from __future__ import annotations

from pathlib import Path

import typer

from charrnn.cli.options import model_name, output, path_name


def merge(
    models: list[Path] = typer.Argument(
        metavar="MODEL", parser=model_name, help="Model files or run directories, at least two."
    ),
    out: Path = output(
        None,
        "--out -o",
        "Directory for the merged model.",
        metavar="DIR",
        parser=path_name,
        show_default="a new one under runs/",
    ),
    name: str = output(
        None, "--name", "Or its name under runs/.", metavar="NAME", show_default="merged"
    ),
) -> None:
    """Merge several models into one ensemble.

    Train on the same text with other seeds, then merge: the logits are the mean of the models'.

    With --documents, each seed holds out other documents, which the others read:
    give all one --held-out file, or no validation loss tells how good they are together.
    """
    from charrnn.api import merge as merge_into
    from charrnn.display.format import architecture, count
    from charrnn.display.info import validation_note
    from charrnn.display.terminal import pasted, say

    merged = merge_into(models, out=out, name=name)
    assert merged.path is not None
    config, run = merged.saved.config, merged.path.parent
    say(f"{architecture(config)}; {count(config.num_parameters())} parameters")
    say(f"model {merged.path}")
    say(f"its members: {pasted(['charrnn', 'info', str(run)])}")
    scoring = ["charrnn", "score", "-m", str(run), "--file", "HELD_OUT_TEXT"]
    # lines are documents of their own to a model of lines
    scoring += ["--total"] if merged.saved.text.documents == "line" else ["--whole"]
    say(f"how good it is: {pasted(scoring)}")
    if note := validation_note(merged.saved):
        say(note)
