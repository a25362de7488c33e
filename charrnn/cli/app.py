"""The `charrnn` program: its commands, and what every error turns into."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import charrnn
from charrnn.cli.compare import compare
from charrnn.cli.info import info
from charrnn.cli.merge import merge
from charrnn.cli.pairs import pairs
from charrnn.cli.sample import sample
from charrnn.cli.score import score
from charrnn.cli.train import train
from charrnn.errors import CharRNNError, ConfigError, StorageError

DEBUG_VARIABLE = "CHARRNN_DEBUG"

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

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            ConfigError: as the command does, its field written as the option.
            typer.Abort: it was interrupted; Typer itself would end without a word.
        """
        try:
            code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except ConfigError as error:
            options = (p.opts[0] for p in self.params if p.name == error.field and p.opts)
            option = next((name for name in options if name.startswith("--")), None)
            if option is None:
                raise
            raise ConfigError(f"{option} {error.problem}") from error
        except BrokenPipeError:
            # nothing more can be written, not even what is buffered, at exit
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            raise typer.Abort from None


class _WritingCommand(_Command):
    """A command whose product goes to standard output."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            StorageError: standard output is closed.
        """
        if sys.stdout is None:
            raise StorageError("standard output is closed: send it to a file, or to /dev/null")
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


for _command in (train, sample, score, pairs, compare, info, merge):
    _writes = _command not in (train, merge)
    app.command(cls=_WritingCommand if _writes else _Command)(_command)

COMMANDS = tuple(command.callback.__name__ for command in app.registered_commands)  # type: ignore[union-attr]
"""The names of the commands, as the list in the help has them."""


def run() -> int:
    """Run the command line and return its exit code; a user never sees a traceback.

    Raises:
        KeyboardInterrupt: the user interrupted it.
    """
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a code page that lacks a character shows ? instead
            reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        message, code = _explain(error)
        if type(error).__name__ == "NoArgsIsHelpError":  # no command: the message is the help
            print(message, file=sys.stderr)
        else:
            print(f"charrnn: {' '.join(message.split())}", file=sys.stderr)
        return code


def _fill_closed_streams() -> None:
    """Keep the numbers of closed standard streams from files opened later, and stderr writable."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)  # always the lowest one that is free
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _explain(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code of an error.

    Raises:
        Exception: the error itself, when it is ours and the user wants to see where it happened.
    """
    if isinstance(error, CharRNNError):
        return str(error), error.exit_code
    if isinstance(error, _ClickError):
        message = error.format_message()
        context = getattr(error, "ctx", None)
        if context is not None and type(error).__name__ != "NoArgsIsHelpError":
            message = message[0].lower() + message[1:].replace(": Value error, ", ": ")
            if not message.endswith("?"):
                message = f"{message.rstrip('.')}; see {context.command_path} --help"
        return message, error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "numpy", "safetensors"):
        return f"{error.name} is missing: install it with pip install {error.name}", 1
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        return (f"cannot use {error.filename}: {reason}" if error.filename else reason), 1
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "not enough memory: try a smaller --hidden, --members, --batch or --bptt", 1
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    return (
        f"internal error ({type(error).__name__}: {error}); please report it with what "
        f"{DEBUG_VARIABLE}=1 shows",
        1,
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise torch's way of saying so: a RuntimeError, on the CPU and on a GPU."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate" in text)
