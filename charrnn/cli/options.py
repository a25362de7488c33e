"""Options that several commands share, and what is read for them."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_origin, get_type_hints

import typer

from charrnn.config import (
    CorpusConfig,
    DecodingErrors,
    Normalization,
    OnUnknown,
    Unit,
    check_device,
)
from charrnn.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.scoring.scorer import Scorer

Format = Literal["table", "tsv", "jsonl"]
By = Literal["total", "per-char"]
UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
STDIN = Path("-")


def path_name(text: str) -> Path:
    """Return a path; an empty text, such as an unset variable, would be the current directory.

    Raises:
        typer.BadParameter: the text is empty.
    """
    if not text:
        raise typer.BadParameter("it is empty; name a file or a directory")
    return Path(text)


def model_name(text: str) -> Path:
    """Return the name of a model as a Path.

    `builtin` is the bundled model, `./builtin` a file or directory here. A Path makes no
    difference between the two, so the second is written out.

    Raises:
        typer.BadParameter: the text is empty.
    """
    from charrnn.storage.runs import BUILTIN

    path = path_name(text)
    is_here = text != BUILTIN and path == Path(BUILTIN)
    return path.absolute() if is_here else path


def seconds(text: str) -> float:
    """Return the seconds in `90s`, `2m`, `1.5h`, `1h30m` or `45` (seconds).

    Raises:
        typer.BadParameter: the text is no duration.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 2m, 1.5h or 1h30m")
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)


def option(panel: str | None, default: Any, names: str, text: str, **more: Any) -> Any:
    """Return an option; `names` are separated by spaces, and choices may be in capitals."""
    if default is False:
        more = {"show_default": "off", **more}
    return typer.Option(
        default, *names.split(), help=text, rich_help_panel=panel, case_sensitive=False, **more
    )


