"""`charrnn sample`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import charrnn.cli.options as options
from charrnn.cli.drawing import Draw, Prompts, unknown_in
from charrnn.cli.options import option, output, with_settings
from charrnn.config import (
    MAX_NUM,
    DecodingErrors,
    EnginePrecision,
    OnUnknown,
    SamplingConfig,
    fresh_seed,
)
from charrnn.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.sampling.novelty import NoveltyIndex

SampleFormat = Literal["text", "jsonl"]


_what = partial(option, "What to write")
_choice = partial(option, "Choosing characters")


@with_settings(
    ("Choosing characters", SamplingConfig, "top_k top_p min_p no_repeat"),
    ("Where to end", SamplingConfig, "length min_length"),
    ("What to write", SamplingConfig, "precision"),
    ("Output", SamplingConfig, "logprobs"),
    top_k={"metavar": "K"},
    top_p={"metavar": "P"},
    min_p={"metavar": "P"},
    no_repeat={"metavar": "N"},
    length={"names": "--length -n", "metavar": "N"},
    min_length={"metavar": "N"},
)
def sample(
    named: Path = options.MODEL_ARGUMENT,
    model: Path = options.MODEL,
    prompt: str = _what("", "--prompt -p", "Text to continue.", metavar="TEXT", show_default=False),
    prompt_file: Path = _what(
        None,
        "--prompt-file",
        "Read the prompt from a file, without the end of its last line; - is standard input.",
        metavar="FILE",
        parser=options.path_name,
        show_default=False,
    ),
    prompts: Path = _what(
        None,
        "--prompts",
        "Read a prompt from each line of a file; - is standard input.",
        metavar="FILE",
        parser=options.path_name,
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
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
    device: str = options.DEVICE,
    temperature: list[str] = _choice(
        [],
        "--temp -t",
        "Temperature: below 1 is more careful, above 1 more daring; 0 is --greedy.",
        metavar="T[,T...]",
        show_default="1.0",
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
    raw: bool = output(False, "--raw", "Send control characters to the terminal as they are."),
    output_format: SampleFormat = output("text", "--format", "Format of the samples."),
    check_novelty: Path = output(
        None,
        "--check-novelty",
        "Mark what is copied from this text, and say how much: passages of 30 or more characters, "
        "and samples that are whole documents of it.",
        metavar="CORPUS",
        show_default=False,
    ),
    new_only: bool = output(
        False,
        "--new-only",
        "With --check-novelty: replace samples in which anything is copied by new ones.",
    ),
    unique: bool = output(
        False, "--unique", "Replace samples that have been written before by new ones."
    ),
    **settings: Any,
) -> None:
    """Write new text like the training text, to stdout.

    The filters work in this order: temperature, top-k, top-p, min-p.
    """
    if greedy and temperature:
        raise ConfigError("--greedy is --temp 0: give one of the two")
    temperatures = [0.0] if greedy else _numbers(temperature or ["1.0"])
    if settings["logprobs"] and output_format != "jsonl":
        raise ConfigError("--logprobs needs --format jsonl: text has no place for numbers")
    if new_only and check_novelty is None:
        raise ConfigError(
            "--new-only needs --check-novelty CORPUS: name the text that nothing is copied from"
        )
    if not 1 <= num <= MAX_NUM:
        raise ConfigError(f"must be from 1 to {MAX_NUM:,}, got {num}", field="num")
    if sum((bool(prompt), prompt_file is not None, prompts is not None)) > 1:
        raise ConfigError("--prompt, --prompt-file and --prompts exclude each other: give one")
    if prompt == "-":
        raise ConfigError(
            "--prompt - may mean standard input, which is --prompt-file -, or the text -, which is "
            "-e --prompt '\\u002d'"
        )
    if named is not None:
        _require_model(named)
    options.require_apart(
        [one for one in (prompt_file, prompts, check_novelty) if one not in (None, options.STDIN)]
    )
    chosen = options.one_model(named, model)
    read = options.Reading(escapes=escapes, encoding=encoding, errors=errors)
    configs = [
        SamplingConfig(
            temperature=one,
            stop=tuple(map(read.argument, stop)),
            seed=fresh_seed() if seed is None else seed,
            **settings,
        )
        for one in temperatures
    ]
    config = configs[0]

    if interactive:
        from charrnn.cli.interactive import require_terminal, write_together

        _refuse_beside_interactive(
            {
                "--prompts": prompts is not None,
                "--num": num > 1,
                "several --temp": len(temperatures) > 1,
                "--format": output_format != "text",
                "--check-novelty": check_novelty is not None,
                "--unique": unique,
                "--device": device not in ("auto", "cpu"),
            }
        )
        require_terminal()
    n_texts = num * len(temperatures)
    if config.precision == "int8":
        if device not in ("auto", "cpu"):
            raise ConfigError("--precision int8 is for the CPU: leave out --device")
        device = "cpu"
    device = options.choose_device(device, rows=n_texts, chars=n_texts * config.length)

    from charrnn.display import sample as display
    from charrnn.display.terminal import pasted, say
    from charrnn.storage.model_file import require_one_way

    text = read.argument(prompt)
    if prompt_file is not None:
        from charrnn.corpus.sources import text_of

        text = text_of(prompt_file, encoding=encoding, errors=errors).removesuffix("\n")
    elif os.path.isfile(prompt):
        name = pasted([prompt])
        say(f"the prompt is the text {name}; the content of that file is --prompt-file {name}")
    if num > 1 and 0.0 in temperatures and not (new_only or unique):
        say(f"temperature 0 always writes the same text: --num {num} repeats it")
    given = Prompts(text, read, prompts)
    loaded = options.open_model(chosen, bidirectional=False)
    require_one_way(loaded.saved)  # before anything is announced
    used = loaded.used_precision(config.precision)
    draw = Draw(loaded, config, temperatures, num, on_unknown, device)
    if given.can_be_read_again:
        draw.check(given)
    for line in _impossible_stops(loaded, config.stop):
        say(line)
    if interactive:
        write_together(loaded, config, text, start=draw.start, read=read.argument)
        return
    is_told = config.precision != "auto" or (loaded.precision_is_open and device == "cpu")
    precision = used if is_told else None
    again = _repeat(config, seed, chosen, loaded, precision)
    say(f"seed {config.seed}{f' in {precision}' if precision else ''}; to repeat: {again}")
    is_one = not given.are_several and len(temperatures) == num == 1
    is_streamed = stream and device == "cpu" and output_format == "text" and check_novelty is None
    if is_one and is_streamed:
        (request,) = draw.requests(given)
        drawn = loaded.stream_request(request, config)
        text = display.show_stream(drawn, request.prompt if echo else "", raw=raw)
        display.tell_blank(text, drawn.stop_reason, in_documents=loaded.ends_count)
        given.tell_empty()
        return
    index = None
    if check_novelty is not None:
        index = _index(loaded, read, check_novelty)
    several = (given.are_several, len(temperatures) > 1)
    is_labelled = any(several) or (not is_one and "\n" in loaded.saved.vocabulary.characters)
    display.show_samples(
        draw.samples(given, index, new_only=new_only, unique=unique),
        as_json=output_format == "jsonl",
        echo=echo,
        labels=display.Labels(*several) if is_labelled else None,
        raw=raw,
        in_documents=loaded.ends_count,
    )
    given.tell_empty()


def _require_model(named: Path) -> None:
    """See that the model named by an argument exists.

    Raises:
        ConfigError: it does not, and may be meant as a prompt.
        ModelFileError: it is the name of a run, without its folder.
    """
    from charrnn.storage.runs import DEFAULT_ROOT, find_model

    try:
        find_model(named)
    except ModelFileError as error:
        if (DEFAULT_ROOT / named).is_dir():
            raise
        raise ConfigError(
            f"there is no model {str(named)!r}; a text to continue comes after --prompt, in quotes"
        ) from error


def _refuse_beside_interactive(options: dict[str, bool]) -> None:
    """Refuse options that writing together has no use for, given which of them are on.

    Raises:
        ConfigError: one is.
    """
    for name, is_on in options.items():
        if is_on:
            raise ConfigError(
                f"--interactive writes one text, turn by turn: leave out {name}, or --interactive"
            )


def _index(model: CharModel, read: options.Reading, path: Path) -> NoveltyIndex:
    """Return what finds copies from a text, which is read as the model's training text was."""
    from charrnn.sampling.novelty import NoveltyIndex

    text = model.saved.text
    pieces = read.pieces(path, model.saved.vocabulary.unit, text.normalize)
    return NoveltyIndex(pieces, documents=text.documents)


