"""Build a list of what the packages of a Debian system are, one a line.

Each line is `name - what it is`, as `apt-cache` knows it, in the order of the names.  Where several
packages have the same description (a library, its documentation, its translations), the first
stands for all.  The list belongs to the system and to the day: `apt-get update` renews it.
"""

from __future__ import annotations

import re
import sys

from recipe import NO_SOURCE, RecipeError, fetch, finish, options

FIELD = re.compile(r"^(Package|Description(?:-en)?): *(.+)$", re.M)


def build(stanzas: str) -> str:
    """The list from what `apt-cache dumpavail` prints.

    Raises:
        RecipeError: there are no packages in it.
    """
    names: dict[str, str] = {}
    for stanza in stanzas.split("\n\n"):
        fields = {match[1].removesuffix("-en"): match[2] for match in FIELD.finditer(stanza)}
        if len(fields) == 2:
            name, what = fields["Package"], " ".join(fields["Description"].split())
            names[what] = min(name, names.get(what, name))
    if not names:
        raise RecipeError("apt knows no packages: run apt-get update.", NO_SOURCE)
    return "".join(sorted(f"{name} - {what}\n" for what, name in names.items()))


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build a list of Debian's packages.", "package-descriptions.txt")
    command = ["apt-cache", "dumpavail"]
    return finish(
        "package-descriptions",
        parser.parse_args(arguments).out,
        lambda: build(fetch(command, "the list of packages")),
    )


if __name__ == "__main__":
    sys.exit(main())
