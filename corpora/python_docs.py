"""Build a text corpus from the help topics that every Python interpreter carries.

``pydoc_data.topics`` holds the sections of the language reference that ``help("...")`` shows:
English prose with some grammar and code, no network needed.  The topics are written in the order
of their names, with three line ends between two of them; a text that serves several topics is
written once.  Blanks at the end of a line are dropped, nothing else is changed.

The text belongs to the interpreter, so it differs between versions of Python: the README beside
this script lists sizes and hashes for the versions that were measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

DEFAULT_OUT = Path(__file__).resolve().parent / "python-docs.txt"


def build(topics: Mapping[str, str]) -> str:
    """The topics as one text; equal texts appear once, under the first of their names."""
    tidy = ("\n".join(map(str.rstrip, topics[name].split("\n"))) for name in sorted(topics))
    return "\n\n\n".join(dict.fromkeys(text.strip("\n") for text in tidy)) + "\n"


def write_atomically(path: Path, data: bytes) -> None:
    """Write all or nothing, so that an interrupted build leaves no half corpus behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description="Build a corpus from Python's own help topics.")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="file to write (default: beside this script)"
    )
    out: Path = parser.parse_args(arguments).out
    try:
        from pydoc_data.topics import topics
    except ImportError:
        print("python-docs: this Python was installed without its help topics.", file=sys.stderr)
        return 1
    data = build(topics).encode("utf-8")
    try:
        write_atomically(out, data)
    except OSError as error:
        print(f"python-docs: cannot write {out}: {error.strerror or error}.", file=sys.stderr)
        return 1
    print(f"{out}: {len(data):,} bytes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
