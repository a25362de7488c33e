"""`charrnn sample`."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from charrnn.cli.options import MODEL, open_model, option, output, with_settings
from charrnn.config import OnUnknown, SamplingConfig, fresh_seed
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.sampling.writer import Request

SampleFormat = Literal["text", "jsonl"]
MAX_NUM = 1_000_000
"""Samples of one command; beyond it a mistake is more likely than a wish."""


_what = partial(option, "What to write")
_choice = partial(option, "Choosing characters")


@with_settings(
    ("Choosing characters", SamplingConfig, "top_k top_p min_p no_repeat"),
    ("Where to end", SamplingConfig, "length min_length"),
    ("Output", SamplingConfig, "logprobs"),
    top_k={"metavar": "K"},
    top_p={"metavar": "P"},
    min_p={"metavar": "P"},
    no_repeat={"metavar": "N"},
    length={"names": "--length -n", "metavar": "N"},
    min_length={"metavar": "N"},
)
def sample(
    model: Path = MODEL,
    prompt: str = _what("", "--prompt -p", "Text to continue.", metavar="TEXT", show_default=False),
    prompt_file: Path = _what(
        None,
        "--prompt-file",
        "Read the prompt from a file; - is standard input.",
        metavar="FILE",
        show_default=False,
    ),
    prompts: Path = _what(
        None,
        "--prompts",
        "Read a prompt from each line of a file; - is standard input.",
        metavar="FILE",
        show_default=False,
    ),
    on_unknown: OnUnknown = _what(
        "error",
        "--on-unknown",
        "Characters of the prompt that the model has never seen: read them as UNK (unk), leave "
        "them out (skip), or refuse the prompt (error).",
    ),
    num: int = _what(1, "--num", "Number of samples for each prompt and temperature.", metavar="N"),
    seed: int = _what(
        None,
        "--seed",
        "Seed: the same one gives the same text.",
        metavar="N",
        show_default="a fresh one",
    ),
    interactive: bool = _what(
        False, "--interactive -i", "Write together with the model, turn by turn."
    ),
    temperature: list[str] = _choice(
        ["1.0"],
        "--temp -t",
        "Temperature: below 1 is more careful, above 1 more daring; 0 is --greedy.",
        metavar="T[,T...]",
    ),
    greedy: bool = _choice(False, "--greedy", "Always take the most probable character."),
    stop: list[str] = option(
        "Where to end",
        [],
        "--stop",
        "End before this text; may be given several times.",
        metavar="TEXT",
        show_default=False,
    ),
    stream: bool = output(
        True, "--stream/--no-stream", "Write each character at once, or all of them at the end."
    ),
    echo: bool = output(True, "--echo/--no-echo", "Write the prompt, too."),
    output_format: SampleFormat = output("text", "--format", "Format of the samples."),
    check_novelty: Path = output(
        None,
        "--check-novelty",
        "Mark what is copied from this text, and say how much.",
        metavar="CORPUS",
        show_default=False,
    ),
    **settings: Any,
) -> None:
    """Write new text like the training text, to stdout.

    The filters work in this order: temperature, top-k, top-p, min-p.
    """
    temperatures = [0.0] if greedy else _numbers(temperature)
    if settings["logprobs"] and output_format != "jsonl":
        raise ConfigError("--logprobs needs --format jsonl: text has no place for numbers")
    if not 1 <= num <= MAX_NUM:
        raise ConfigError(f"must be from 1 to {MAX_NUM:,}, got {num}", field="num")
    if sum((bool(prompt), prompt_file is not None, prompts is not None)) > 1:
        raise ConfigError("--prompt, --prompt-file and --prompts exclude each other: give one")
    configs = [
        SamplingConfig(
            temperature=one,
            stop=tuple(stop),
            seed=fresh_seed() if seed is None else seed,
            **settings,
        )
        for one in temperatures
    ]
    config = configs[0]

    if interactive:
        from charrnn.cli.interactive import require_terminal, write_together

        require_terminal()

    from charrnn.corpus.sources import lines_of, pieces_of
    from charrnn.display import sample as display

    texts = [prompt]
    if prompts is not None:
        texts = list(lines_of(prompts))
        if not texts:
            raise ConfigError(f"{prompts} has no prompt in it: put one on each line")
    elif prompt_file is not None:
        texts = ["".join(pieces_of(prompt_file))]
    corpus = None if check_novelty is None else "".join(pieces_of(check_novelty))
    loaded = open_model(model)
    if interactive:
        write_together(loaded, config, texts[0])
        return
    requests = _requests(loaded, texts, temperatures, num, on_unknown)
    again = _repeat(config.seed, seed, model, loaded)
    print(f"seed {config.seed}; to repeat: {again}", file=sys.stderr)
    sys.stderr.flush()
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
    loaded: CharModel,
    texts: list[str],
    temperatures: list[float],
    num: int,
    on_unknown: OnUnknown,
) -> list[Request]:
    """Return one request per prompt, temperature and sample; each prompt is read once."""
    from charrnn.display.sample import prompt_progress
    from charrnn.sampling.writer import Request

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
        raise ConfigError(
            f"must be numbers such as 0.8 or 0.5,1.0, got {','.join(texts)!r}", field="temperature"
        ) from None


def _repeat(used: int, given: int | None, named: Path | None, loaded: CharModel) -> str:
    """Return the command that writes the same text again, after other models are trained, too."""
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    words = ["charrnn", *sys.argv[1:]]
    if named is None:
        words += ["-m", BUILTIN if loaded.path == BUILTIN_MODEL else str(loaded.path)]
    if given is None:
        words += ["--seed", str(used)]
    return shlex.join(words)