def with_settings(
    *panels: tuple[str, type, str], **special: Mapping[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of some fields of configs, with their type and help.

    The command takes them as keywords.

    Args:
        panels: the panel of the help page, the config, and its fields, separated by spaces.
        special: by field, what its option has otherwise: its `names`, or arguments of `option`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for panel, config, fields in panels:
            known = {field.name: field for field in dataclasses.fields(config)}
            hints = get_type_hints(config)
            for name in fields.split():
                field, more = known[name], dict(special.get(name, {}))
                names = more.pop("names", f"--{name.replace('_', '-')}")
                default, hint = more.pop("default", field.default), hints[name]
                if get_origin(hint) is tuple:  # an option that may be given several times
                    default, hint = list(default), list[str]
                made = option(panel, default, names, field.metadata["doc"], **more)
                parameters.append(
                    inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=made, annotation=hint
                    )
                )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


MODEL_ARGUMENT = typer.Argument(
    None, metavar="MODEL", parser=model_name, show_default=False, help="The same as --model."
)
MODEL = option(
    None,
    None,
    "--model -m",
    "Model file, run directory, or builtin: the model bundled with charrnn (./builtin is a file of "
    "that name).",
    metavar="MODEL",
    parser=model_name,
    show_default="the newest under runs/, or else builtin",
)

what = partial(option, "What to score")
event = partial(option, "What counts")
report = partial(option, "Report")
output = partial(option, "Output")
reading = partial(option, "Reading")

FILE = what(
    None,
    "--file",
    "Score each line of this file; - is standard input.",
    metavar="FILE",
    parser=path_name,
    show_default="standard input, unless there are texts",
)
WHOLE = what(False, "--whole", "Read the file as one text, however long.")
CONTEXT = what(
    "",
    "--context",
    "Text that precedes each text: read, but not scored. @FILE reads it from a file, and @@ begins "
    "a text with @.",
    metavar="TEXT|@FILE",
    show_default="none",
)
ENCODING = reading(
    "auto",
    "--encoding",
    "Encoding of the files; auto means UTF-8, or what a byte order mark says.",
    metavar="NAME",
)
ERRORS = reading(
    "strict",
    "--errors",
    "Bytes that cannot be decoded: refuse the file, or replace them by U+FFFD.",
)
ESCAPES = reading(
    False,
    "--escapes -e",
    "In texts on the command line, read \\n, \\t, \\r, \\\\, \\uXXXX and \\UXXXXXXXX as the "
    "characters that they stand for.",
)
EOS = event(
    None,
    "--eos/--no-eos",
    "Count the end of each text as an event.",
    show_default="on for models trained with --documents",
)
ON_UNKNOWN = event(
    "unk",
    "--on-unknown",
    "Characters the model has never seen: charge them as UNK (unk), leave them out (skip), or "
    "refuse the text (error).",
)
FORMAT = output(
    None, "--format", "Format of the report.", show_default="table on a terminal, else tsv"
)
DEVICE = option(
    "Machine",
    "auto",
    "--device",
    "Where to compute: auto, cpu, cuda, cuda:N or mps; auto uses a CUDA GPU for large work only.",
    metavar="NAME",
)
TOTAL = report(False, "--total", "Write only the total of all.")
by_option = partial(report, None, "--by", show_default="total")
"""The probability in all or per character; takes the help text."""


def format_or_default(given: Format | None) -> Format:
    """Return the format asked for, or the one that fits standard output."""
    return given or ("table" if sys.stdout.isatty() else "tsv")


def one_model(argument: Path | None, option: Path | None) -> Path | None:
    """Return the model named by an argument or by `-m`.

    Raises:
        ConfigError: both name one.
    """
    if argument is not None and option is not None:
        raise ConfigError(f"a model is named twice, {argument} and {option}: name one")
    return argument if option is None else option


def open_model(path: Path | None, *, bidirectional: bool | None = None) -> CharModel:
    """Load the model of `-m`, or the newest, and say on stderr which one when it was not named."""
    from charrnn.api import load
    from charrnn.display.terminal import say
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    model = load(path, bidirectional=bidirectional)
    if path is None and model.path == BUILTIN_MODEL:
        say(
            f"model {BUILTIN}, bundled with charrnn (Shakespeare's plays); "
            "train your own: charrnn train YOUR_TEXT.txt"
        )
    elif path is None:
        say(f"model {model.path}")
    return model


def choose_device(name: str, *, rows: int, chars: float) -> str:
    """Return where to sample or score, and load torch if it is to be used.

    Args:
        name: of `--device`.
        rows: texts side by side.
        chars: characters of all texts, at most.

    Raises:
        ConfigError: there is no such device here.
    """
    from charrnn.models import device

    check_device(name)
    found = device.reading_device(name, rows=rows, chars=chars)
    if found != "cpu":
        from charrnn.training.system import load_torch

        load_torch()
        device.choose_device(found)
    return found


def make_scorer(
    model: CharModel,
    *,
    eos: bool | None,
    on_unknown: OnUnknown,
    context: str,
    device: str = "cpu",
    is_first: bool = True,
) -> Scorer:
    """Return the rules to score by; say on stderr whether ends count when nobody asked.

    Of two models that are compared, only the first says what holds for both.
    """
    from charrnn.display.terminal import say

    scorer = model.scorer(eos=eos, on_unknown=on_unknown, context=context, device=device)
    if model.saved.config.bidirectional:
        if not is_first:
            return scorer
        say(
            "the model reads from both sides: figures are pseudo-log-likelihoods, the sum over "
            "characters each given all the others"
        )
    elif eos is None:
        say(f"ends of texts are {ends(model.ends_count)}: trained {trained_on(model)}")
    return scorer


def trained_on(model: CharModel) -> str:
    """Return what kind of text a model was trained on."""
    kind = model.saved.text.documents
    return "on one long text" if kind == "none" else f"on documents ({kind})"


def ends(count: bool) -> str:
    """Return whether ends count, and the option for the contrary."""
    return "counted (--no-eos leaves them out)" if count else "not counted (--eos)"


class Reading:
    """How the texts of a command line are read: escapes in arguments, the encoding of files.

    Raises:
        ConfigError: there is no such encoding.
    """

    def __init__(self, *, escapes: bool, encoding: str, errors: DecodingErrors) -> None:
        """Check the encoding."""
        CorpusConfig(encoding=encoding, errors=errors)
        self._escapes = escapes
        self._decoding: dict[str, Any] = {"encoding": encoding, "errors": errors}

    def argument(self, text: str) -> str:
        """Return a text from the command line, its line ends as in files.

        Raises:
            ConfigError: it has an escape that is none.
        """
        if self._escapes:
            text = _ESCAPE.sub(_unescaped, text)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def pieces(
        self, path: Path, unit: Unit = "char", normalize: Normalization = "none"
    ) -> Iterator[str]:
        """Yield the text of a file; see `charrnn.corpus.sources.pieces_of`."""
        from charrnn.corpus.sources import pieces_of

        return pieces_of(path, unit=unit, normalize=normalize, **self._decoding)

    def lines(self, path: Path) -> Iterator[str]:
        """Yield the lines of a file; see `charrnn.corpus.sources.lines_of`."""
        from charrnn.corpus.sources import lines_of

        return lines_of(path, **self._decoding)

    def context(self, given: str, option: str = "context") -> str:
        """Return the text of `--context`: as given, or after an @ the content of a file.

        Args:
            given: the value.
            option: another one that takes such a text, without its dashes.

        Raises:
            CorpusError: the file cannot be read or decoded.
        """
        if os.path.isfile(given):
            from charrnn.display.terminal import pasted, say

            name, meant = pasted([given]), pasted([f"@{given}"])
            say(f"the {option} is {name} itself; the content of that file is --{option} {meant}")
        if not given.startswith("@") or given.startswith("@@"):
            return self.argument(given[given.startswith("@@") :])
        from charrnn.corpus.sources import text_of

        try:
            return text_of(Path(given[1:]), **self._decoding)
        except CorpusError as error:
            if os.path.exists(given[1:]):
                raise
            raise CorpusError(f"{error}; a text that begins with @ is written @{given}") from error


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.?)", re.DOTALL)


