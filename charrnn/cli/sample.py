"""`charrnn sample`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from charrnn.cli.options import MODEL, open_model, read_file, read_lines
from charrnn.config import SamplingConfig, fresh_seed
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.api import CharModel
    from charrnn.sampling.prompt import Request

WHAT, CHOICE, END, OUTPUT = "What to write", "Choosing characters", "Where to end", "Output"
FORMATS = ("text", "jsonl")
MAX_NUM = 1_000_000
"""Samples of one command; beyond it a mistake is more likely than a wish."""


def sample(
    model: Path = MODEL,
    prompt: str = typer.Option("", "--prompt", "-p", help="Text to go on.", rich_help_panel=WHAT),
    prompt_file: Path = typer.Option(
        None,
        metavar="FILE",
        show_default=False,
        help="Read the prompt from a file; - is standard input.",
        rich_help_panel=WHAT,
    ),
    prompts: Path = typer.Option(
        None,
        metavar="FILE",
        show_default=False,
        help="Read a prompt from each line of a file; - is standard input.",
        rich_help_panel=WHAT,
    ),
    on_unknown: str = typer.Option(
        "error",
        help="Characters of the prompt that the model has never seen: error, skip or replace.",
        rich_help_panel=WHAT,
    ),
    num: int = typer.Option(
        1, "--num", help="Samples for each prompt and temperature.", rich_help_panel=WHAT
    ),
    seed: int = typer.Option(
        None, show_default="fresh", help="Same seed, same text.", rich_help_panel=WHAT
    ),
    interactive: bool = typer.Option(
        False, "--interactive", "-i", help="Write together, turn by turn.", rich_help_panel=WHAT
    ),
    temperature: list[str] = typer.Option(
        ["1.0"],
        "--temp",
        "-t",
        metavar="T[,T...]",
        help="Below 1 more careful, above 1 more daring; 0 is --greedy.",
        rich_help_panel=CHOICE,
    ),
    greedy: bool = typer.Option(
        False, "--greedy", help="Always the most probable character.", rich_help_panel=CHOICE
    ),
    top_k: int = typer.Option(
        SamplingConfig.top_k, help="Only the K most probable; 0 for all.", rich_help_panel=CHOICE
    ),
    top_p: float = typer.Option(
        SamplingConfig.top_p,
        help="Only the most probable that together reach probability P.",
        rich_help_panel=CHOICE,
    ),
    min_p: float = typer.Option(
        SamplingConfig.min_p,
        help="Only those at least P times as probable as the most probable.",
        rich_help_panel=CHOICE,
    ),
    no_repeat: int = typer.Option(
        SamplingConfig.no_repeat,
        metavar="N",
        help="Never write the same N characters twice; 0 allows it. For loops at low temperature.",
        rich_help_panel=CHOICE,
    ),
    length: int = typer.Option(
        SamplingConfig.length,
        "--length",
        "-n",
        help="Most characters to write.",
        rich_help_panel=END,
    ),
    min_length: int = typer.Option(
        SamplingConfig.min_length,
        help="The text may not end before so many characters.",
        rich_help_panel=END,
    ),
    stop: list[str] = typer.Option(
        [],
        "--stop",
        metavar="TEXT",
        show_default=False,
        help="End before this text; may be given several times.",
        rich_help_panel=END,
    ),
    stream: bool = typer.Option(
        True,
        "--stream/--no-stream",
        help="Write each character at once, or all at the end.",
        rich_help_panel=OUTPUT,
    ),
    echo: bool = typer.Option(
        True, "--echo/--no-echo", help="Write the prompt, too.", rich_help_panel=OUTPUT
    ),
    output_format: str = typer.Option(
        "text", "--format", help="text or jsonl.", rich_help_panel=OUTPUT
    ),
    logprobs: bool = typer.Option(
        False,
        "--logprobs",
        help="With --format jsonl: the log-probability (nats) of each character.",
        rich_help_panel=OUTPUT,
    ),
    check_novelty: Path = typer.Option(
        None,
        metavar="CORPUS",
        show_default=False,
        help="Mark what is copied from this text, and say how much.",
        rich_help_panel=OUTPUT,
    ),
) -> None:
    """Write new text like the training text, to stdout.

    The filters work in this order: temperature, top-k, top-p, min-p.
    """
    temperatures = [0.0] if greedy else _numbers(temperature)
    if output_format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {output_format!r}")
    if logprobs and output_format != "jsonl":
        raise ConfigError("--logprobs needs --format jsonl: text has no place for numbers")
    if not 1 <= num <= MAX_NUM:
        raise ConfigError(f"--num must be from 1 to {MAX_NUM:,}, got {num}")
    if sum((bool(prompt), prompt_file is not None, prompts is not None)) > 1:
        raise ConfigError("--prompt, --prompt-file and --prompts exclude each other: give one")
    used_seed = fresh_seed() if seed is None else seed
    configs = [
        SamplingConfig(
            temperature=t,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            no_repeat=no_repeat,
            length=length,
            min_length=min_length,
            stop=tuple(stop),
            logprobs=logprobs,
            seed=used_seed,
        )
        for t in temperatures
    ]
    config = configs[0]

    from charrnn.display import sample as display

    loaded = open_model(model)
    if prompts is not None:
        texts = list(read_lines(prompts))
        if not texts:
            raise ConfigError(f"{prompts} has no prompt in it: put one on each line")
    else:
        texts = [read_file(prompt_file) if prompt_file is not None else prompt]
    if interactive:
        from charrnn.cli.interactive import write_together

        write_together(loaded, config, texts[0])
        return
    requests = _requests(loaded, texts, temperatures, num, on_unknown)
    again = _repeat(config.seed, seed, model, loaded)
    print(f"seed {config.seed}; to repeat: {again}", file=sys.stderr)
    sys.stderr.flush()
    corpus = None if check_novelty is None else read_file(check_novelty)
    whole = not stream or len(requests) > 1 or corpus is not None or output_format == "jsonl"
    if not whole:
        display.show_stream(loaded.stream_request(requests[0], config), texts[0] if echo else "")
        return
    labelled = len(temperatures) > 1 or (
        len(requests) > 1 and "\n" in loaded.saved.vocabulary.characters
    )
    display.show_samples(
        loaded.sample_requests(requests, config),
        as_json=output_format == "jsonl",
        echo=echo,
        labelled=labelled,
        corpus=corpus,
    )


def _requests(
    loaded: CharModel, texts: list[str], temperatures: list[float], num: int, on_unknown: str
) -> list[Request]:
    """Return one request per prompt, temperature and sample; each prompt is read once."""
    from charrnn.display.sample import prompt_progress
    from charrnn.sampling.prompt import Request

    requests: list[Request] = []
    for number, text in enumerate(texts):
        with prompt_progress(len(text)) as progress:
            start = loaded.start(text, on_unknown=on_unknown, progress=progress)
        for temperature in temperatures:
            requests += [Request(start, text, temperature, number * num + k) for k in range(num)]
    return requests


def _numbers(texts: list[str]) -> list[float]:
    """Return the temperatures in `0.5,0.8` or in several options.

    Raises:
        ConfigError: one is not a number.
    """
    try:
        return [float(part) for text in texts for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--temp takes numbers such as 0.8 or 0.5,1.0, not {texts}") from None


def _repeat(used: int, given: int | None, named: Path | None, loaded: CharModel) -> str:
    """Return the command that writes the same text again, after other models are trained, too."""
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    words = ["charrnn", *sys.argv[1:]]
    if named is None:
        words += ["-m", BUILTIN if loaded.path == BUILTIN_MODEL else str(loaded.path)]
    if given is None:
        words += ["--seed", str(used)]
    return shlex.join(words)
