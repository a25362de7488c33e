"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.api import CharModel

UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def path_name(text: str) -> Path:
    """Return a path; as an empty text, such as an unset variable, it would be the directory here.

    Raises:
        typer.BadParameter: the text is empty.
    """
    if not text:
        raise typer.BadParameter("it is empty; name a file or a directory")
    return Path(text)


def model_name(text: str) -> Path:
    """Return the name of a model as a Path.

    `builtin` is the model that ships with charrnn, `./builtin` a file or directory here. A Path
    makes no difference between the two, so the second is written out.

    Raises:
        typer.BadParameter: the text is empty.
    """
    from charrnn.storage.runs import BUILTIN

    path = path_name(text)
    is_here = text != BUILTIN and path == Path(BUILTIN)
    return path.absolute() if is_here else path


MODEL = typer.Option(
    None,
    "--model",
    "-m",
    metavar="MODEL",
    parser=model_name,
    show_default="the newest under runs/, or else builtin",
    help="Model file or run directory, or builtin: the model that ships with charrnn "
    "(./builtin is a file of that name).",
)


def parse_duration(text: str | None) -> float | None:
    """Return the seconds in `90s`, `2m`, `1h30m` or `45` (seconds).

    Raises:
        ConfigError: the text is no duration.
    """
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ConfigError(f"--time takes a duration such as 90s, 2m or 1h30m, not {text!r}")
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)


def open_model(path: Path | None) -> CharModel:
    """Load the model of `-m`, or the newest, and say on stderr which one when it was not named."""
    from charrnn.api import load
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    model = load(path)
    if path is None and model.path == BUILTIN_MODEL:
        print(
            f"model {BUILTIN}, the one that ships with charrnn (Shakespeare's plays); "
            "train your own: charrnn train YOUR_TEXT.txt",
            file=sys.stderr,
        )
    elif path is None:
        print(f"model {model.path}", file=sys.stderr)
    return model


def read_file(path: Path) -> str:
    """Return the whole text of a file; `-` is standard input.

    Raises:
        CorpusError: it cannot be read or decoded.
    """
    from charrnn.corpus.sources import Source, read_text

    return "".join(read_text(Source(None if str(path) == "-" else path)))


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file without their line ends; `-` is standard input.

    Raises:
        CorpusError: it cannot be read or decoded.
    """
    from charrnn.corpus.sources import Source, read_text

    rest = ""
    for piece in read_text(Source(None if str(path) == "-" else path)):
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
