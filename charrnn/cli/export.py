"""`charrnn export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import charrnn.cli.options as options
from charrnn.config import DecodingErrors, ExportFormat, StoredPrecision
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.model import CharModel


def export(
    named: Path = options.MODEL_ARGUMENT,
    model: Path = options.MODEL,
    out: Path = options.output(
        None,
        "--out -o",
        "The file to write.",
        metavar="FILE",
        parser=options.path_name,
        show_default="the name of the training text, in this folder",
    ),
    output_format: ExportFormat = options.output(
        "html",
        "--format",
        "html: a page that writes and scores, in any browser, also without a network; npz or json: "
        "the arrays and the alphabet for other programs, in float32.",
    ),
    force: bool = options.output(False, "--force", "Replace the file if it exists."),
    title: str = options.option(
        "The page",
        None,
        "--title",
        "What stands at its top.",
        metavar="TEXT",
        show_default="the name of the training text",
    ),
    prompt: str = options.option(
        "The page",
        "",
        "--prompt",
        "What stands in its field for the beginning of a text.",
        metavar="TEXT",
    ),
    precision: StoredPrecision = options.option(
        "The page",
        None,
        "--precision",
        "Of the weights in it: float16 halves the page, int8 quarters it; the loss that this costs "
        "is measured and printed.",
        show_default="float16",
    ),
    text: Path = options.option(
        "The page",
        None,
        "--text",
        "Measure the cost on the beginning of this text.",
        metavar="FILE",
        parser=options.path_name,
        show_default="the run's validation text, or else text that the model writes",
    ),
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
) -> None:
    """Write a model as one web page, or as arrays for other programs.

    Anyone can open the page: it needs a browser, and neither a network nor another file. It writes,
    lists, proposes and scores. A seed writes what charrnn sample writes with that seed.
    """
    if output_format != "html":
        page_only = {"--title": title, "--prompt": prompt, "--text": text}
        for name, value in page_only.items():
            if value:
                raise ConfigError(f"{name} is for the page: leave it out with {output_format}")
        if precision not in (None, "float32"):
            raise ConfigError(f"--precision is for the page: {output_format} has float32")
    precision = precision or "float16"
    read = options.Reading(escapes=False, encoding=encoding, errors=errors)
    given = None if text is None else _beginning(read, text)
    loaded = options.open_model(options.one_model(named, model), bidirectional=False)

    from charrnn.display.format import size
    from charrnn.display.terminal import say
    from charrnn.export.files import destination

    file = destination(loaded.saved, out, path=loaded.path, format=output_format, force=force)
    if text is not None and file.is_file() and file.samefile(text):
        raise ConfigError(f"names {file}, which --text reads: name another file", field="out")
    is_rounded = output_format == "html" and precision != "float32"
    cost = _cost(loaded, precision, given) if is_rounded else None
    written = loaded.export(
        out, format=output_format, title=title, prompt=prompt, precision=precision, force=force
    )
    say(f"{written}  {size(written.stat().st_size)}")
    if cost is not None:
        say(cost)
    if output_format == "html":
        say("open it in a browser, or send it to somebody: it needs no network and no other file")


def _beginning(read: options.Reading, path: Path) -> str:
    """Return as much of a text as a cost is measured on."""
    from charrnn.export.weights import MEASURED_CHARS

    found = ""
    for piece in read.pieces(path):
        found += piece
        if len(found) >= MEASURED_CHARS:
            break
    if not found:
        raise ConfigError(f"{path} is empty: name a text to measure on", field="text")
    return found


def _cost(model: CharModel, precision: StoredPrecision, text: str | None) -> str:
    """Say what the precision costs, and on what that was measured."""
    from charrnn.display.format import UNITS
    from charrnn.export.weights import cost_in_bits, own_texts, pieces, validation_texts

    saved = model.saved
    if text is not None:
        texts, where = pieces(saved, text), "of that text"
    elif texts := validation_texts(saved, model.path):
        where = "of its validation text"
    else:
        texts, where = own_texts(saved), "that the model wrote"
    added = cost_in_bits(saved, precision, texts)
    unit = UNITS[saved.vocabulary.unit][0]
    n = sum(map(len, texts))
    added += 0.0 if round(added, 5) else -added  # no sign before a zero
    return f"{precision} adds {added:.5f} bits per {unit}, measured on {n:,} characters {where}"