def _unescaped(match: re.Match[str]) -> str:
    """Return the character of an escape."""
    name = match[1]
    if name in ("n", "t", "r", "\\"):
        return {"n": "\n", "t": "\t", "r": "\r"}.get(name, name)
    if len(name) > 1 and int(name[1:], 16) <= 0x10FFFF:
        return chr(int(name[1:], 16))
    raise ConfigError(
        rf"--escapes knows \n, \t, \r, \\, \uXXXX and \UXXXXXXXX, and not {match[0]}: write "
        r"\\ for a backslash"
    )


def file_name(path: Path | None) -> str:
    """Return the name of a file in a message; standard input for none."""
    return "standard input" if path in (STDIN, None) else str(path)


def require_apart(read: Iterable[Path]) -> set[tuple[int, int]]:
    """See that what is written to standard output goes into no file that is read.

    Args:
        read: files and folders, beside standard input.

    Returns:
        The identities of the files.

    Raises:
        ConfigError: standard output is one of them.
    """
    files = (f for one in read for f in (one.rglob("*") if one.is_dir() else [one]))
    named = {identity(0): "standard input", **{identity(file): str(file) for file in files}}
    named.pop(None, None)
    if identity(1) in named:
        raise ConfigError(
            f"the report would be written into {named[identity(1)]}, which is read: send it "
            "elsewhere"
        )
    return {one for one in named if one is not None}


def identity(file: Path | int) -> tuple[int, int] | None:
    """Return device and inode of an ordinary file, the same for all its names, or None.

    Args:
        file: a path, or the number of an open file.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # it will be told when it is read or written
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


class Document(NamedTuple):
    """A text to score, in pieces; one that was given whole is its own name."""

    name: str
    pieces: Iterable[str]


class Input:
    """The texts of a command line: arguments, the lines of a file, or one long file.

    Without any, lines are read from standard input unless it is a terminal.

    Raises:
        ConfigError: there is nothing to read, or `--whole` has texts beside it.
    """

    def __init__(
        self,
        texts: Iterable[str] | None,
        file: Path | None,
        *,
        whole: bool,
        read: Reading,
        verb: Literal["score", "fill"] = "score",
    ) -> None:
        """Wait for the first text: that there is none is told before a model is loaded."""
        self._given = list(texts or ())
        if whole and self._given:
            raise ConfigError("--whole scores one file as one text: leave TEXT out")
        is_named = file is not None
        is_piped = sys.stdin is not None and not sys.stdin.isatty()
        if file is None and not self._given and is_piped:
            file = STDIN
        self.file = file
        self.whole = whole
        self._done = {"score": "scored", "fill": "filled"}[verb]
        self._read = read
        lines = iter(()) if file is None or whole else read.lines(file)
        self._texts = itertools.chain(map(read.argument, self._given), lines)
        if not whole or file is None:
            first = next(self._texts, None)
            if first is None and is_named and file is not None:
                raise ConfigError(f"{file_name(file)} is empty: it has no lines to {verb}")
            if first is None:
                raise ConfigError(
                    f"nothing to {verb}: give texts as arguments, --file, or lines on stdin"
                )
            self._texts = itertools.chain([first], self._texts)

    def documents(self, unit: Unit) -> Iterator[Document]:
        """Yield the texts for a model that reads such units."""
        if self.whole:
            assert self.file is not None
            yield Document(file_name(self.file), self._read.pieces(self.file, unit))
        else:
            yield from (Document(text, [text]) for text in self._texts)

    def hint(self) -> str:
        """Return what may have been meant where the first text is the name of a file."""
        from charrnn.display.terminal import pasted
        from charrnn.storage.runs import BUILTIN

        first = self._given[0] if self._given else ""
        is_builtin = first == BUILTIN and len(self._given) > 1
        if not (is_builtin or os.path.exists(first)):
            return ""
        is_model = is_builtin or os.path.isdir(first) or first.endswith(".safetensors")
        name, other = (
            pasted([first]),
            "a model is named with -m" if is_model else "a file by --file",
        )
        return f"{name} is {self._done} as a text; {other} {name}"
