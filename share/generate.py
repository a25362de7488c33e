"""Write the man page and the shell completions, from the program's own commands and options.

    python share/generate.py        # or make share

They are installed with the wheel, under share/ of its environment, where packagers look for them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from charrnn import __version__
from charrnn.cli.app import app

HERE = Path(__file__).parent
PLACES = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}
"""What stands for a value that has no name of its own, by its type."""
ENDS = """\
.SH ENVIRONMENT
.TP
.B CHARRNN_DEBUG
If set, an internal error shows where it happened.
.SH EXIT STATUS
.TP
.B 0
Success.
.TP
.B 1
Something went wrong; one line on standard error says what.
.TP
.B 2
Wrong usage.
.TP
.B 130
Interrupted, with everything saved.
.SH FILES
.TP
.B runs/
The runs of the current directory, each with its model.
"""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        names: the long one first; those that switch it off among them.
        value: what stands for its value; empty for a switch.
        choices: the values that there are, if they can be listed.
        takes_path: its value is a file or a directory.
        repeats: it may be given several times.
        help: its sentences.
        default: in words; empty if it is not shown.
    """

    names: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    takes_path: bool
    repeats: bool
    help: str
    default: str

    @property
    def short_help(self) -> str:
        """What it does, as a list of completions shows it: the first clause."""
        return re.split(r"[.:;](?:\s|$)", self.help, maxsplit=1)[0]


@dataclass(frozen=True)
class Command:
    """A command: its arguments are options whose only name is their value."""

    name: str
    help: str
    epilog: str
    arguments: tuple[Option, ...]
    options: tuple[Option, ...]

    @property
    def short_help(self) -> str:
        """Its first sentence, without examples."""
        return re.split(r"[.:](?:\s|$)", self.help, maxsplit=1)[0]


HELP = Option(
    names=("--help", "-h"),
    value="",
    choices=(),
    takes_path=False,
    repeats=False,
    help="Show what the command does and its options, and stop.",
    default="",
)


def commands() -> list[Command]:
    """Return the commands of the program."""
    group: Any = typer.main.get_command(app)
    functions = {str(c.name): c.callback for c in app.registered_commands}
    found = []
    for name, command in group.commands.items():
        function: Any = functions[name]
        known = inspect.signature(function, eval_str=True).parameters
        options = [p for p in command.params if p.opts[0].startswith("-")]
        arguments = [p for p in command.params if p not in options]
        found.append(
            Command(
                name=name,
                help=inspect.cleandoc(command.help or ""),
                epilog=inspect.cleandoc(command.epilog or ""),
                arguments=tuple(_option(p, known[p.name]) for p in arguments),
                options=(*(_option(p, known[p.name]) for p in options), HELP),
            )
        )
    return found


def _option(param: Any, known: inspect.Parameter) -> Option:
    """Return a parameter of Typer's, and of the function that it was made from, as an Option."""
    hint = known.annotation
    if get_origin(hint) is not Literal:  # list[Path], str | None
        hint = next((a for a in get_args(hint) if a is not type(None)), hint)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    metavar = param.metavar or ""
    bare = re.sub(r"\[.*?\]", "", metavar)  # cuda[:N]
    if not choices and "|" in bare and bare.islower():
        choices = tuple(bare.split("|"))
    is_switch = bool(getattr(param, "is_flag", False))
    value = metavar or "|".join(choices) or PLACES.get(getattr(hint, "__name__", ""), "TEXT")
    return Option(
        names=tuple(sorted(param.opts, key=len, reverse=True)) + tuple(param.secondary_opts),
        value="" if is_switch else value,
        choices=tuple(map(str, choices)),
        takes_path=not is_switch and getattr(hint, "__name__", "") == "Path",
        repeats=bool(param.multiple) or param.nargs == -1,
        help=" ".join(str(known.default.help or "").split()),
        default=_default(param),
    )


def _default(param: Any) -> str:
    shown, default = param.show_default, param.default
    if isinstance(shown, str):
        return "" if shown == "off" else shown
    if not shown or default in (None, "", [], ()) or isinstance(default, bool):
        return ""
    return ", ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)


# the man page


