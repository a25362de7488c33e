"""Writes the pages of the site that come from elsewhere.

    python docs/reference.py        # or, with the site: make docs

`commands.md` has every command and option, as the program itself knows them. `changelog.md` and
`corpora.md` are files from outside this folder, with their links put right, and `shakespeare.html`
is the page of the bundled model; git ignores them.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

import charrnn
from charrnn.cli.app import app

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMMANDS = "commands.md"
COPIED = {"changelog.md": "CHANGELOG.md", "corpora.md": "corpora/README.md"}
LIVE = "shakespeare.html"
OTHERS = "Options"
"""Heading of the options without a panel."""
HEAD = """\
# Commands

Every command with its arguments and options, written by `docs/reference.py` from the program
itself; `charrnn COMMAND --help` says the same. Defaults stand in brackets; what has none is off.
Durations are written `90s`, `2m`, `1.5h` or `1h30m`; choices may be in capitals.

Every command also has `--help` (`-h`), and `charrnn --version` prints the version.
"""


def knowledge() -> Any:
    """The module that reads the commands for the man page: there is one such reader."""
    spec = importlib.util.spec_from_file_location("share_generate", ROOT / "share" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


def panels(command: str) -> dict[str, str]:
    """The panel of the help page that each option of a command stands in."""
    group: Any = typer.main.get_command(app)
    return {
        name: param.rich_help_panel or OTHERS
        for param in group.commands[command].params
        for name in param.opts
        if hasattr(param, "rich_help_panel")
    }


def escaped(text: str) -> str:
    """Text in a cell of a table, where Markdown would see marks."""
    return re.sub(r"([\\|*_<>\[\]])", r"\\\1", text)


def row(option: Any) -> str:
    """One option, or argument, as a row of a table."""
    values = " ".join(f"`{value}`" for value in option.value.split("|") if value)
    names = ", ".join(f"`{name}`" for name in option.names if name.startswith("-"))
    names = " ".join(part for part in (names, values) if part)
    text = option.help
    if option.repeats and "several" not in text:
        text += " May be given several times."
    text += f" [{option.default}]" if option.default else ""
    return f"| {names} | {escaped(text)} |\n"


def table(heading: str, options: Iterable[Any]) -> str:
    """The options of one panel."""
    head = "| name and values | what it does |\n| --- | --- |\n"
    return f"\n**{heading}**\n\n{head}" + "".join(map(row, options))


def section(command: Any) -> str:
    """One command: what it does, its examples, its arguments and options."""
    where = panels(command.name)
    text = f"\n## charrnn {command.name}\n\n{escaped(command.help)}\n"
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines()]
        lines = [line for line in lines if line not in ("", "Examples:")]
        text += "\n```sh\n" + "\n".join(lines) + "\n```\n"
    if command.arguments:
        text += table("Arguments", command.arguments)
    options = [option for option in command.options if "--help" not in option.names]
    placed = [(next(where[n] for n in option.names if n in where), option) for option in options]
    order = list(dict.fromkeys(panel for panel, _ in placed))
    placed.sort(key=lambda pair: order.index(pair[0]))
    for panel, members in groupby(placed, key=lambda pair: pair[0]):
        text += table(panel, (option for _, option in members))
    return text


def commands() -> str:
    """The page of all commands."""
    return HEAD + "".join(map(section, knowledge().commands()))


def copied(source: str) -> str:
    """A file from outside this folder, its links to files in it made relative to it."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return re.sub(r"\]\((?:\.\./)?docs/", "](", text)


def live(folder: Path) -> None:
    """Write the page of the bundled model, to be tried in the site."""
    model = charrnn.load("builtin")
    model.export(folder / LIVE, title="A small Shakespeare", prompt="ROMEO:\n", force=True)


def main() -> None:
    """Write the pages."""
    live(HERE)
    (HERE / COMMANDS).write_text(commands(), encoding="utf-8", newline="\n")
    for name, source in COPIED.items():
        (HERE / name).write_text(copied(source), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
