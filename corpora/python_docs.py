"""Build a text corpus from the help topics that every Python interpreter carries.

``pydoc_data.topics`` holds the sections of the language reference that ``help("...")`` shows:
English prose with some grammar and code, no network needed.  The topics are written in the order
of their names, with three line ends between two of them; a text that serves several topics is
written once.  Blanks at the end of a line are dropped, nothing else is changed.

The text belongs to the interpreter, so it differs between versions of Python: the README beside
this script lists sizes and hashes for the versions that were measured.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from recipe import RecipeError, finish, options


def build(topics: Mapping[str, str]) -> str:
    """The topics as one text; equal texts appear once, under the first of their names."""
    tidy = ("\n".join(map(str.rstrip, topics[name].split("\n"))) for name in sorted(topics))
    return "\n\n\n".join(dict.fromkeys(text.strip("\n") for text in tidy)) + "\n"


def own_topics() -> Mapping[str, str]:
    """The topics of the running Python."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise RecipeError("this Python was installed without its help topics.") from None
    return topics


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build a corpus from Python's own help topics.", "python-docs.txt")
    return finish("python-docs", parser.parse_args(arguments).out, lambda: build(own_topics()))


if __name__ == "__main__":
    sys.exit(main())
