"""`charrnn sample`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import charrnn.cli.options as options
from charrnn.cli.options import option, output, with_settings
from charrnn.config import DecodingErrors, OnUnknown, SamplingConfig, fresh_seed
from charrnn.errors import ConfigError, UnknownCharacterError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.sampling.novelty import Novelty, NoveltyIndex
    from charrnn.sampling.writer import Request, Sample

SampleFormat = Literal["text", "jsonl"]
MAX_NUM = 1_000_000
"""Samples of one prompt; beyond it a mistake is more likely than a wish."""
PATIENCE = 200
"""Samples in a row that are dropped before `--unique` or `--new-only` gives up."""
ROUND = 64
"""Most samples drawn at once while some are dropped."""


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
    named: Path = options.MODEL_ARGUMENT,
    model: Path = options.MODEL,
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
    encoding: str = options.ENCODING,
    errors: DecodingErrors = options.ERRORS,
    escapes: bool = options.ESCAPES,
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
        "Mark what is copied from this text, and say how much.",
        metavar="CORPUS",
        show_default=False,
    ),
    new_only: bool = output(
        False, "--new-only", "With --check-novelty: drop samples with anything copied."
    ),
    unique: bool = output(False, "--unique", "Drop samples that have been written before."),
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
        raise ConfigError("--new-only needs --check-novelty: name the text that nothing is from")
    if not 1 <= num <= MAX_NUM:
        raise ConfigError(f"must be from 1 to {MAX_NUM:,}, got {num}", field="num")
    if sum((bool(prompt), prompt_file is not None, prompts is not None)) > 1:
        raise ConfigError("--prompt, --prompt-file and --prompts exclude each other: give one")
    chosen = options.one_model(named, model)
    if named is not None and str(named) != "builtin" and not os.path.exists(named):
        raise ConfigError(f"there is no model {named}; a text to continue comes after --prompt")
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

        require_terminal()

    from charrnn.display import sample as display
    from charrnn.display.terminal import say

    texts = [read.argument(prompt)]
    if prompts is not None:
        texts = list(read.lines(prompts))
        if not texts:
            raise ConfigError(f"{prompts} has no prompt in it: put one on each line")
    elif prompt_file is not None:
        texts = ["".join(read.pieces(prompt_file))]
    loaded = options.open_model(chosen)
    _check_prompts(loaded, texts, on_unknown)
    for line in _impossible_stops(loaded, config.stop):
        say(line)
    if interactive:
        write_together(loaded, config, texts[0])
        return
    say(f"seed {config.seed}; to repeat: {_repeat(config.seed, seed, chosen, loaded)}")
    draw = _Draw(loaded, config, temperatures, num, on_unknown)
    n_samples = len(texts) * len(temperatures) * num
    whole = not stream or n_samples > 1 or check_novelty is not None or unique
    if not whole and output_format == "text":
        (request,) = draw.requests(texts)
        display.show_stream(
            loaded.stream_request(request, config), texts[0] if echo else "", raw=raw
        )
        return
    index = None
    if check_novelty is not None:
        index = _index(loaded, read, check_novelty)
    display.show_samples(
        draw.samples(texts, index, new_only=new_only, unique=unique),
        as_json=output_format == "jsonl",
        echo=echo,
        labelled=len(temperatures) > 1
        or (n_samples > 1 and "\n" in loaded.saved.vocabulary.characters),
        raw=raw,
    )


class _Draw:
    """Draws the samples of a command: for each prompt and temperature, some of the seed."""

    def __init__(
        self,
        model: CharModel,
        config: SamplingConfig,
        temperatures: list[float],
        num: int,
        on_unknown: OnUnknown,
    ) -> None:
        """Draw nothing yet."""
        self._model = model
        self._config = config
        self._temperatures = temperatures
        self._num = num
        self._on_unknown = on_unknown

    def requests(self, texts: list[str]) -> Iterator[Request]:
        """Yield what is to be drawn if nothing is dropped; each prompt is read when it is due."""
        for first, request in self._groups(texts):
            yield from (request(first + k) for k in range(self._num))

    def samples(
        self, texts: list[str], index: NoveltyIndex | None, *, new_only: bool, unique: bool
    ) -> Iterator[tuple[Sample, Novelty | None]]:
        """Yield the samples, each with what is copied in it.

        Args:
            texts: the prompts.
            index: of the text to look for copies in, or None.
            new_only: drop samples with anything copied, and draw others in their place.
            unique: drop samples that were there before.
        """
        if not (new_only or unique):
            for sample in self._model.sample_requests(self.requests(texts), self._config):
                yield sample, None if index is None else index.check(sample.text, sample.prompt)
            return
        seen: set[str] = set()
        for first, request in self._groups(texts):
            n_kept = n_dropped = 0
            for sample in self._endless(first, request):
                novelty = None if index is None else index.check(sample.text, sample.prompt)
                is_copied = novelty is not None and bool(novelty.spans)
                written = sample.prompt + sample.text
                if (new_only and is_copied) or (unique and written in seen):
                    n_dropped += 1
                else:
                    seen.update([written] if unique else [])
                    n_kept, n_dropped = n_kept + 1, 0
                    yield sample, novelty
                if n_kept == self._num:
                    break
                if n_dropped == PATIENCE:
                    _give_up(n_kept, self._num, new_only=new_only, unique=unique)
                    break

    def _groups(self, texts: list[str]) -> Iterator[tuple[int, Callable[[int], Request]]]:
        """Yield for each prompt and temperature the first index, and what makes the requests."""
        from charrnn.display.sample import prompt_progress
        from charrnn.sampling.writer import Request

        for number, text in enumerate(texts):
            with prompt_progress(len(text)) as progress:
                start = self._model.start(text, on_unknown=self._on_unknown, progress=progress)
            for temperature in self._temperatures:
                # each prompt has numbers of its own, whatever --num is
                yield number * MAX_NUM, partial(Request, start, text, temperature)

    def _endless(self, first: int, request: Callable[[int], Request]) -> Iterator[Sample]:
        """Yield one sample after another; each is the same in rounds of any size."""
        size = min(self._num, ROUND)
        while True:
            some = [request(k) for k in range(first, first + size)]
            yield from self._model.sample_requests(some, self._config)
            first, size = first + size, min(2 * size, ROUND)


def _give_up(n_kept: int, num: int, *, new_only: bool, unique: bool) -> None:
    from charrnn.display.terminal import say

    what = [name for name, is_on in (("copied", new_only), ("repeated", unique)) if is_on]
    say(
        f"{n_kept:,} of {num:,} samples: the last {PATIENCE} drawn were all {' or '.join(what)}; "
        "try a higher --temp"
    )


def _index(model: CharModel, read: options.Reading, path: Path) -> NoveltyIndex:
    """Return what finds copies from a text, which is read as the model's training text was."""
    from charrnn.sampling.novelty import NoveltyIndex

    text = model.saved.text
    pieces = read.pieces(path, model.saved.vocabulary.unit, text.normalize)
    return NoveltyIndex(pieces, documents=text.documents)


