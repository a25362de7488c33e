"""`charrnn sample`."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import charrnn.cli.options as options
from charrnn.cli.options import option, output, with_settings
from charrnn.config import MAX_NUM, DecodingErrors, OnUnknown, SamplingConfig, fresh_seed
from charrnn.errors import CharRNNError, ConfigError, ModelFileError, UnknownCharacterError

if TYPE_CHECKING:
    from charrnn.model import CharModel
    from charrnn.sampling.novelty import Novelty, NoveltyIndex
    from charrnn.sampling.writer import Request, Sample, Start

SampleFormat = Literal["text", "jsonl"]
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
            }
        )
        require_terminal()

    from charrnn.display import sample as display
    from charrnn.display.terminal import pasted, say

    text = read.argument(prompt)
    if prompt_file is not None:
        from charrnn.corpus.sources import text_of

        text = text_of(prompt_file, encoding=encoding, errors=errors).removesuffix("\n")
    elif os.path.isfile(prompt):
        name = pasted([prompt])
        say(f"the prompt is the text {name}; the content of that file is --prompt-file {name}")
    if num > 1 and 0.0 in temperatures and not (new_only or unique):
        say(f"temperature 0 always writes the same text: --num {num} repeats it")
    given = _Prompts(text, read, prompts)
    loaded = options.open_model(chosen)
    draw = _Draw(loaded, config, temperatures, num, on_unknown)
    if given.can_be_read_again:
        draw.check(given)
    for line in _impossible_stops(loaded, config.stop):
        say(line)
    if interactive:
        write_together(loaded, config, text, start=draw.start, read=read.argument)
        return
    say(f"seed {config.seed}; to repeat: {_repeat(config.seed, seed, chosen, loaded)}")
    is_one = not given.are_several and len(temperatures) == num == 1
    if is_one and stream and output_format == "text" and check_novelty is None:
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


class _Prompts:
    """The prompts of a command line, each with its name in messages.

    Attributes:
        are_several: there is more than one.
        can_be_read_again: they are in memory or in an ordinary file, not in a pipe.

    Args:
        text: the prompt if there is no file of several.
        read: reads the lines of a file.
        file: with a prompt on each line, or None.

    Raises:
        ConfigError: the file is empty.
        CorpusError: it cannot be read or decoded, or a line is too long.
    """

    def __init__(self, text: str, read: options.Reading, file: Path | None) -> None:
        """Read the first two prompts: that there are none is told before a model is loaded."""
        self._file = file
        self._read = read
        self._n_empty = self._first_empty = 0
        self._rest = iter([text]) if file is None else read.lines(file)
        self._first = list(itertools.islice(self._rest, 2))
        if not self._first:
            raise ConfigError(f"{self._name} has no prompt in it: put one on each line")
        self.are_several = len(self._first) > 1
        self.can_be_read_again = file is None or (file != options.STDIN and file.is_file())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the prompts, and note those of a file that are empty."""
        lines: Iterable[str] = itertools.chain(self._first, self._rest)
        if self._file is not None and self.can_be_read_again:
            lines = self._read.lines(self._file)
        self._n_empty = self._first_empty = 0
        for number, text in enumerate(lines, 1):
            if not text and self._file is not None:
                self._n_empty += 1
                self._first_empty = self._first_empty or number
            yield text

    def tell_empty(self) -> None:
        """Say on stderr that lines are empty, for a blank line at the end is easily overlooked."""
        from charrnn.display.terminal import say

        which = f"{self.place(self._first_empty)} is empty: nothing is continued there"
        if self._n_empty > 1:
            which = f"{self._n_empty:,} prompts are empty, first {which.partition(' is empty')[0]}"
            which += ": nothing is continued there"
        if self._n_empty:
            say(which)

    @property
    def _name(self) -> str:
        return options.file_name(self._file)

    def place(self, number: int) -> str:
        """Return the name of a prompt, by its number from 1."""
        return "the prompt" if self._file is None else f"line {number:,} of {self._name}"


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

    def start(
        self,
        text: str,
        place: str,
        after: Start | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Start:
        """Read a text; `place` is its name in messages. See `CharModel.start`.

        Raises:
            UnknownCharacterError: it has unknown characters, and they are refused.
        """
        how = self._on_unknown
        with _refused(self._model, text, place):
            return self._model.start(text, after=after, on_unknown=how, progress=progress)

    def check(self, given: _Prompts) -> None:
        """See that all prompts can be read before anything is written.

        Raises:
            UnknownCharacterError: one has unknown characters, and they are refused.
        """
        for number, text in enumerate(given, 1):
            with _refused(self._model, text, given.place(number)):
                self._model.encode_prompt(text, self._on_unknown)

    def requests(self, given: _Prompts) -> Iterator[Request]:
        """Yield what is to be drawn if nothing is dropped; each prompt is read when it is due."""
        for first, request in self._groups(given):
            yield from (request(first + k) for k in range(self._num))

    def samples(
        self, given: _Prompts, index: NoveltyIndex | None, *, new_only: bool, unique: bool
    ) -> Iterator[tuple[Sample, Novelty | None]]:
        """Yield the samples, each with what is copied in it.

        Args:
            given: the prompts.
            index: of the text to look for copies in, or None.
            new_only: drop samples with anything copied, and draw others in their place.
            unique: drop samples that were there before.

        Raises:
            UnknownCharacterError: a prompt from a pipe has unknown characters, and they are
                refused; the samples of those before it are drawn first.
            CharRNNError: too many samples are dropped to find as many as were asked for.
        """
        if not (new_only or unique):
            errors: list[CharRNNError] = []
            requests = _until_error(self.requests(given), errors)
            for sample in self._model.sample_requests(requests, self._config):
                yield sample, None if index is None else index.check(sample.text, sample.prompt)
            if errors:
                raise errors[0]
            return
        seen: set[int] = set()
        n_written = n_wanted = 0
        for first, request in self._groups(given):
            n_kept = n_dropped = 0
            n_wanted += self._num
            for sample in self._endless(first, request):
                novelty = None if index is None else index.check(sample.text, sample.prompt)
                is_copied = novelty is not None and bool(novelty.spans)
                written = hash(sample.prompt + sample.text)
                if (new_only and is_copied) or (unique and written in seen):
                    n_dropped += 1
                else:
                    seen.update([written] if unique else [])
                    n_kept, n_dropped = n_kept + 1, 0
                    yield sample, novelty
                if n_kept == self._num or n_dropped == PATIENCE:
                    break
            n_written += n_kept
        if n_written < n_wanted:
            what = [name for name, is_on in (("copied", new_only), ("repeated", unique)) if is_on]
            raise CharRNNError(
                f"{n_written:,} of {n_wanted:,} samples written: for the others, {PATIENCE} drawn "
                f"in a row were all {' or '.join(what)}; try a higher --temp or a smaller --num"
            )

    def _groups(self, given: _Prompts) -> Iterator[tuple[int, Callable[[int], Request]]]:
        """Yield for each prompt and temperature the first index, and what makes the requests."""
        from charrnn.display.sample import prompt_progress
        from charrnn.sampling.writer import Request

        for number, text in enumerate(given):
            with prompt_progress(len(text)) as progress:
                start = self.start(text, given.place(number + 1), progress=progress)
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


def _until_error(requests: Iterable[Request], errors: list[CharRNNError]) -> Iterator[Request]:
    """Yield requests up to one that cannot be made, and put its error into the list."""
    try:
        yield from requests
    except CharRNNError as error:
        errors.append(error)


def _index(model: CharModel, read: options.Reading, path: Path) -> NoveltyIndex:
    """Return what finds copies from a text, which is read as the model's training text was."""
    from charrnn.sampling.novelty import NoveltyIndex

    text = model.saved.text
    pieces = read.pieces(path, model.saved.vocabulary.unit, text.normalize)
    return NoveltyIndex(pieces, documents=text.documents)


@contextmanager
def _refused(model: CharModel, text: str, place: str) -> Iterator[None]:
    """Let an error about unknown characters say where they are and which option allows them.

    Args:
        model: which does not know them.
        text: what is read.
        place: its name in the message.

    Raises:
        UnknownCharacterError: the text has unknown characters, and they are refused.
    """
    try:
        yield
    except UnknownCharacterError as error:
        characters, hint = _unknown_in(model, text)
        raise UnknownCharacterError(
            f"{place} has characters the model has never seen: {characters}; leave them out, or "
            f"set --on-unknown to unk or skip{hint}"
        ) from error


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
