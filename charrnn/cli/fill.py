"""`charrnn fill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

import charrnn.cli.options as options
from charrnn.cli.options import option, with_settings
from charrnn.cli.score import check_files, places
from charrnn.config import DecodingErrors, OnUnknown, SamplingConfig, fresh_seed
from charrnn.errors import ConfigError, UnknownCharacterError

TOP = 5


@with_settings(
    ("How to choose, with --num", SamplingConfig, "temperature top_k top_p min_p seed"),
    temperature={"names": "--temp -t"},
    seed={"show_default": "a fresh one", "default": None, "metavar": "N"},
)
def fill(
    texts: list[str] = typer.Argument(
        None, metavar="TEXT", show_default=False, help="Texts with gaps."
    ),
    model: Path = option(
        None,
        None,
        "--model -m",
        "Model file or run directory.",
        metavar="MODEL",
        parser=options.model_name,
        show_default="the newest bidirectional one under runs/",
    ),
    file: Path = option(
        "What to fill",
        None,
        "--file",
        "Fill each line of this file, and leave lines without gaps as they are; - is standard "
        "input.",
        metavar="FILE",
        parser=options.path_name,
        show_default="standard input, unless there are texts",
    ),
    gap: str = option(
        "What to fill",
        "_",
        "--gap",
        "What stands for a missing character, in a byte model for a byte.",
        metavar="MARK",
    ),
    on_unknown: OnUnknown = option(
        "What to fill",
        "unk",
        "--on-unknown",
        "Characters the model has never seen: read them as UNK (unk), leave them out (skip), or "
        "refuse the text (error).",
    ),
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
    top: int = option(
        "Report",
        None,
        "--top",
        "Number of the most probable fillings.",
        metavar="K",
        show_default=str(TOP),
    ),
    beam: int = option(
        "Report",
        None,
        "--beam",
        "Fillings that the search keeps from gap to gap.",
        metavar="N",
        show_default="64",
    ),
    num: int = option(
        "Report",
        None,
        "--num",
        "Draw this many fillings at random instead, by Gibbs sampling.",
        metavar="N",
        show_default="off",
    ),
    output_format: options.Format = options.FORMAT,
    **settings: Any,
) -> None:
    """Fill the gaps of a text, with a bidirectional model.

    Each missing character is one mark: The c_ts were fu_l. The fillings come with the logarithm of
    their probability, in nats, the most probable one first.
    """
    chosen = [
        name
        for name, value in settings.items()
        if value is not None and value != getattr(SamplingConfig, name)
    ]
    if chosen and num is None:
        raise ConfigError("belongs to random fillings: add --num, or leave it out", field=chosen[0])
    for name, value in (("top", top), ("beam", beam)):
        if num is not None and value is not None:
            raise ConfigError("belongs to the most probable fillings: leave out --num", field=name)
    seed = settings.pop("seed")
    seed = fresh_seed() if seed is None else seed
    SamplingConfig(**settings, seed=seed)

    from charrnn.display.fill import FillDisplay
    from charrnn.display.terminal import say
    from charrnn.model import BEAM
    from charrnn.normalize import normalize
    from charrnn.sampling.fill import Filling
    from charrnn.storage.model_file import require_both_sides

    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    given = options.Input(texts, file, whole=False, read=read, verb="fill")
    check_files("", given.file)
    loaded = options.open_model(model, bidirectional=True)
    require_both_sides(loaded.saved)  # before any line goes out
    where = places(texts, given)
    if num is not None:
        say(f"seed {seed}")
    shown = FillDisplay(options.format_or_default(output_format), is_random=num is not None)
    has_gap = False
    for number, one in enumerate(given.documents(loaded.saved.vocabulary.unit), 1):
        if gap and gap not in one.name and number > len(texts or ()):
            whole = normalize(one.name, loaded.saved.text.normalize)
            shown.add(number, [Filling(whole, (), (), 0.0)])
            continue
        has_gap = True
        try:
            found: list[Filling] = loaded.fill(
                one.name,
                gap=gap,
                top=TOP if top is None else top,
                beam=BEAM if beam is None else beam,
                num=num,
                on_unknown=on_unknown,
                seed=seed,
                **settings,
            )
        except (ConfigError, UnknownCharacterError) as error:
            if number == 1 and given.hint():
                say(given.hint())
            if where(number) == "the text" or getattr(error, "field", None):
                raise
            raise type(error)(f"{where(number)}: {error}") from error
        shown.add(number, found)
    if not has_gap:
        raise ConfigError(
            f"{options.file_name(given.file)} has no gap: write {gap} for each missing character, "
            "or choose another mark (--gap)"
        )
