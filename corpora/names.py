"""Build a list of first names, one a line, in one of some seventy languages.

The names come from the wheel ``faker==40.63.0`` (MIT licence), which lists them for programs that
need made-up people.  pip downloads the wheel, its hash is checked, and it is read as the zip file
it is: nothing in it is installed or imported.  Each name appears once, in the order of code points.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from recipe import RecipeError, download_wheel, finish, options

WHEEL = "faker-40.63.0-py3-none-any.whl"
REQUIREMENT = "faker==40.63.0"
WHEEL_SHA256 = "36627c20b575b4138f54b6c21f8703e9ab122fd487aca11319beec2aa6ca7232"
MODULE = re.compile(r"faker/providers/person/\w+/__init__\.py")
OTHER_SPELLINGS = ("kana", "romanized", "pairs")
FEWEST = 50


def download(folder: Path) -> Path:
    """The wheel, checked."""
    return download_wheel(REQUIREMENT, WHEEL, WHEEL_SHA256, folder)


def first_names(module: str) -> list[str]:
    """The strings in those lists of a module whose names begin with ``first_names``."""
    found: set[str] = set()
    for statement in ast.walk(ast.parse(module)):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if any(n.startswith("first_names") and not n.endswith(OTHER_SPELLINGS) for n in names):
            found |= {
                " ".join(constant.value.split())
                for constant in ast.walk(statement.value)
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
            }
    return sorted(found - {""})


def build(wheel: Path, language: str) -> str:
    """The names of one language, one a line.

    Raises:
        RecipeError: the wheel has no list for it.
    """
    with zipfile.ZipFile(wheel) as archive:
        lists = {
            path.split("/")[3]: names
            for path in archive.namelist()
            if MODULE.fullmatch(path)
            and len(names := first_names(archive.read(path).decode("utf-8"))) >= FEWEST
        }
    if language not in lists:
        raise RecipeError(f"no names for {language!r}; there are {', '.join(sorted(lists))}.")
    return "".join(f"{name}\n" for name in lists[language])


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build a list of first names.", "names.txt")
    parser.add_argument(
        "--language",
        metavar="CODE",
        default="en",
        help="such as de_DE, is_IS or th_TH; an unknown one lists all (default: en)",
    )
    asked = parser.parse_args(arguments)
    if asked.language != "en" and asked.out == parser.get_default("out"):  # which has the English
        asked.out = asked.out.with_stem(f"names-{asked.language}")

    def names() -> str:
        with tempfile.TemporaryDirectory() as folder:
            return build(download(Path(folder)), asked.language)

    return finish("names", asked.out, names)


if __name__ == "__main__":
    sys.exit(main())