def _check_prompts(model: CharModel, texts: list[str], on_unknown: OnUnknown) -> None:
    """See that all prompts can be read before anything is written.

    Raises:
        UnknownCharacterError: one has unknown characters, and they are refused.
    """
    for text in texts:
        try:
            model.encode_prompt(text, on_unknown)
        except UnknownCharacterError as error:
            raise UnknownCharacterError(f"{error}{_unknown_in(model, text)[1]}") from error


def _impossible_stops(model: CharModel, stops: tuple[str, ...]) -> Iterator[str]:
    """Yield a line for each stop text that the model cannot write."""
    from charrnn.display.terminal import visible_text

    for stop in stops:
        lacking, hint = _unknown_in(model, stop)
        if lacking:
            yield (
                f"the stop text '{visible_text(stop)}' never comes, for the model does not know "
                f"{lacking}{hint}"
            )


def _unknown_in(model: CharModel, text: str) -> tuple[str, str]:
    """Name the characters of a text that the model does not know, and say why that may be."""
    from charrnn.display.score import unknown_hint
    from charrnn.normalize import normalize
    from charrnn.vocab import list_unknown

    vocabulary = model.saved.vocabulary
    unknown = vocabulary.unknown(normalize(text, model.saved.text.normalize))
    return list_unknown(unknown), unknown_hint((one.character for one in unknown), vocabulary)


def _numbers(texts: list[str]) -> list[float]:
    """Return the temperatures in `0.5,0.8` or in several options.

    Raises:
        ConfigError: one is not a number, or may be one with a decimal comma.
    """
    for text in texts:
        if re.fullmatch(r"\d+(,\d+)+", text):
            several = " --temp ".join(text.split(","))
            raise ConfigError(
                f"may mean {text.replace(',', '.', 1)} or {text.replace(',', ' and ')}: write a "
                f"decimal point, or --temp {several}",
                field="temperature",
            )
    try:
        return [float(part) for text in texts for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"must be numbers such as 0.8 or 0.5,1.0, got {','.join(texts)!r}", field="temperature"
        ) from None


def _repeat(used: int, given: int | None, named: Path | None, loaded: CharModel) -> str:
    """Return the command that writes the same text again, after other models are trained, too."""
    from charrnn.display.terminal import pasted
    from charrnn.storage.runs import BUILTIN, BUILTIN_MODEL

    words = []
    if named is None:
        words += ["-m", BUILTIN if loaded.path == BUILTIN_MODEL else str(loaded.path)]
    if given is None:
        words += ["--seed", str(used)]
    return pasted(["charrnn", *sys.argv[1:2], *words, *sys.argv[2:]])
