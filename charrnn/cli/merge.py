"""`charrnn merge`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from charrnn.cli.options import model_name, path_name


def merge(
    models: list[Path] = typer.Argument(
        metavar="MODEL", parser=model_name, help="Model files or run directories, at least two."
    ),
    out: Path = typer.Option(
        None,
        "--out",
        "-o",
        metavar="DIR",
        parser=path_name,
        show_default="a new one under runs/",
        help="Directory for the merged model.",
    ),
    name: str = typer.Option(None, "--name", help="Or its name under runs/."),
) -> None:
    """Make one model of several: where all are well trained, better than each of them.

    Train on the same text with other seeds, then merge: the logits are the mean of the parts'.
    """
    from charrnn.api import merge as merge_into
    from charrnn.display.format import architecture, count
    from charrnn.storage.merge import part_configs

    merged = merge_into(models, out=out, name=name)
    assert merged.path is not None
    run = merged.path.parent
    parts = part_configs(merged.saved.config, merged.saved.weights)
    size = sum(part.num_parameters() for part in parts)
    print(f"{architecture(parts)}; {count(size)} parameters", file=sys.stderr)
    print(f"model {merged.path}", file=sys.stderr)
    print(f"its parts: charrnn info -m {run}", file=sys.stderr)
    print(f"how good it is: charrnn score -m {run} --file HELD_OUT_TEXT --whole", file=sys.stderr)
