"""Settings: frozen, keyword-only, checked when they are made, exact to and from a dict.

The type of a field says what it may be: choices are `Literal` types. The options of the command
line, their help, checks and completion follow from the fields.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import operator
import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from charrnn.errors import ConfigError

Cell = Literal["lstm", "peephole-lstm", "gru", "gru-simple", "rnn"]
CELL_NAMES: dict[Cell, str] = {
    "lstm": "LSTM",
    "peephole-lstm": "peephole LSTM",
    "gru": "GRU",
    "gru-simple": "simple GRU",
    "rnn": "RNN",
}
"""As they are written in a sentence."""
Nonlinearity = Literal["tanh", "relu"]
OptimizerName = Literal["muon", "adamw"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
EnginePrecision = Literal["float32", "int8"]
"""Of the products of the NumPy engine."""
SamplingPrecision = Literal["auto", "float32", "int8"]
StoredPrecision = Literal["float32", "float16", "int8"]
"""Of the weights in a page; it computes in float32."""
ExportFormat = Literal["html", "npz", "json"]
DocumentKind = Literal["none", "line", "blank-line", "file"]
Unit = Literal["char", "byte"]
Normalization = Literal["none", "nfc", "nfkc"]
DecodingErrors = Literal["strict", "replace"]
OnUnknown = Literal["unk", "skip", "error"]
"""What happens to characters that the model has never seen: they are read as UNK, left out, or
refused."""
Gate = Literal["forget", "input", "output", "update", "reset"]
Feature = Literal["quote", "bracket", "line-position", "indent", "capital", "word-start", "digit"]
"""What a unit may follow in a text; `charrnn.inspection.features` says what each is."""
CurveAxis = Literal["time", "characters", "epochs"]

MAX_LAYERS = 64
"""A deeper stack does not learn, and a damaged file must not make us build one."""
MAX_MEMBERS = 64
REVERSE = "reverse."
"""What the names of the arrays begin with that read a text from right to left."""
MAX_WIDTH = 1 << 16
MAX_COUNT = 10**12
"""Of steps and characters: more than any machine gets through."""
Function = TypeVar("Function", bound=Callable[..., Any])
SHORTEST_FORM = 3
"""Letters that two names must share at their beginning for one to be a form of the other."""
MAX_NUM = 1_000_000
"""Samples of one prompt; beyond it a mistake is more likely than a wish."""
SHOWN_VALUE = 60
"""Characters of a wrong value that a message shows."""
_SPELLED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}

_C = TypeVar("_C", bound="_Config")


def setting(default: Any, doc: str) -> Any:
    """Return a field with its default and what it means, which the command line shows as help."""
    return dataclasses.field(default=default, metadata={"doc": doc})


class _Config:
    """Types checked when an object is made, and a strict round trip to a plain dict."""

    def __post_init__(self) -> None:
        """Check every field: its type here, its range in `_check`."""
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, typed(name, getattr(self, name), hint))
        self._check()

    def _check(self) -> None:
        """Check the ranges."""
        raise AssertionError("every config has its own")

    def _within(self, low: float, high: float, *names: str) -> None:
        """Require that fields lie in [low, high] if they are set."""
        for name in names:
            value = getattr(self, name)
            if value is None or low <= value <= high:
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"must be finite, got {value}", field=name)
            bound = f"at most {high:,}" if value > high else f"at least {low:,}"
            raise ConfigError(f"must be {bound}, got {shown(value)}", field=name)

    def _positive(self, high: float, *names: str) -> None:
        """Require that fields lie in (0, high] if they are set."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"must be a positive number, got {value}", field=name)
        self._within(0, high, *names)

    def _shares(self, *names: str) -> None:
        """Require that fields lie in [0, 1) if they are set."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f"must be in [0, 1), got {value}", field=name)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls: type[_C], values: Any) -> _C:
        """Build from a dict that has exactly the fields of the class.

        Raises:
            ConfigError: a field is missing, unknown, of the wrong type or out of range.
        """
        what = f"the {cls.__name__} record"
        if not isinstance(values, dict):
            raise ConfigError(f"{what} is not a dictionary")
        names = set(_hints(cls))
        for name in sorted(names ^ set(values), key=str):
            problem = "lacks the field" if name in names else "has an unknown field"
            raise ConfigError(f"{what} {problem} {shown(name)}")
        return cls(**values)


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a config class's fields by name."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def typed(name: str, value: Any, hint: Any) -> Any:
    """Return a value as an object of its field's type.

    Numbers of NumPy become Python's, and one text becomes a tuple of one.

    Raises:
        ConfigError: the value is of another type, or none of the choices.
    """
    if NoneType in get_args(hint):
        if value is None:
            return None
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if not isinstance(value, str) or value not in choices:
            listed = ", ".join(choices)
            raise ConfigError(f"must be one of {listed}, got {shown(value)}", field=name)
        return value
    if get_origin(hint) is tuple:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
            raise ConfigError(f"must be texts, got {shown(value)}", field=name)
        return tuple(texts)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is int and is_number and isinstance(value, numbers.Integral):
        return operator.index(value)
    if hint is float and is_number:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"must be finite, got {shown(value)}", field=name) from None
    if hint in (str, bool) and isinstance(value, hint):
        return value
    kinds = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
    raise ConfigError(f"must be {kinds[hint]}, got {shown(value)}", field=name)


def closest(given: str, known: Iterable[str]) -> str | None:
    """Return the name that is likely meant by one that is not known: an abbreviation, a longer or
    shorter form, a part, the initials, or a misspelling."""
    names = {name.strip("-").replace("-", "_").lower(): name for name in known}
    wanted = given.strip("-").replace("-", "_").lower()
    for name, original in names.items():
        short, long = sorted((wanted, name), key=len)
        parts = name.split("_")
        initials = "".join(part[:1] for part in parts)
        is_form = len(short) >= SHORTEST_FORM and long.startswith(short)
        if is_form or wanted in (*parts, initials if len(parts) > 1 else name):
            return original
    return next((names[n] for n in difflib.get_close_matches(wanted, names, 1, 0.75)), None)


def named_keywords(function: Function) -> Function:
    """Let a function say which keyword is meant by one that it does not have.

    Its callers get a `ConfigError` that names the likely one, instead of a TypeError.
    """
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                likely = closest(name, known)
                hint = "" if likely is None else f": did you mean {likely}?"
                raise ConfigError(f"there is no setting called {shown(name)}{hint}")
        return function(*arguments, **keywords)

    return cast(Function, checked)


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number far too large"
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"


def quoted(word: str, system: str = os.name) -> str:
    """Return a word as it stands in a command to paste: on Windows, for cmd and for PowerShell.

    There, programs take their line apart themselves, by the rules of Microsoft's C library: a
    backslash is plain but before a quotation mark.
    """
    if system != "nt":
        return shlex.quote(word) if word.isprintable() else _dollar_quoted(word)
    if re.fullmatch(r"[\w.:/\\+=-]+", word):
        return word
    inside = re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + (r"\"" if m[2] else ""), word)
    return f'"{inside}"'


def _dollar_quoted(word: str) -> str:
    """Quote a word with unprintable characters as bash, ksh and zsh read it: `$'a\\nb'`."""

    def spelled(c: str) -> str:
        if c in _SPELLED:
            return _SPELLED[c]
        if "\udc80" <= c <= "\udcff":  # a byte that was not UTF-8 (PEP 383)
            return f"\\x{ord(c) - 0xDC00:02x}"
        return c if c.isprintable() else f"\\U{ord(c):08x}"

    return f"$'{''.join(map(spelled, word))}'"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
    """The shape of a network: enough, with the weights, to compute its function.

    Raises:
        ConfigError: a value is out of range.
    """

    vocab_size: int
    """Number of ids, UNK and EOS included."""
    cell: Cell = setting(
        "lstm",
        "Recurrent cell; the gates of peephole-lstm see the memory cell too, and gru-simple has no "
        "reset gate.",
    )
    nonlinearity: Nonlinearity = setting(
        "tanh",
        "Activation of the rnn cell, which starts from the identity with relu (IRNN); the gated "
        "cells use tanh.",
    )
    hidden_size: int = setting(256, "Units per layer of each ensemble member.")
    num_layers: int = setting(1, "Stacked recurrent layers.")
    embedding_size: int = setting(0, "Width of the character embedding; 0 means one-hot.")
    members: int = setting(
        1, "Ensemble members: networks trained side by side, whose mean logits are the model's."
    )
    bidirectional: bool = setting(
        False,
        "Read each text from both sides, to fill gaps (charrnn fill); such a model cannot write.",
    )

    def _check(self) -> None:
        self._within(3, MAX_COUNT, "vocab_size")
        self._within(1, MAX_WIDTH, "hidden_size")
        self._within(1, MAX_LAYERS, "num_layers")
        self._within(0, MAX_WIDTH, "embedding_size")
        self._within(1, MAX_MEMBERS, "members")
        if self.cell != "rnn" and self.nonlinearity != "tanh":
            raise ConfigError(
                f"{self.nonlinearity} belongs to the rnn cell, not to {self.cell}",
                field="nonlinearity",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict, `members` and `bidirectional` where they say more
        than that there is one network, which reads from left to right."""
        values = super().to_dict()
        if self.members == 1:
            del values["members"]
        if not self.bidirectional:
            del values["bidirectional"]
        return values

    @classmethod
    def from_dict(cls, values: Any) -> ModelConfig:
        """Build from what `to_dict` returns.

        Raises:
            ConfigError: a field is missing, unknown, of the wrong type or out of range.
        """
        if isinstance(values, dict):
            values = {"members": 1, "bidirectional": False, **values}
        return super().from_dict(values)

    @property
    def gates(self) -> int:
        """Number of gate blocks stacked in one layer's weights, the candidate's included."""
        return {"lstm": 4, "peephole-lstm": 4, "gru": 3, "gru-simple": 2, "rnn": 1}[self.cell]

    @property
    def has_memory(self) -> bool:
        """Whether a layer carries a memory cell c beside its hidden state h."""
        return self.cell in ("lstm", "peephole-lstm")

    def input_size(self, layer: int) -> int:
        """Width of the input of `layer` (from 0)."""
        if layer:
            return self.hidden_size
        return self.embedding_size or self.vocab_size

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of the model, in the order of the data flow.

        Gates are stacked in torch's order: LSTM input, forget, cell, output; GRU reset,
        update, new, of which the simple GRU has the last two. The peepholes are those of the
        input, forget and output gates. An ensemble's arrays have a leading axis of its members. A
        bidirectional network has all arrays twice, those that read from right to left as
        `reverse.…`. The file, the NumPy engine and the torch network all follow this table.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embedding_size:
            shapes["embedding.weight"] = (self.vocab_size, self.embedding_size)
        rows = self.gates * self.hidden_size
        for layer in range(self.num_layers):
            shapes[f"layers.{layer}.weight_ih"] = (rows, self.input_size(layer))
            shapes[f"layers.{layer}.weight_hh"] = (rows, self.hidden_size)
            shapes[f"layers.{layer}.bias_ih"] = (rows,)
            shapes[f"layers.{layer}.bias_hh"] = (rows,)
            if self.cell == "peephole-lstm":
                shapes[f"layers.{layer}.peephole"] = (3 * self.hidden_size,)
        shapes["output.weight"] = (self.vocab_size, self.hidden_size)
        shapes["output.bias"] = (self.vocab_size,)
        if self.bidirectional:
            shapes |= {f"{REVERSE}{name}": shape for name, shape in shapes.items()}
        if self.members == 1:
            return shapes
        return {name: (self.members, *shape) for name, shape in shapes.items()}

    def num_parameters(self) -> int:
        """Count of trained numbers, of all members together."""
        return sum(math.prod(shape) for shape in self.weight_shapes().values())


