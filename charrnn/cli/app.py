"""The `charrnn` program: its commands, and what every error turns into."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import sys
import time
from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import charrnn
from charrnn.cli.compare import compare
from charrnn.cli.export import export
from charrnn.cli.fill import fill
from charrnn.cli.info import info
from charrnn.cli.inspect import inspect
from charrnn.cli.listing import list_
from charrnn.cli.merge import merge
from charrnn.cli.pairs import pairs
from charrnn.cli.plot import plot
from charrnn.cli.sample import sample
from charrnn.cli.score import score
from charrnn.cli.train import train
from charrnn.config import closest
from charrnn.display.terminal import say, visible_text
from charrnn.errors import CharRNNError, ConfigError, StorageError, UnknownCharacterError
from charrnn.training.system import interrupt, is_leader, on_signals

DEBUG_VARIABLE = "CHARRNN_DEBUG"
LONGEST_MESSAGE = 1000
"""Characters; more would be a file's content, not a sentence."""
MEMORY_HINTS = {
    "train": ": try a smaller --hidden, --members, --batch or --bptt",
    "sample": ": try a smaller --num or --length, or a shorter prompt",
    "score": ": try shorter texts, a table or page of fewer of them, or --whole with --file",
    "compare": ": try shorter texts, or --whole with --file",
    "pairs": ": try fewer or shorter pairs at a time",
    "inspect": ": try a shorter text, or fewer --positions",
}
VALUES = {"bool": "", "int": "NUMBER", "float": "NUMBER", "str": "TEXT", "list[str]": "TEXT"}
"""What the help calls the value of an option, by its type; a choice shows its choices."""
UNKNOWN_FIELD = "on_unknown"
"""What an error of unknown characters advises to set."""
SILENCE_S = 5
"""How long a process that must not speak waits for the one that does: torchrun ends all with the
first."""
LIBRARIES = ("torch", "numpy", "safetensors", "rich")
REPLACED = "charrnn-replaced"
"""Name of the error handler of the standard streams."""

_DECIMAL_COMMA = re.compile(r"\d,\d+$")

_UsageError: Any = typer.BadParameter.__mro__[1]
_ClickError: Any = _UsageError.__mro__[1]


class _Group(TyperGroup):
    """The list of commands, formatted without rich: importing it would double the waiting."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, purpose, options and commands."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


class _Command(TyperCommand):
    """A command whose errors name its options, and whose reader may stop reading."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, each with a word for its value in the help, or none."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None
            elif param.metavar is None:
                kind = param.display_type(ctx).strip("<>")
                param.metavar = VALUES.get(kind, kind)
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line; arguments are bare words."""
        return [piece.strip("{}").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that refuses an option given twice: the first would be lost."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for one, n in Counter(order).items():
                if n > 1 and not getattr(one, "multiple", False):
                    raise ConfigError(f"{one.opts[0]} is given {n} times: give it once")
            return values, rest, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            ConfigError, UnknownCharacterError: as the command does, the field written as the
                option.
            typer.Abort: it was interrupted; Typer itself would end without a word.
        """
        try:
            code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except ConfigError as error:
            option = self._option_of(error.field)
            if option is None:
                raise
            raise ConfigError(f"{option} {error.problem}") from error
        except UnknownCharacterError as error:
            option = self._option_of(UNKNOWN_FIELD) or UNKNOWN_FIELD
            raise UnknownCharacterError(str(error).replace(UNKNOWN_FIELD, option)) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            hint = MEMORY_HINTS.get(str(ctx.info_name), "")
            raise CharRNNError(f"not enough memory{hint}") from error
        except OSError as error:
            if not _has_no_reader(error):
                raise
            # nothing more can be written, not even what is buffered, at exit
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            raise typer.Abort from None

    def _option_of(self, field: str | None) -> str | None:
        """Return the option that sets a field, if there is one."""
        options = (p.opts[0] for p in self.params if p.name == field and p.opts)
        return next((name for name in options if name.startswith("--")), None)


class _WritingCommand(_Command):
    """A command whose product goes to standard output."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            StorageError: standard output is closed.
        """
        if sys.stdout is None:
            raise StorageError(f"standard output is closed: send it to a file, or to {os.devnull}")
        return super().invoke(ctx)


