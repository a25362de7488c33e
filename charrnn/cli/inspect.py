"""`charrnn inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import charrnn.cli.options as options
import charrnn.cli.views as views
from charrnn.cli.options import option, with_settings
from charrnn.cli.pictures import FORCE, OUT, check_picture, say_written
from charrnn.config import DecodingErrors, Feature, Gate, SamplingConfig
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.model import CharModel

DISTANCE = 200
POSITIONS = 64
MAX_POSITIONS = 10_000


def _view(*given: Any, **more: Any) -> Any:
    return option("What to look at", *given, **more)


def _detail(*given: Any, **more: Any) -> Any:
    return option("Details", *given, **more)


@with_settings(
    ("With --next", SamplingConfig, "temperature top_k top_p min_p"),
    temperature={"names": "--temp -t", "metavar": "T"},
    top_k={"metavar": "K"},
    top_p={"metavar": "P"},
    min_p={"metavar": "P"},
)
def inspect(
    named: list[Path] = typer.Argument(
        None,
        metavar="MODEL",
        parser=options.model_name,
        show_default=False,
        help="The same as --model; several with --gradient-flow.",
    ),
    model: list[Path] = option(
        None,
        None,
        "--model -m",
        "Model file, run directory, or builtin; may be given several times with --gradient-flow.",
        metavar="MODEL",
        parser=options.model_name,
        show_default="the newest under runs/, or else builtin",
    ),
    text: str = _view(
        None,
        "--text",
        "The text that the model reads; @FILE reads it from a file, and @@ begins a text with @.",
        metavar="TEXT|@FILE",
        show_default=False,
    ),
    unit: int = _view(
        None,
        "--unit",
        "Colour the text by this unit, from 0: its memory cell, or where there is none its hidden "
        "state; with --gate by its gate.",
        metavar="N",
        show_default=False,
    ),
    gate: Gate = _view(
        None,
        "--gate",
        "Colour the text by a gate, the mean of all units unless there is --unit: forget, input, "
        "output, update or reset.",
        metavar="GATE",
        show_default=False,
    ),
    find: Feature = _view(
        None,
        "--find",
        "Look in all layers and members for the units that a feature of the text explains best: "
        "quote, bracket, line-position, indent, capital, word-start or digit.",
        metavar="FEATURE",
        show_default=False,
    ),
    gradient_flow: bool = _view(
        False,
        "--gradient-flow",
        "How the influence of a character fades with distance: the norm of the gradient of log "
        "P(x_t) with respect to the hidden state k characters before, averaged over the text.",
    ),
    embeddings: bool = _view(
        False,
        "--embeddings",
        "The characters in two dimensions (PCA), and the nearest neighbours of each.",
    ),
    following: str = _view(
        None,
        "--next",
        "What may come after this text, before and after temperature and filters; an empty text "
        "is the beginning.",
        metavar="TEXT",
        show_default=False,
    ),
    layer: int = _detail(
        None, "--layer", "Which layer, from 0.", metavar="N", show_default="0; where all count, all"
    ),
    member: int = _detail(
        None,
        "--member",
        "Which ensemble member, from 0.",
        metavar="N",
        show_default="0; where all count, all",
    ),
    distance: int = _detail(
        None,
        "--distance",
        "With --gradient-flow: the largest distance, in characters.",
        metavar="K",
        show_default=str(DISTANCE),
    ),
    positions: int = _detail(
        None,
        "--positions",
        "With --gradient-flow: places in the text to average over.",
        metavar="N",
        show_default=str(POSITIONS),
    ),
    escapes: bool = options.ESCAPES,
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    output_format: options.Format = options.FORMAT,
    out: Path = OUT,
    force: bool = FORCE,
    **settings: Any,
) -> None:
    """Look inside a model: what its units do, how far it remembers.

    Layers, members and units are counted from 0, as in the arrays of model.activations in Python.
    """
    given_views = {
        "--unit": unit is not None and gate is None,
        "--gate": gate is not None,
        "--find": find is not None,
        "--gradient-flow": gradient_flow,
        "--embeddings": embeddings,
        "--next": following is not None,
    }
    view = _one_view(given_views)
    if gate is None and unit is not None and view != "--unit":
        raise ConfigError(f"--unit and {view} are different views: ask for one")
    _refuse_others(
        view,
        {
            "--text": text is not None,
            "--layer": layer is not None,
            "--member": member is not None,
            "--distance": distance is not None,
            "--positions": positions is not None,
            "--temp": settings["temperature"] != SamplingConfig.temperature,
            "--top-k": settings["top_k"] != SamplingConfig.top_k,
            "--top-p": settings["top_p"] != SamplingConfig.top_p,
            "--min-p": settings["min_p"] != SamplingConfig.min_p,
        },
    )
    config = SamplingConfig(**settings)
    for name, value, low, high in (
        ("distance", distance, 1, 10_000),
        ("positions", positions, 1, MAX_POSITIONS),
    ):
        if value is not None and not low <= value <= high:
            raise ConfigError(f"must be from {low} to {high:,}, got {value}", field=name)
    in_text = view in ("--unit", "--gate", "--find")
    check_picture(out, force=force, only_page=in_text)
    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    given = "" if text is None else read.context(text, "text")
    if text is not None and not given:
        raise ConfigError("is empty: give at least one character", field="text")
    form = options.format_or_default(output_format)
    paths: list[Path | None] = [*(named or ()), *(model or ())] or [None]
    if view != "--gradient-flow" and len(paths) > 1:
        raise ConfigError(
            f"{view} looks into one model, and {len(paths)} are named: several are for "
            "--gradient-flow"
        )
    models = {
        _name(path, loaded): loaded
        for path in paths
        for loaded in [options.open_model(path, bidirectional=False)]
    }
    if len(models) < len(paths):
        raise ConfigError("a model is named twice: name each once")
    where = views.Where(layer, member, unit)
    for loaded in models.values():
        where.check(loaded)
    (name, loaded), *_ = models.items()
    if view == "--gradient-flow":
        views.show_flow(
            models, given, where, distance or DISTANCE, positions or POSITIONS, form, out
        )
    elif view == "--embeddings":
        views.show_embeddings(name, loaded, where, form, out)
    elif view == "--next":
        views.show_next(name, loaded, read.argument(following), config, form, out)
    elif view == "--find":
        views.show_find(name, loaded, given, find, where, form, out)
    else:
        views.show_unit(name, loaded, given, gate, where, form, out)
    say_written(out)


def _one_view(given: dict[str, bool]) -> str:
    """Return the view asked for.

    Raises:
        ConfigError: there is none, or there are two.
    """
    asked = [name for name, is_on in given.items() if is_on]
    if not asked:
        raise ConfigError(
            "nothing to look at: ask for --unit or --gate with --text, --find with --text, "
            "--gradient-flow with --text, --embeddings, or --next"
        )
    if len(asked) > 1:
        raise ConfigError(f"{asked[0]} and {asked[1]} are different views: ask for one")
    return asked[0]


BELONGS = {
    "--text": ("--unit", "--gate", "--find", "--gradient-flow"),
    "--layer": ("--unit", "--gate", "--find", "--gradient-flow"),
    "--member": ("--unit", "--gate", "--find", "--gradient-flow", "--embeddings"),
    "--distance": ("--gradient-flow",),
    "--positions": ("--gradient-flow",),
    **dict.fromkeys(("--temp", "--top-k", "--top-p", "--min-p"), ("--next",)),
}
"""The views that an option is for."""


def _refuse_others(view: str, given: dict[str, bool]) -> None:
    """Refuse options that a view has no use for, and a view without its text.

    Raises:
        ConfigError: one is given, or the text is missing.
    """
    for name, is_given in given.items():
        if is_given and view not in BELONGS[name]:
            raise ConfigError(f"{name} is not for {view}: leave one of the two out")
    if view in BELONGS["--text"] and not given["--text"]:
        raise ConfigError(f"{view} needs --text: the text that the model reads, or @FILE")


def _name(path: Path | None, model: CharModel) -> str:
    """Return how a model is called in a report."""
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    if path is None and model.path == BUILTIN_MODEL:
        return BUILTIN
    return str(model.path if path is None else path)
