"""The `charrnn` program: its commands, and what every error turns into."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

import charrnn
from charrnn.cli.info import info
from charrnn.cli.merge import merge
from charrnn.cli.sample import sample
from charrnn.cli.score import score
from charrnn.cli.train import train
from charrnn.errors import CharRNNError, StorageError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "CHARRNN_DEBUG"
SPINNING = ("GOMP_SPINCOUNT", "500")
"""Turns that torch's threads wait busily for each other before they sleep. Their default, some
milliseconds, makes training several times slower as soon as another program needs a core."""

_UsageError: Any = typer.BadParameter.__mro__[1]
_ClickError: Any = _UsageError.__mro__[1]


class _PlainGroup(TyperGroup):
    """The list of commands, formatted without rich: importing it would double the waiting."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, purpose, options and commands."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


app = typer.Typer(
    name="charrnn",
    cls=_PlainGroup,
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


def _ends_quietly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command end without an error when the reader of its output has seen enough."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            code = command(*args, **options)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            # nothing more can be written, not even what is buffered, at exit
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            raise typer.Abort from None  # Typer itself would end without a word

    return run


def _writes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to begin a command whose product has nowhere to go.

    Raises:
        StorageError: stdout is closed.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        if sys.stdout is None:
            raise StorageError("standard output is closed: send it to a file, or to /dev/null")
        return command(*args, **options)

    return run


for _command in (train, _writes(sample), _writes(score), _writes(info), merge):
    app.command()(_ends_quietly(_command))


def main() -> NoReturn:
    """Run the command line; every outcome is an exit code, never a traceback."""
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a code page that lacks a character shows ? instead
            reconfigure(errors="replace")
    os.environ.setdefault(*SPINNING)
    sys.exit(_run())


def _fill_closed_streams() -> None:
    """Keep the numbers of closed standard streams from files opened later, and stderr writable."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)  # always the lowest one that is free
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CharRNNError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":  # no command was given: its message is help
            print(message, file=sys.stderr)
            return EXIT_USAGE
        return _fail(message.rstrip(".") + hint, EXIT_USAGE)
    except _ClickError as error:
        return _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        return _fail(_os_message(error), 1)
    except Exception as error:
        if isinstance(error, MemoryError) or _is_out_of_memory(error):
            return _fail(
                "not enough memory: try a smaller --hidden, --members, --batch or --bptt", 1
            )
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _fail(
            f"a mistake of ours ({type(error).__name__}: {error}); please report it with what "
            f"{DEBUG_VARIABLE}=1 shows",
            1,
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise torch's way of saying so: a RuntimeError, on the CPU and on a GPU."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate" in text)


def _os_message(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"cannot use {error.filename}: {reason}" if error.filename else f"cannot go on: {reason}"


def _fail(message: str, code: int) -> int:
    print(f"charrnn: {' '.join(message.split())}", file=sys.stderr)
    return code