app = typer.Typer(
    name="charrnn",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: charrnn sample, and then: charrnn train YOUR_TEXT.txt",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"charrnn {charrnn.__version__}")
        raise typer.Exit


@app.callback()
def charrnn_command(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Character-level recurrent language models: train, write, and score text."""


EXAMPLES = {
    "train": (
        "charrnn train poems/ letters.txt --time 30m --name ours",
        "charrnn train names.txt --documents line --epochs 20",
        "charrnn train sonnets.txt --init builtin",
        "charrnn train --resume --name ours --time 10m",
    ),
    "sample": (
        'charrnn sample --prompt "ROMEO:" --temp 0.8 --length 500',
        "charrnn sample runs/names --num 20 --new-only --check-novelty names.txt",
        "charrnn sample --temp 0.3,0.7,1.0",
        "charrnn sample --num 100 --format jsonl > samples.jsonl",
    ),
    "score": (
        'charrnn score "To be, or not to be" "be to not or, be To"',
        "charrnn score --file sentences.txt > scores.tsv",
        "charrnn score --file novel.txt --whole --html novel.html",
        'charrnn score --context "Dear Sir," " I remain" --per-char',
    ),
    "fill": (
        'charrnn fill "The c_ts were fu_l"',
        'charrnn fill --num 5 --temp 0.8 "O Romeo, wherefore art ____ Romeo?"',
        "charrnn fill --file gaps.txt --gap '#' --format jsonl",
    ),
    "pairs": (
        "charrnn pairs pairs.tsv",
        "charrnn pairs -m runs/ours pairs.jsonl --format jsonl",
    ),
    "compare": (
        "charrnn compare runs/monday runs/tuesday --file sentences.txt",
        "charrnn compare builtin runs/ours --file novel.txt --whole",
    ),
    "info": ("charrnn info", "charrnn info -m builtin"),
    "inspect": (
        "charrnn inspect --text @code.py --find quote",
        'charrnn inspect --text "To be, or not to be" --unit 7 -o units.html',
        "charrnn inspect runs/rnn runs/lstm --text @novel.txt --gradient-flow",
        'charrnn inspect --next "ROMEO" --temp 0.7 --top-k 10',
    ),
    "plot": ("charrnn plot", "charrnn plot runs/rnn runs/lstm --x epochs -o curves.png"),
    "list": ("charrnn list", "charrnn list --format tsv | cut -f 1,4"),
    "merge": ("charrnn merge runs/monday runs/tuesday --name both",),
    "export": (
        'charrnn export -o page.html --title "A small Shakespeare"',
        "charrnn export runs/ours --precision int8",
        "charrnn export runs/ours --format npz -o ours.npz",
    ),
}
"""What the help of each command ends with; an empty line keeps its lines apart."""


def _paragraphs(doc: str) -> str:
    """Return a docstring with each paragraph in one line: help would keep its line ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in doc.strip().split("\n\n"))


for _command in (
    train,
    sample,
    score,
    fill,
    pairs,
    compare,
    info,
    inspect,
    plot,
    list_,
    merge,
    export,
):
    _writes = _command not in (train, merge, export)
    app.command(
        name=_command.__name__.rstrip("_"),
        cls=_WritingCommand if _writes else _Command,
        help=_paragraphs(str(_command.__doc__)),
        epilog="\n\n".join(("Examples:", *EXAMPLES[_command.__name__.rstrip("_")])),
    )(_command)

COMMANDS = tuple(str(command.name) for command in app.registered_commands)
"""The names of the commands, as the list in the help has them."""


def run() -> int:
    """Run the command line and return its exit code; a user never sees a traceback.

    Raises:
        KeyboardInterrupt: the user interrupted it, or the terminal was closed.
    """
    _fill_closed_streams()
    lacking = _prepare_streams()
    with on_signals(interrupt):  # all end a command as Ctrl-C does, with what it has written
        try:
            code = app(standalone_mode=False)
            code = code if isinstance(code, int) else 0
        except typer.Abort:
            raise KeyboardInterrupt from None
        except Exception as error:
            message, code = _explain(error)
            if _is_told_elsewhere():
                return code
            if type(error).__name__ == "NoArgsIsHelpError":  # no command: the message is the help
                say(message)
            else:  # it may quote anything, blanks in paths included
                if not isinstance(error, CharRNNError):
                    message = " ".join(message.split())
                say(f"charrnn: {visible_text(message, LONGEST_MESSAGE)}")
    if lacking:
        say(
            f"characters that {' and '.join(sorted(lacking))} has no code for were written as ?; "
            "a file or a pipe gets them in UTF-8, and so does a terminal with PYTHONUTF8=1"
        )
    return code


def _has_no_reader(error: OSError) -> bool:
    """Say whether nobody reads standard output any more: of a pipe, Windows says EINVAL, again
    and again."""
    if isinstance(error, BrokenPipeError):
        return True
    if error.errno != errno.EINVAL or error.filename is not None or sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
    except OSError as again:
        return again.errno == errno.EINVAL
    return False


def _prepare_streams() -> set[str]:
    """Let files and pipes have UTF-8, and terminals a ? for what they lack.

    Returns:
        The encodings that have lacked a character; they are added when it is written.
    """
    lacking: set[str] = set()

    def replaced(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        lone = error.object[error.start]
        if "\udc80" <= lone <= "\udcff":  # a byte of an argument that was not UTF-8 (PEP 383)
            return bytes([ord(lone) - 0xDC00]), error.start + 1
        lacking.add(error.encoding)
        return "?", error.start + 1

    codecs.register_error(REPLACED, replaced)
    for stream in (sys.stdout, sys.stderr):
        if not hasattr(stream, "reconfigure"):
            continue
        if stream.isatty():
            stream.reconfigure(errors=REPLACED)
        else:
            encoding = None if "PYTHONIOENCODING" in os.environ else "utf-8"
            stream.reconfigure(encoding=encoding, errors=REPLACED, newline="\n")
    return lacking


def _fill_closed_streams() -> None:
    """Keep the numbers of closed standard streams from files opened later, and stderr writable."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)  # always the lowest one that is free
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _is_told_elsewhere() -> bool:
    """Say whether process 0 of torchrun finds the same error and speaks of it.

    Once the processes have met, they decide who speaks (`training.distributed`); before, all make
    the same mistakes.
    """
    if is_leader():
        return False
    distributed = sys.modules.get("charrnn.training.distributed")
    if distributed is not None and distributed.have_met():
        return False
    with contextlib.suppress(KeyboardInterrupt):  # torchrun's, once process 0 has spoken
        time.sleep(SILENCE_S)
    return True


def _explain(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code of an error.

    Raises:
        Exception: the error itself, when it is ours and the user wants to see where it happened.
    """
    if isinstance(error, CharRNNError):
        return str(error), error.exit_code
    if isinstance(error, _ClickError):
        return _explain_usage(error), error.exit_code
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in LIBRARIES:
        name = str(error.name).split(".")[0]
        is_missing = isinstance(error, ModuleNotFoundError)
        problem = "is missing" if is_missing else f"cannot be loaded ({error})"
        return f"{name} {problem}: install it with pip install {name}", 1
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        return (f"cannot use {error.filename}: {reason}" if error.filename else reason), 1
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    return (
        f"internal error ({type(error).__name__}: {error}); please report it with what "
        f"{DEBUG_VARIABLE}=1 shows",
        1,
    )


def _explain_usage(error: Any) -> str:
    """Return the message of a command line that cannot be understood, with what may be meant."""
    message: str = getattr(error, "message", "") or error.format_message()
    if type(error).__name__ != "NoSuchOption":
        message = error.format_message()
    kind, context = type(error).__name__, getattr(error, "ctx", None)
    if kind == "NoArgsIsHelpError":
        return message
    message = (message[0].lower() + message[1:].replace(": Value error, ", ": ")).rstrip(".")
    if context is None:
        return message
    message = re.sub("Input should be a valid integer.*", "must be a whole number", message)
    message = re.sub("Input should be a valid number.*", "must be a number", message)
    params = {param.name for param in context.command.params}
    if message.endswith(" number") and any(map(_DECIMAL_COMMA.search, sys.argv)):
        message += ", with a decimal point"
    elif "unexpected extra argument" in message and "prompt" in params:
        message += ": a text to continue comes after --prompt, in quotes"
    elif "unexpected extra argument" in message and "model" in params:
        message += ": a model is named with -m"
    elif kind == "NoSuchOption" and error.option_name in ("-m", "--model"):
        message += ": a model is named without it here"
    elif kind == "NoSuchOption" and (likely := _likely_option(error.option_name, context.command)):
        message += f": did you mean {likely}?"
    elif kind == "NoSuchOption" and "texts" in params:
        message += ": a text that begins with - comes after --"
    return message if message.endswith("?") else f"{message}; see {context.command_path} --help"


def _likely_option(given: str, command: Any) -> str | None:
    """Return the option that is likely meant by one that a command does not have."""
    options = [p for p in command.params if p.param_type_name == "option"]
    if given.strip("-") in ("csv", "tsv", "json", "jsonl"):
        is_asked = any(p.name == "output_format" for p in options)
        return f"--format {'tsv' if given.endswith('sv') else 'jsonl'}" if is_asked else None
    names = {name: name for p in options for name in p.opts if name.startswith("--")}
    fields = {str(p.name): p.opts[0] for p in options}
    likely = closest(given, {**names, **fields}) if len(given) > 2 else None
    return None if likely is None else {**fields, **names}[likely]


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise Python's and NumPy's way of saying so, and torch's, which is a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate" in text