def man_page() -> str:
    """Return the page for section 1, as man(7) has it."""
    lines = [
        f'.TH CHARRNN 1 "" "charrnn {__version__}" "User Commands"',
        ".SH NAME",
        r"charrnn \- character\-level recurrent language models: train, write, and score text",
        ".SH SYNOPSIS",
        r".B charrnn",
        r"[\fB\-\-version\fR] [\fB\-\-help\fR] \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        "charrnn learns a text character by character with a recurrent network, writes new text",
        "like it, and says how probable any text is. A small model is bundled, with which",
        ".B charrnn sample",
        "and",
        ".B charrnn score",
        "work at once.",
        ".SH COMMANDS",
    ]
    for command in commands():
        usage = " ".join(f"[{a.value}]{'...' * a.repeats}" for a in command.arguments)
        lines.append(f".SS {_quoted(f'charrnn {command.name} [OPTIONS] {usage}'.strip())}")
        lines += [*_paragraphs(command.help), *_paragraphs(command.epilog)]
        for option in (*command.arguments, *command.options):
            names = option.names if option in command.options else ()
            shown = ", ".join(rf"\fB{_roff(name)}\fR" for name in names)
            value = rf"\fI{_roff(option.value)}\fR" if option.value else ""
            default = f" Default: {option.default}." if option.default else ""
            lines += [".TP", f"{shown} {value}".strip(), _roff(option.help + default)]
    return "\n".join(lines) + "\n" + ENDS


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a text in roff; indented lines and those after \\b stay lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if not paragraph.strip():
            continue
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b" or all(line.startswith(" ") for line in lines):
            kept = [line.strip() for line in lines if line.strip() != "\b"]
            yield from (".PP", ".nf", *map(_roff, kept), ".fi")
        else:
            yield from (".PP", _roff(" ".join(line.strip() for line in lines)))


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _quoted(text: str) -> str:
    return '"' + _roff(text).replace('"', "\\(dq") + '"'


# completions


def bash() -> str:
    """Return the completion for bash; what it leaves empty is completed as a file name."""
    values, options = [], []
    for command in commands():
        for option in command.options:
            if option.choices and option.value:
                where = "|".join(f"{command.name}:{name}" for name in option.names)
                values.append(f'        {where}) words="{" ".join(option.choices)}" ;;')
        names = " ".join(name for option in command.options for name in option.names)
        options.append(f'        {command.name}) words="{names}" ;;')
    return "\n".join([
        "# bash completion of charrnn, made by share/generate.py",
        "_charrnn() {",
        '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=""',
        '    if [[ $cur == "=" ]]; then cur=""',
        '    elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
        '    case "${COMP_WORDS[1]}:$prev" in',
        *values,
        "    esac",
        '    if [[ -z $words && $cur == -* ]]; then case "${COMP_WORDS[1]}" in',
        *options,
        "    esac; fi",
        "    if ((COMP_CWORD == 1)); then",
        f'        words="{" ".join(command.name for command in commands())} --help --version"',
        "    fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        "}",
        "complete -o default -F _charrnn charrnn",
        "",
    ])  # fmt: skip


def zsh() -> str:
    """Return the completion for zsh."""
    lines = ["#compdef charrnn", "# made by share/generate.py", "_charrnn() {"]
    lines += ["  local -a names=("]
    lines += [f"    {_shell(f'{c.name}:{c.short_help}')}" for c in commands()]
    lines += ["  )", "  if (( CURRENT == 2 )); then", "    _describe command names", "    return"]
    lines += ["  fi", "  local name=$words[2]", "  shift words", "  (( CURRENT-- ))"]
    lines += ["  case $name in"]
    for command in commands():
        specs = [_zsh_spec(option) for option in command.options]
        for argument in command.arguments:
            specs.append(
                _shell(f"{'*' * argument.repeats}:{argument.value}:{_zsh_action(argument)}")
            )
        lines += [f"    {command.name}) _arguments -s -S \\"]
        lines += [f"      {spec} \\" for spec in specs[:-1]] + [f"      {specs[-1]} ;;"]
    return "\n".join([*lines, "  esac", "}", '_charrnn "$@"', ""])


def _zsh_spec(option: Option) -> str:
    about = re.sub(r"([\[\]:\\])", r"\\\1", option.short_help)
    value = f":{option.value.replace(':', ' ')}:{_zsh_action(option)}" if option.value else ""
    if option.repeats:
        return " ".join(_shell(f"*{name}[{about}]{value}") for name in option.names)
    others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
    return " ".join(_shell(f"{others}{name}[{about}]{value}") for name in option.names)


def _zsh_action(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    return "_files" if option.takes_path else " "


def fish() -> str:
    """Return the completion for fish."""
    lines = ["# fish completion of charrnn, made by share/generate.py"]
    for command in commands():
        about = _shell(command.short_help)
        lines.append(
            f"complete -c charrnn -n __fish_use_subcommand -f -a {command.name} -d {about}"
        )
    for command in commands():
        seen = f"complete -c charrnn -n '__fish_seen_subcommand_from {command.name}'"
        if not any(argument.takes_path for argument in command.arguments):
            lines.append(f"{seen} -f")
        for option in command.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            )
            value = "" if not option.value else " -r" if option.takes_path else " -x"
            if option.choices and option.value:
                value += f" -a {_shell(' '.join(option.choices))}"
            lines.append(f"{seen} {names}{value} -d {_shell(option.short_help)}")
    return "\n".join([*lines, ""])


def _shell(text: str) -> str:
    return "'" + text.replace("'", "’") + "'"


FILES = {
    "man/man1/charrnn.1": man_page,
    "bash-completion/completions/charrnn": bash,
    "zsh/site-functions/_charrnn": zsh,
    "fish/vendor_completions.d/charrnn.fish": fish,
}
"""What is made, by its path under share/."""


if __name__ == "__main__":
    for name, make in FILES.items():
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_text(make(), encoding="utf-8", newline="\n")
