"""`CharModel`: a trained model that writes and scores, for Python and for the command line."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from charrnn.config import (
    CELL_NAMES,
    MAX_NUM,
    EnginePrecision,
    ExportFormat,
    OnUnknown,
    SamplingConfig,
    SamplingPrecision,
    StoredPrecision,
    check_device,
    fresh_seed,
    named_keywords,
    shown,
    typed,
)
from charrnn.engine.bidirectional import BidirectionalEngine
from charrnn.engine.network import Engine
from charrnn.engine.quantized import INT8_COST, choose_precision, may_be_int8
from charrnn.errors import ConfigError
from charrnn.inspection.activations import activations, read_text
from charrnn.models.device import choose_device, reading_device
from charrnn.normalize import normalize
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.fill import Filler, Filling, GapText
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import Request, Sample, Start, read_prompt
from charrnn.scoring.batch import score_many
from charrnn.scoring.details import CharScore, char_scores
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import BothSidesScorer, Scorer, score_pieces
from charrnn.storage.model_file import SavedModel, require_both_sides, require_one_way
from charrnn.vocab import Ids, encode_known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import TypedDict, Unpack

    from charrnn.models.runner import Runner

    class SamplingOptions(TypedDict, total=False):
        """The keywords of `CharModel.sample`, for its overloads."""

        on_unknown: OnUnknown
        temperature: float
        top_k: int
        top_p: float
        min_p: float
        no_repeat: int
        length: int
        min_length: int
        stop: str | Sequence[str]
        logprobs: bool
        seed: int | None
        device: str
        precision: SamplingPrecision


BEAM = 64
"""Fillings that the search for the best ones keeps from gap to gap."""
MAX_BEAM = 10_000
REQUESTS, DEVICE_REQUESTS = 4096, 65_536
"""Samples drawn together, by the NumPy engine and on a device; those that end before the first of
them wait for it in memory."""

MAX_INDEX = (1 << 63) - 1
"""Of a sample of a seed: the random numbers count in 64 bits."""


class CharModel:
    """A trained model, ready to write and to score.

    Attributes:
        saved: config, vocabulary, weights and training record, as in the file.
        path: the file it came from.
    """

    def __init__(self, saved: SavedModel, path: Path | None = None) -> None:
        """Wrap a loaded model."""
        self.saved = saved
        self.path = path
        self._runner: tuple[str, Runner] | None = None

    def __repr__(self) -> str:
        """Show the shape and the alphabet."""
        config, vocabulary = self.saved.config, self.saved.vocabulary
        is_bytes = vocabulary.unit == "byte"
        parts = [
            f"{CELL_NAMES[config.cell]} {config.num_layers} x {config.hidden_size}",
            *([f"{config.members} members"] if config.members > 1 else []),
            *(["bidirectional"] if config.bidirectional else []),
            "bytes" if is_bytes else f"{len(vocabulary.characters)} characters",
        ]
        return f"<CharModel {', '.join(parts)}>"

    @cached_property
    def engine(self) -> Engine:
        """The NumPy engine with this model's weights, in float32: what scores.

        Raises:
            ConfigError: the model is bidirectional.
        """
        require_one_way(self.saved)
        return Engine(self.saved.config, self.saved.weights)

    @cached_property
    def bidirectional_engine(self) -> BidirectionalEngine:
        """The same for a bidirectional model."""
        return BidirectionalEngine(self.saved.config, self.saved.weights)

    def runner(self, device: str) -> Runner:
        """Return the network on a device, computed by torch; the last one is kept.

        Raises:
            ConfigError: this machine has no such device, it has too little memory, or the model is
                bidirectional.
        """
        check_device(device)
        require_one_way(self.saved)
        if self._runner is None or self._runner[0] != device:
            from charrnn.models.runner import Runner

            place = choose_device(device)
            self._runner = device, Runner(self.saved.config, self.saved.weights, place)
        return self._runner[1]

    @cached_property
    def _int8_engine(self) -> Engine:
        require_one_way(self.saved)
        return Engine(self.saved.config, self.saved.weights, precision="int8")

    def _engine_in(self, precision: SamplingPrecision) -> Engine:
        """Return the engine that samples are drawn with."""
        is_int8 = self.used_precision(precision) == "int8"
        return self._int8_engine if is_int8 else self.engine

    def used_precision(self, precision: SamplingPrecision = "auto") -> EnginePrecision:
        """Return what a precision means for this model on this machine.

        `auto` is int8 if the package numkong is installed, the network is large enough to gain by
        it, and the model's record says that it costs at most 0.002 bits; else it is float32.

        Raises:
            ConfigError: it is int8, which a relu network cannot be computed in.
        """
        return choose_precision(self.saved.config, precision, self._int8_cost)

    @property
    def precision_is_open(self) -> bool:
        """Whether `auto` means int8 on some machines."""
        return may_be_int8(self.saved.config, self._int8_cost)

    @property
    def _int8_cost(self) -> float | None:
        """Bits by event that int8 adds to the loss, as the file says, which may say anything."""
        cost: Any = self.saved.training.get(INT8_COST)
        is_number = isinstance(cost, int | float) and not isinstance(cost, bool)
        return float(cost) if is_number else None

    @property
    def ends_count(self) -> bool:
        """True for a model of documents, which has learned where they end."""
        return self.saved.text.documents != "none"

    # writing

    @named_keywords
    def start(
        self,
        prompt: str = "",
        *,
        after: Start | None = None,
        on_unknown: OnUnknown = "error",
        precision: SamplingPrecision = "auto",
        progress: Callable[[int], None] | None = None,
    ) -> Start:
        """Read a prompt once and return the place after it, to begin any number of samples from.

        Args:
            prompt: text to read.
            after: a place to continue from, such as `Stream.end`; without it, a new text begins.
            on_unknown: characters the model has never seen are read as UNK (`unk`), left out
                (`skip`), or refused (`error`).
            precision: as for `stream`.
            progress: called with the number of characters read so far.

        Raises:
            ConfigError: an argument is of the wrong type.
            UnknownCharacterError: the prompt has unknown characters, and they are refused.
        """
        if not isinstance(after, Start | None):
            raise ConfigError(f"must be a Start, got {shown(after)}", field="after")
        _check(precision=(precision, SamplingPrecision))
        engine = self._engine_in(precision)
        if after is not None and not self._is_place(after, engine):
            raise ConfigError("is a place in a text of another model", field="after")
        ids = self.encode_prompt(prompt, on_unknown)
        return read_prompt(engine, ids, after=after, progress=progress)

    def encode_prompt(self, prompt: str, on_unknown: OnUnknown = "error") -> Ids:
        """Return the ids of a prompt, in the Unicode form of the model; see `start`.

        Raises:
            ConfigError: an argument is of the wrong type.
            UnknownCharacterError: the prompt has unknown characters, and they are refused.
        """
        _check(prompt=(prompt, str), on_unknown=(on_unknown, OnUnknown))
        text = normalize(prompt, self.saved.text.normalize)
        return encode_known(self.saved.vocabulary, text, on_unknown, what="the prompt").ids

    def _is_place(self, start: Start, engine: Engine) -> bool:
        """Return whether the state and logits of a start have the shapes of this model."""
        layers = [
            [layer.h.shape for layer in state.layers]
            for state in (engine.initial_state(), start.state)
        ]
        return layers[0] == layers[1] and start.logits.shape == (len(self.saved.vocabulary),)

    @named_keywords
    def stream(
        self,
        prompt: str = "",
        *,
        after: Start | None = None,
        index: int = 0,
        on_unknown: OnUnknown = "error",
        temperature: float = SamplingConfig.temperature,
        top_k: int = SamplingConfig.top_k,
        top_p: float = SamplingConfig.top_p,
        min_p: float = SamplingConfig.min_p,
        no_repeat: int = SamplingConfig.no_repeat,
        length: int = SamplingConfig.length,
        min_length: int = SamplingConfig.min_length,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        seed: int | None = None,
        precision: SamplingPrecision = SamplingConfig.precision,
    ) -> Stream:
        """Return an iterator over the characters of a sample; the prompt is read, not repeated.

        Afterwards its `stop_reason` tells how the text ended, and its `end` can be continued.

        Args:
            prompt: text that the sample continues.
            after: a place to continue from; see `start`.
            index: which sample of the seed.
            on_unknown: as for `start`.
            temperature: divides the logits; 0 always takes the most probable character.
            top_k: keep the k most probable characters; 0 keeps all.
            top_p: keep the fewest characters whose probabilities sum to p.
            min_p: keep characters at least p times as probable as the most probable.
            no_repeat: never write an N-gram of this many characters twice; 0 allows it.
            length: most characters to write.
            min_length: the text does not end before this many characters.
            stop: one text, or several, that end the sample; they are not written.
            logprobs: record the log-probability of every character.
            seed: of the random numbers; a fresh one when None.
            precision: of the matrix products: `float32`, `int8`, or what `used_precision` chooses.
                The log-probabilities are those of the network computed that way.

        Raises:
            ConfigError: an argument is out of range or of the wrong type.
            UnknownCharacterError: the prompt has unknown characters, and they are refused.
        """
        config = _sampling_config(locals())
        index = _count("index", index, 0, most=MAX_INDEX)
        precision = config.precision
        start = self.start(prompt, after=after, on_unknown=on_unknown, precision=precision)
        return self.stream_request(Request(start, prompt, config.temperature, index), config)

    @overload
    def sample(
        self,
        prompt: str = "",
        *,
        num: None = None,
        after: Start | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Sample: ...

    @overload
    def sample(
        self,
        prompt: str = "",
        *,
        num: int,
        after: Start | None = None,
        **options: Unpack[SamplingOptions],
    ) -> list[Sample]: ...

    @named_keywords
    def sample(
        self,
        prompt: str = "",
        *,
        num: int | None = None,
        after: Start | None = None,
        on_unknown: OnUnknown = "error",
        temperature: float = SamplingConfig.temperature,
        top_k: int = SamplingConfig.top_k,
        top_p: float = SamplingConfig.top_p,
        min_p: float = SamplingConfig.min_p,
        no_repeat: int = SamplingConfig.no_repeat,
        length: int = SamplingConfig.length,
        min_length: int = SamplingConfig.min_length,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        seed: int | None = None,
        device: str = "auto",
        precision: SamplingPrecision = SamplingConfig.precision,
    ) -> Sample | list[Sample]:
        """Return a whole sample, or with `num` a list of that many, drawn in one batch.

        Sample k is the text that `stream(..., index=k)` gives with the same seed; `str(sample)` is
        the text. The other arguments are those of `stream`.

        Args:
            device: where to draw: `cpu` is the NumPy engine, `cuda`, `cuda:N` and `mps` are torch
                there, and `auto` chooses by the rule of `charrnn.models.device.reading_device`.

        Raises:
            ConfigError: an argument is out of range or of the wrong type.
            UnknownCharacterError: the prompt has unknown characters, and they are refused.
        """
        config = _sampling_config(locals())
        count = 1 if num is None else _count("num", num, 1, most=MAX_NUM)
        check_device(device)
        if config.precision != "int8" or device != "auto":
            device = reading_device(device, rows=count, chars=count * config.length)
        else:
            device = "cpu"
        start = self.start(prompt, after=after, on_unknown=on_unknown, precision=config.precision)
        requests = (Request(start, prompt, config.temperature, k) for k in range(count))
        samples = list(self.sample_requests(requests, config, device=device))
        return samples[0] if num is None else samples

    def stream_request(self, request: Request, config: SamplingConfig) -> Stream:
        """Return the stream of one request."""
        engine = self._engine_in(config.precision)
        return Stream(engine, self.saved.vocabulary, request, self._fitted(config))

    def sample_requests(
        self, requests: Iterable[Request], config: SamplingConfig, *, device: str = "cpu"
    ) -> Iterator[Sample]:
        """Yield samples for requests that differ in prompt or temperature, in their order.

        The requests are taken as they are needed; there may be any number of them. They are drawn
        by the NumPy engine (`cpu`), or by torch on a device.
        """
        config, waiting = self._fitted(config), iter(requests)
        on_cpu = device == "cpu"
        if config.precision == "int8" and not on_cpu:
            raise ConfigError("int8 is for the CPU: leave out the device", field="precision")
        engine = self._engine_in(config.precision) if on_cpu else None
        size = REQUESTS if on_cpu else DEVICE_REQUESTS
        for first in waiting:
            some = itertools.chain([first], itertools.islice(waiting, size - 1))
            if engine is not None:
                yield from sample_batch(engine, self.saved.vocabulary, some, config)
            else:
                runner = self.runner(device)
                from charrnn.sampling.device import sample_on

                yield from sample_on(runner, self.saved.vocabulary, some, config)

    def _fitted(self, config: SamplingConfig) -> SamplingConfig:
        """Return the config with its stop texts in the Unicode form of the model."""
        stop = tuple(normalize(text, self.saved.text.normalize) for text in config.stop)
        return dataclasses.replace(config, stop=stop)

    # filling gaps

    @named_keywords
    def fill(
        self,
        text: str,
        *,
        gap: str = "_",
        top: int = 5,
        beam: int = BEAM,
        num: int | None = None,
        on_unknown: OnUnknown = "unk",
        temperature: float = SamplingConfig.temperature,
        top_k: int = SamplingConfig.top_k,
        top_p: float = SamplingConfig.top_p,
        min_p: float = SamplingConfig.min_p,
        seed: int | None = None,
    ) -> list[Filling]:
        """Return fillings for the gaps of a text; the model must be bidirectional.

        Args:
            text: in which each missing character is marked; in a byte model, each missing byte.
            gap: the mark.
            top: number of the most probable fillings to return, the best first.
            beam: fillings that the search keeps from gap to gap.
            num: return this many random fillings instead, by Gibbs sampling.
            on_unknown: characters the model has never seen are read as UNK (`unk`), left out
                (`skip`), or refused (`error`).
            temperature: of random fillings, as the rest; see `stream`.
            top_k: keep the k most probable characters.
            top_p: keep the fewest characters whose probabilities sum to p.
            min_p: keep characters at least p times as probable as the most probable.
            seed: of the random numbers; a fresh one when None.

        Raises:
            ConfigError: an argument is wrong, the text has no gap or nothing else, or the model
                reads from left to right only.
            UnknownCharacterError: the text has unknown characters, and they are refused.
        """
        _check(text=(text, str), gap=(gap, str), on_unknown=(on_unknown, OnUnknown))
        require_both_sides(self.saved)
        gaps = GapText(text, gap, self.saved, on_unknown)
        filler = Filler(self.bidirectional_engine, self.saved.vocabulary)
        top, beam = _count("top", top, 1, MAX_BEAM), _count("beam", beam, 1, MAX_BEAM)
        config = SamplingConfig(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=fresh_seed() if seed is None else seed,
        )
        if num is None:
            return filler.best(gaps, top=top, beam=beam)
        return filler.draw(gaps, config, num=_count("num", num, 1, MAX_BEAM))

    # scoring

    @named_keywords
    def scorer(
        self,
        *,
        eos: bool | None = None,
        on_unknown: OnUnknown = "unk",
        context: str = "",
        device: str = "cpu",
    ) -> Scorer:
        """Return the rules to score by, for the functions of `charrnn.scoring`.

        Args:
            eos: count the end of each text as an event; None does it for models of documents.
            on_unknown: characters the model has never seen are charged with the probability of
                UNK (`unk`), left out (`skip`), or refused (`error`).
            context: text before each text, read but not scored.
            device: where to read: `cpu` is the NumPy engine; elsewhere torch reads.

        A bidirectional model predicts each character from all the others, and no ends: the sum is
        the pseudo-log-likelihood of the text, not its log-probability.

        Raises:
            ConfigError: an argument is of the wrong type, or asks for ends that are not predicted,
                or the device is not here.
            UnknownCharacterError: the context has unknown characters, and they are refused.
        """
        _check(eos=(eos, bool | None), on_unknown=(on_unknown, OnUnknown), context=(context, str))
        check_device(device)
        if self.saved.config.bidirectional:
            if device != "cpu":
                raise ConfigError(
                    "must be cpu for a bidirectional model, which reads with NumPy only",
                    field="device",
                )
            if eos:
                raise ConfigError(
                    "counts the end of a text, and a bidirectional model predicts none: leave it "
                    "out",
                    field="eos",
                )
            return BothSidesScorer(
                self.bidirectional_engine,
                self.saved.vocabulary,
                on_unknown=on_unknown,
                context=context,
                normalize=self.saved.text.normalize,
            )
        return Scorer(
            self.engine if device == "cpu" else self.runner(device),
            self.saved.vocabulary,
            eos=self.ends_count if eos is None else eos,
            on_unknown=on_unknown,
            context=context,
            normalize=self.saved.text.normalize,
        )

    @named_keywords
    def score(
        self,
        text: str,
        *,
        eos: bool | None = None,
        on_unknown: OnUnknown = "unk",
        context: str = "",
    ) -> Score:
        """Return how probable a text is; keywords as for `scorer`.

        Raises:
            ConfigError: an argument is of the wrong type.
            UnknownCharacterError: the text has unknown characters, and they are refused.
        """
        _check(text=(text, str))
        rules = self.scorer(eos=eos, on_unknown=on_unknown, context=context)
        return score_pieces(rules, [text], text=text)

    @named_keywords
    def score_many(
        self,
        texts: Iterable[str],
        *,
        eos: bool | None = None,
        on_unknown: OnUnknown = "unk",
        context: str = "",
        device: str = "auto",
    ) -> list[Score]:
        """Return the scores of many texts, read side by side; keywords as for `scorer`.

        Args:
            texts: what to score.
            eos: as for `scorer`.
            on_unknown: as for `scorer`.
            context: as for `scorer`.
            device: as for `scorer`, or `auto`, as for `sample`.

        Raises:
            ConfigError: an argument is of the wrong type.
            UnknownCharacterError: a text has unknown characters, and they are refused.
        """
        try:
            each = None if isinstance(texts, (str, bytes)) else iter(texts)
        except TypeError:
            each = None
        if each is None:
            raise ConfigError(f"must be several texts, got {shown(texts)}", field="texts")
        several = list(each)
        for text in several:
            _check(texts=(text, str))
        check_device(device)
        if device != "auto" or not self.saved.config.bidirectional:
            device = reading_device(device, rows=len(several), chars=sum(map(len, several)))
        else:
            device = "cpu"
        rules = self.scorer(eos=eos, on_unknown=on_unknown, context=context, device=device)
        return list(score_many(rules, several))

    @named_keywords
    def char_scores(
        self,
        text: str,
        *,
        alternatives: int = 5,
        eos: bool | None = None,
        on_unknown: OnUnknown = "unk",
        context: str = "",
    ) -> list[CharScore]:
        """Return each event of a text: probability, rank, and what was expected instead.

        Args:
            text: what to score.
            alternatives: how many of the most probable characters to name at each place.
            eos: as for `scorer`.
            on_unknown: as for `scorer`.
            context: as for `scorer`.

        Raises:
            ConfigError: an argument is out of range or of the wrong type.
            UnknownCharacterError: the text has unknown characters, and they are refused.
        """
        _check(text=(text, str))
        named = _count("alternatives", alternatives, 0)
        rules = self.scorer(eos=eos, on_unknown=on_unknown, context=context)
        return list(char_scores(rules, [text], alternatives=named))

    # looking inside

    @named_keywords
    def activations(self, text: str) -> dict[str, NDArray[np.float32]]:
        """Return what every unit does while the model reads a text.

        Shapes: M members, L layers, T characters (in a byte model bytes), H units. The values at t
        are those after the character t, all counted from 0. Each text begins after EOS and a zero
        state; in a model of lines, so does each line. Unknown characters are read as UNK.

        Returns:
            Arrays `[M, L, T, H]` by name:

            - `h`: the hidden state, of every cell;
            - `c`: the memory cell, of the LSTMs;
            - `input`, `forget`, `output`: gates of the LSTMs (lectures' Γu, Γf, Γo);
            - `reset`, `update`: gates of the GRU (Γr, Γu), of which the simple one has `update`;
              that is the share of the candidate in the new state, 1 - z of libraries;
            - `candidate`: c̃, of all cells with gates.

        Raises:
            ConfigError: the text is empty, too long, or no text; or the model is bidirectional.
            ModelFileError: the model's weights are so large that its states overflow.
        """
        _check(text=(text, str))
        return activations(self.saved, read_text(self.saved, text).ids)

    # for others

    @named_keywords
    def export(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        format: ExportFormat = "html",
        title: str | None = None,
        prompt: str = "",
        precision: StoredPrecision = "float16",
        force: bool = False,
    ) -> Path:
        """Write the model as one web page that writes and scores, or as arrays for other programs.

        Args:
            out: the file; by default named after the training text, in the current folder.
            format: `html`, the page; `npz` or `json`, the arrays in float32 and the alphabet.
            title: of the page; by default the name of the training text.
            prompt: what stands in the page's field for the beginning of a text.
            precision: of the page's weights; it computes in float32.
            force: replace an existing file.

        Returns:
            The file written.

        Raises:
            ConfigError: an argument is wrong, the file exists, or the page would be too large.
            StorageError: the file cannot be written.
        """
        from charrnn.export.files import write_export  # which only this needs

        _check(
            format=(format, ExportFormat),
            title=(title, str | None),
            prompt=(prompt, str),
            precision=(precision, StoredPrecision),
            force=(force, bool),
        )
        where: Any = os.fspath(out) if isinstance(out, os.PathLike) else out
        if not isinstance(where, str | None) or where == "":
            raise ConfigError(f"must be a path, got {shown(out)}", field="out")
        return write_export(
            self.saved,
            None if where is None else Path(where),
            path=self.path,
            format=format,
            title=title,
            prompt=prompt,
            precision=precision,
            force=force,
        )


def _sampling_config(given: Mapping[str, Any]) -> SamplingConfig:
    """Return the config of the sampling options among a call's arguments.

    Raises:
        ConfigError: one is out of range or of the wrong type.
    """
    options = {field.name: given[field.name] for field in dataclasses.fields(SamplingConfig)}
    if options["seed"] is None:
        options["seed"] = fresh_seed()
    return SamplingConfig(**options)


def _check(**values: tuple[Any, Any]) -> None:
    """Require that arguments, given as value and type, are of their types.

    Raises:
        ConfigError: one is not.
    """
    for name, (value, hint) in values.items():
        typed(name, value, hint)


def _count(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number of at least `least`, and at most `most`.

    Raises:
        ConfigError: it is another number, or none.
    """
    number: int = typed(name, value, int)
    if number < least:
        raise ConfigError(f"must be at least {least}, got {shown(number)}", field=name)
    if most is not None and number > most:
        raise ConfigError(f"must be at most {most:,}, got {shown(number)}", field=name)
    return number
