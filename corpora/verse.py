"""Build a collection of verse from the plays of Shakespeare, one speech a stanza.

The plays are those of `shakespeare.py`, which is asked for them if they are not there yet.  A
speech counts as verse if it has at least four lines, and every line begins with a capital letter
and is about as long as a line of five feet.  The names of the speakers are left out; an empty line
stands between two stanzas, so `--documents blank-line` reads each as a text of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import shakespeare
from recipe import HERE, RecipeError, finish, options

FEWEST_LINES = 4
LENGTHS = range(24, 58)
"""Characters of a line."""


def is_verse(lines: list[str]) -> bool:
    """Whether a speech looks like verse; prose is broken anywhere, and goes on in small letters."""
    return len(lines) >= FEWEST_LINES and all(
        line.lstrip("'\"(")[:1].isupper() and len(line) in LENGTHS for line in lines
    )


def build(plays: str) -> str:
    """The stanzas of the plays, which are speeches of a name, its lines and an empty line."""
    speeches = (speech.splitlines()[1:] for speech in plays.split("\n\n"))
    stanzas = ["\n".join(lines) for lines in speeches if is_verse(lines)]
    return "\n\n".join(dict.fromkeys(stanzas)) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build a collection of verse from Shakespeare's plays.", "verse.txt")
    parser.add_argument(
        "--plays",
        type=Path,
        default=HERE / "shakespeare.txt",
        help="the plays; they are built if they are not there (default: beside this script)",
    )
    asked = parser.parse_args(arguments)
    if not asked.plays.exists() and (code := shakespeare.main(["--out", str(asked.plays)])):
        return code

    def stanzas() -> str:
        try:
            return build(asked.plays.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise RecipeError(f"cannot read {asked.plays}: it is no text in UTF-8.") from None

    return finish("verse", asked.out, stanzas)


if __name__ == "__main__":
    sys.exit(main())
