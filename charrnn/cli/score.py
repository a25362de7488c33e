"""`charrnn score`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from charrnn.cli.options import MODEL, model_name
from charrnn.errors import ConfigError

WHAT, EVENT, REPORT, OUTPUT = "What to score", "What counts", "Report", "Output"
FORMATS = ("table", "tsv", "jsonl")
BY = ("total", "per-char")
ALTERNATIVES = 3
WARMUP = 256


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of one call, checked against each other."""

    texts: tuple[str, ...]
    model: Path | None
    file: Path | None
    whole: bool
    pairs: Path | None
    context: str
    eos: bool | None
    on_unknown: str
    per_char: bool
    per_word: bool
    alternatives: int
    sort: bool
    by: str | None
    compare: Path | None
    adapt: bool
    lanes: int | None
    warmup: int | None
    output: str | None
    html: Path | None

    def __post_init__(self) -> None:
        """Refuse what cannot be done together.

        Raises:
            ConfigError: two options contradict each other, or one is out of range.
        """
        if self.output is not None and self.output not in FORMATS:
            raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {self.output!r}")
        if self.by is not None and self.by not in BY:
            raise ConfigError(f"--by must be one of {', '.join(BY)}, got {self.by!r}")
        if self.alternatives < 0:
            raise ConfigError(f"--alternatives must be at least 0, got {self.alternatives}")
        modes = {
            "--per-char": self.per_char,
            "--per-word": self.per_word,
            "--sort": self.sort,
            "--pairs": self.pairs is not None,
            "--compare": self.compare is not None,
            "--adapt": self.adapt,
            "--lanes": self.lanes is not None,
        }
        asked = [name for name, is_on in modes.items() if is_on]
        if len(asked) > 1:
            raise ConfigError(f"{asked[0]} and {asked[1]} are different reports: ask for one")
        if asked and self.html is not None and asked[0] in ("--pairs", "--compare", "--adapt"):
            raise ConfigError(f"--html shows one model's characters, not {asked[0]}")
        if self.pairs is not None and (self.texts or self.file is not None or self.whole):
            raise ConfigError("--pairs brings its own texts: leave TEXT, --file and --whole out")
        if self.whole and self.texts:
            raise ConfigError("--whole scores one file as one text: leave TEXT out")
        if self.whole and self.sort:
            raise ConfigError("--sort ranks several texts, and --whole is one")
        if self.lanes is not None and (not self.whole or self.html is not None):
            raise ConfigError("--lanes is for one long text: use it with --whole, without --html")
        if self.warmup is not None and self.lanes is None:
            raise ConfigError("--warmup belongs to --lanes")
        if self.by is not None and not self.sort and self.pairs is None:
            raise ConfigError("--by says how --sort and --pairs rank: use it with one of them")

    @property
    def per_character_rank(self) -> bool:
        """Rank by probability per character instead of in all."""
        return self.by == "per-char"


def score(
    texts: list[str] = typer.Argument(
        None, metavar="TEXT...", show_default=False, help="Texts to score."
    ),
    model: Path = MODEL,
    file: Path = typer.Option(
        None,
        metavar="FILE",
        show_default=False,
        help="Score each line of a file; - is stdin.",
        rich_help_panel=WHAT,
    ),
    whole: bool = typer.Option(
        False, "--whole", help="The file is one text, however long.", rich_help_panel=WHAT
    ),
    pairs: Path = typer.Option(
        None,
        metavar="FILE",
        show_default=False,
        help="Minimal pairs: good, tab, bad (tab, group) on each line, or JSON lines with "
        "sentence_good and sentence_bad; gives the share that the model gets right.",
        rich_help_panel=WHAT,
    ),
    context: str = typer.Option(
        "",
        metavar="TEXT|@FILE",
        show_default=False,
        help="Text before each text: read, not scored.",
        rich_help_panel=WHAT,
    ),
    eos: bool = typer.Option(
        None,
        "--eos/--no-eos",
        show_default="on for models trained with --documents",
        help="Count the end of each text as an event.",
        rich_help_panel=EVENT,
    ),
    on_unknown: str = typer.Option(
        "unk",
        help="Characters the model has never seen: charge them as unk, skip them, or error.",
        rich_help_panel=EVENT,
    ),
    per_char: bool = typer.Option(
        False, "--per-char", help="Every character: coloured on a terminal.", rich_help_panel=REPORT
    ),
    alternatives: int = typer.Option(
        ALTERNATIVES,
        metavar="K",
        help="With --per-char and --html: name the K most probable characters.",
        rich_help_panel=REPORT,
    ),
    per_word: bool = typer.Option(
        False, "--per-word", help="The sum over each word's characters.", rich_help_panel=REPORT
    ),
    sort: bool = typer.Option(
        False, "--sort", help="Most probable text first.", rich_help_panel=REPORT
    ),
    by: str = typer.Option(
        None,
        show_default="total",
        help="Rank and judge pairs by total or per-char probability.",
        rich_help_panel=REPORT,
    ),
    compare: Path = typer.Option(
        None,
        metavar="MODEL",
        parser=model_name,
        show_default=False,
        help="Another model on the same texts: difference with a bootstrap interval.",
        rich_help_panel=REPORT,
    ),
    adapt: bool = typer.Option(
        False,
        "--adapt",
        help="Also let a copy of the model learn from what it has scored (dynamic evaluation).",
        rich_help_panel=REPORT,
    ),
    lanes: int = typer.Option(
        None,
        metavar="N",
        show_default=False,
        help="With --whole: read N pieces side by side; fast, and nearly exact.",
        rich_help_panel=REPORT,
    ),
    warmup: int = typer.Option(
        None,
        metavar="W",
        show_default=str(WARMUP),
        help="With --lanes: uncounted characters before each piece.",
        rich_help_panel=REPORT,
    ),
    output: str = typer.Option(
        None,
        "--format",
        show_default="table on a terminal, else tsv",
        help="table, tsv or jsonl.",
        rich_help_panel=OUTPUT,
    ),
    html: Path = typer.Option(
        None,
        metavar="FILE",
        show_default=False,
        help="Write a page with the text coloured by surprise, too.",
        rich_help_panel=OUTPUT,
    ),
) -> None:
    """Say how probable texts are under the model.

    Logarithms are natural in logprob (nats), to base 2 in log2prob and bits.
    """
    request = Request(
        texts=tuple(texts or ()),
        model=model,
        file=file,
        whole=whole,
        pairs=pairs,
        context=context,
        eos=eos,
        on_unknown=on_unknown,
        per_char=per_char,
        per_word=per_word,
        alternatives=alternatives,
        sort=sort,
        by=by,
        compare=compare,
        adapt=adapt,
        lanes=lanes,
        warmup=warmup,
        output=output,
        html=html,
    )
    from charrnn.cli.score_report import report

    report(request, output or ("table" if sys.stdout.isatty() else "tsv"))