def _impossible_stops(model: CharModel, stops: tuple[str, ...]) -> Iterator[str]:
    """Yield a line for each stop text that the model cannot write."""
    from charrnn.display.terminal import visible_text

    for stop in stops:
        lacking, hint = unknown_in(model, stop)
        if lacking:
            yield (
                f"the stop text '{visible_text(stop)}' never comes, for the model does not know "
                f"{lacking}{hint}"
            )


def _numbers(texts: list[str]) -> list[float]:
    """Return the temperatures in `0.5,0.8` or in several options.

    Raises:
        ConfigError: one is not a number, or may be one with a decimal comma.
    """
    for text in texts:
        if found := re.search(r"(?<![.\d])\d+,\d+(?![.\d])", text):  # 0,5: with a decimal comma?
            one = found[0].replace(",", ".")
            several = " --temp ".join(text.split(","))
            raise ConfigError(
                f"has {found[0]}, which may mean {one} or {found[0].replace(',', ' and ')}: write "
                f"a decimal point, or --temp {several}",
                field="temperature",
            )
    try:
        return [float(part) for text in texts for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"must be numbers such as 0.8 or 0.5,1.0, got {','.join(texts)!r}", field="temperature"
        ) from None


def _repeat(
    config: SamplingConfig,
    seed: int | None,
    named: Path | None,
    loaded: CharModel,
    precision: EnginePrecision | None,
) -> str:
    """Return the command that writes the same text again, after other models are trained, too.

    Args:
        config: how it is drawn.
        seed: as it was given.
        named: the model, as it was given.
        loaded: the model.
        precision: what is used, if that is not sure to be the same on another machine.
    """
    from charrnn.display.terminal import pasted
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    words = []
    if named is None:
        words += ["-m", BUILTIN if loaded.path == BUILTIN_MODEL else str(loaded.path)]
    if seed is None:
        words += ["--seed", str(config.seed)]
    rest = sys.argv[2:]
    if config.precision == "auto" and precision is not None:
        words += ["--precision", precision]
        if "--precision" in rest:  # auto, which would have the last word
            at = rest.index("--precision")
            rest = rest[:at] + rest[at + 2 :]
        rest = [word for word in rest if word != "--precision=auto"]
    return pasted(["charrnn", *sys.argv[1:2], *words, *rest])
