"""Build a corpus of source code from the standard library of the running Python.

The modules that are single files, in the order of their names, each as it is, with two empty lines
between two of them.  No network is needed.  The text belongs to the interpreter, so it differs
between versions of Python.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from recipe import RecipeError, finish, options


def build(folder: Path) -> str:
    """The modules in a folder as one text."""
    # The sources of Python are UTF-8 (PEP 3120); generated modules have no end of line to lose.
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("[!_]*.py"))]
    if not texts:
        raise RecipeError(f"there are no Python modules in {folder}.")
    return "\n\n\n".join(text.strip("\n") for text in texts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build a corpus from the source code of Python's library.", "python-code.txt")
    out: Path = parser.parse_args(arguments).out
    return finish("python-code", out, lambda: build(Path(sysconfig.get_path("stdlib"))))


if __name__ == "__main__":
    sys.exit(main())
