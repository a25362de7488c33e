"""Build a text in German, Spanish, French, Italian, Japanese, Portuguese or Chinese.

It is the prose of the Debian Reference, a handbook of some 200 pages, from the package
``debian-reference-de`` (GPL-2+) and its siblings.  apt downloads the package, and its archive is
read: nothing in it is installed or run.  A paragraph is kept if it ends like a sentence; tables,
commands, headings and lists of contents are left out, and so are paragraphs in plain ASCII where
the language has letters of its own (they are not translated yet).  Line breaks within a paragraph
are undone, and an empty line stands between two of them.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import tarfile
import tempfile
from pathlib import Path

from recipe import NO_SOURCE, RecipeError, fetch, finish, options

LANGUAGES = ("de", "es", "fr", "it", "ja", "pt", "zh-cn")
WITHOUT_BLANKS = ("ja", "zh-cn")
"""Languages that put no blank between words."""
ENDS = (".", "!", "?", "。", "！", "？")
DRAWING = re.compile(r"[|│┌├└═─]|\+--|\.\.\.\.")
SHORTEST = 30


def text_of(package: bytes) -> str:
    """The handbook in a Debian package: an ar archive with a tar archive, with a gzipped text.

    Raises:
        RecipeError: it is not there.
    """
    place = 8  # after the signature, members: a header of 60 bytes, then their bytes, padded
    while place + 60 <= len(package):
        header = package[place : place + 60]
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            data = package[place + 60 : place + 60 + size]
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file and member.name.endswith(".txt.gz"):
                        return gzip.decompress(file.read()).decode("utf-8")
        place += 60 + size + size % 2
    raise RecipeError("the package has no text of the handbook.")


def build(handbook: str, language: str) -> str:
    """The paragraphs of the handbook, one a line, with an empty line between them."""
    blank = "" if language in WITHOUT_BLANKS else " "
    paragraphs = []
    for block in re.split(r"\n[ \t]*\n", handbook):
        paragraph = blank.join(line.strip() for line in block.splitlines())
        paragraph = re.sub(r"\s+", " ", re.sub(r"^([*+o•-]|\d+\.)\s+", "", paragraph)).strip()
        if len(paragraph) < SHORTEST or not paragraph.endswith(ENDS):
            continue
        if DRAWING.search(paragraph) or (not blank and paragraph.isascii()):
            continue
        paragraphs.append(paragraph)
    return "\n\n".join(dict.fromkeys(paragraphs)) + "\n"


def download(language: str, folder: Path) -> bytes:
    """The package, fetched by apt, which checks its signature.

    Raises:
        RecipeError: there is no apt, or it has no answer.
    """
    name = f"debian-reference-{language}"
    fetch(["apt-get", "--quiet", "download", name], name, folder)
    found = next(folder.glob("*.deb"), None)
    if found is None:
        raise RecipeError(f"apt downloaded nothing for {name}.", NO_SOURCE)
    return found.read_bytes()


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build the prose of the Debian Reference.", "debian-reference.txt")
    parser.add_argument(
        "--language", choices=LANGUAGES, default="de", help="its language (default: de)"
    )
    asked = parser.parse_args(arguments)

    def handbook() -> str:
        with tempfile.TemporaryDirectory() as folder:
            return build(text_of(download(asked.language, Path(folder))), asked.language)

    return finish("debian-reference", asked.out, handbook)


if __name__ == "__main__":
    sys.exit(main())