@dataclass(frozen=True, kw_only=True)
class TextConfig(_Config):
    """How text was treated before training, and must be treated again afterwards.

    Raises:
        ConfigError: a value is out of range.
    """

    documents: DocumentKind = setting(
        "none", "What ends with EOS: nothing (one long text), each line, block of lines, or file."
    )
    normalize: Normalization = setting("none", "Unicode normalisation.")

    def _check(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(_Config):
    """How files become ids.

    Raises:
        ConfigError: a value is out of range.
    """

    documents: DocumentKind = setting(
        "none", "What ends with EOS: nothing (one long text), each line, block of lines, or file."
    )
    normalize: Normalization = setting("none", "Unicode normalisation.")
    unit: Unit = setting(
        "char", "Read characters, or the bytes of UTF-8: any language, and nothing is unknown."
    )
    min_count: int = setting(
        1, "Characters that occur less often than this in the training text become UNK."
    )
    val_fraction: float | None = setting(
        None, "Share kept for validation: the end of the text, or whole documents."
    )
    encoding: str = setting(
        "auto", "Encoding of the files; auto means UTF-8, or what a byte order mark says."
    )
    errors: DecodingErrors = setting(
        "strict", "Bytes that cannot be decoded: refuse the file, or replace them by U+FFFD."
    )
    glob: tuple[str, ...] = setting(
        ("*.txt",), "Which files of a directory to read, recursively; may be given several times."
    )
    split_seed: int = setting(0, "Seed of the choice of validation documents.")

    def _check(self) -> None:
        self._within(1, MAX_COUNT, "min_count")
        self._shares("val_fraction")
        if self.encoding == "auto":
            return
        try:
            is_text = getattr(codecs.lookup(self.encoding), "_is_text_encoding", True)
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            raise ConfigError(
                f"{shown(self.encoding)} is not known: try utf-8, latin-1, cp1252 or utf-16",
                field="encoding",
            )

    @property
    def text(self) -> TextConfig:
        """The part that goes into the model."""
        return TextConfig(documents=self.documents, normalize=self.normalize)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Config):
    """How a network is trained, and when it ends: at the first limit that is reached.

    Raises:
        ConfigError: a value is out of range.
    """

    time_s: float | None = setting(None, "Time limit, everything included: 90s, 2m, 1h30m.")
    epochs: float | None = setting(None, "Limit in epochs over the training text.")
    steps: int | None = setting(None, "Limit in updates of the weights.")
    batch_size: int = setting(16, "Batch rows: sequences read side by side.")
    bptt: int = setting(64, "Window of truncated backpropagation through time, in characters.")
    optimizer: OptimizerName = setting(
        "muon", "Muon for the recurrent matrices and AdamW for the rest, or AdamW for all."
    )
    learning_rate: float = setting(
        1.2e-2, "Peak learning rate of AdamW; Muon's is a fixed multiple of it."
    )
    weight_decay: float = setting(0.05, "Decoupled weight decay, on matrices only.")
    clip_norm: float = setting(1.0, "Largest Euclidean norm of the whole gradient; 0 for no limit.")
    clip_value: float = setting(
        0.0, "Largest absolute value of a gradient element; 0 for no limit."
    )
    dropout: float = setting(0.0, "Dropout between layers and before the output.")
    input_dropout: float = setting(0.0, "Dropout on the characters' embedding.")
    recurrent_dropout: float = setting(
        0.0, "Dropout from each character to the next, within a layer, for a whole window."
    )
    unknown_rate: float = setting(
        0.001, "Share of input characters shown as UNK, so that UNK is trained in every corpus."
    )
    calibrate: bool = setting(True, "Fit the temperature of the model to the validation text.")
    sample_every: int = setting(1, "Show a sample at every N-th evaluation; 0 never.")
    seed: int = setting(0, "Seed of every random generator.")
    device: str = setting("auto", "Where to train: auto, cpu, cuda, cuda:N or mps.")
    dtype: Precision = setting("auto", "Precision of the matrix products.")

    def _check(self) -> None:
        self._positive(1e9, "time_s", "epochs")
        self._positive(100, "learning_rate")
        self._within(1, MAX_COUNT, "steps")
        self._within(1, 1_000_000, "batch_size", "bptt")
        self._within(0, 100, "weight_decay")
        self._within(0, 1e9, "clip_norm", "clip_value")
        self._within(0, MAX_COUNT, "sample_every")
        self._within(0, (1 << 64) - 1, "seed")
        self._shares("dropout", "input_dropout", "recurrent_dropout", "unknown_rate")
        check_device(self.device)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(_Config):
    """How text is drawn from a model.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = setting(
        1.0, "Divides the logits; 0 always takes the most probable character."
    )
    top_k: int = setting(0, "Draw only from the K most probable characters; 0 for all.")
    top_p: float = setting(
        1.0, "Draw only from the most probable characters that together reach probability P."
    )
    min_p: float = setting(
        0.0, "Draw only from characters at least P times as probable as the most probable."
    )
    no_repeat: int = setting(
        0, "Never write the same N characters twice, against loops at low temperature; 0 allows it."
    )
    length: int = setting(1000, "Largest number of characters to write, the prompt not counted.")
    min_length: int = setting(0, "Smallest number of characters to write before EOS.")
    stop: tuple[str, ...] = setting((), "Texts that end the sample; they are not written.")
    logprobs: bool = setting(
        False, "Record the log-probability of each character, in nats; JSON lines show it."
    )
    seed: int = setting(0, "Seed: the same one gives the same text.")
    precision: SamplingPrecision = setting(
        "auto",
        "Precision of the matrix products; auto is int8 where that is faster and known to cost "
        "next to nothing.",
    )

    def _check(self) -> None:
        self._within(0, 1e9, "temperature")
        self._within(0, MAX_COUNT, "top_k", "no_repeat", "min_length")
        self._within(1, MAX_COUNT, "length")
        self._within(0, math.inf, "seed")
        self._within(0, 1, "min_p")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"must be in (0, 1], got {self.top_p:g}", field="top_p")
        if self.min_length > self.length:
            raise ConfigError(
                f"must be at most the length, {self.length}; got {self.min_length}",
                field="min_length",
            )
        if not all(self.stop):
            raise ConfigError("must have at least one character", field="stop")


def check_device(name: str) -> None:
    """Check the name of a device.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", typed("device", name, str)):
        raise ConfigError(
            f"must be auto, cpu, cuda, cuda:N or mps, got {shown(name)}", field="device"
        )


def fresh_seed() -> int:
    """Return a seed that nobody has used, short enough to type."""
    return secrets.randbelow(1_000_000_000)
