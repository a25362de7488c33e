"""Settings: frozen, keyword-only, checked when they are made, exact to and from a dict."""

from __future__ import annotations

import codecs
import dataclasses
import math
import secrets
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from charrnn.errors import ConfigError

CELLS = ("lstm", "gru", "rnn")
NONLINEARITIES = ("tanh", "relu")
OPTIMIZERS = ("muon", "adamw")
MOST_MEMBERS = 64
"""Networks of a run; the file of their model grows with the square."""
DTYPES = ("auto", "float32", "bfloat16")
DOCUMENTS = ("none", "line", "blank-line", "file")
UNITS = ("char", "byte")
NORMALIZATIONS = ("none", "nfc", "nfkc")
DECODING_ERRORS = ("strict", "replace")

_C = TypeVar("_C", bound="_Config")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _at_least(low: float, **named: float | None) -> None:
    for name, value in named.items():
        if value is not None:
            _require(
                low <= value < math.inf,
                f"{_option(name)} must be at least {low}, got {value}"
                if value != math.inf
                else f"{_option(name)} must be finite, got {value}",
            )


def _positive(**named: float | None) -> None:
    for name, value in named.items():
        if value is not None:
            _require(
                0 < value < math.inf,
                f"{_option(name)} must be a positive number, got {value}",
            )


def _one_of(choices: tuple[str, ...], **named: str) -> None:
    for name, value in named.items():
        _require(
            value in choices, f"{_option(name)} must be one of {', '.join(choices)}, got {value!r}"
        )


def _option(name: str) -> str:
    return name.replace("_", " ")


class _Config:
    """Strict round trip between a config and a plain dict."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls: type[_C], values: Any) -> _C:
        """Build from a dict that has exactly the fields of the class, each of its type.

        Raises:
            ConfigError: a field is missing, unknown, of the wrong type or out of range.
        """
        what = f"the {cls.__name__} record"
        _require(isinstance(values, dict), f"{what} is not a dictionary")
        hints = get_type_hints(cls)
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in sorted(names ^ set(values), key=str):
            _require(name in values, f"{what} lacks the field {name!r}")
            _require(name in names, f"{what} has an unknown field {name!r}")
        for name in names:
            hint = hints[name]
            allowed = (tuple,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
            value = values[name]
            fits = type(value) in allowed or (float in allowed and type(value) is int)
            _require(fits, f"{what} has {value!r} as {name!r}, which is not {_spell(allowed)}")
        return cls(**values)


def _spell(types: tuple[type, ...]) -> str:
    return " or ".join("nothing" if kind is NoneType else kind.__name__ for kind in types)


MAX_LAYERS = 64
"""A deeper stack does not learn, and a damaged file must not make us build one."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
    """The shape of a network: enough, with the weights, to compute its function.

    Raises:
        ConfigError: a value is out of range.
    """

    vocab_size: int
    """Number of ids, UNK and EOS included."""
    cell: str = "lstm"
    """Recurrent cell: `lstm`, `gru` or `rnn`."""
    nonlinearity: str = "tanh"
    """Activation of the `rnn` cell, `tanh` or `relu`; the gated cells use tanh."""
    hidden_size: int = 256
    """Units per layer."""
    num_layers: int = 1
    """Stacked recurrent layers."""
    embedding_size: int = 0
    """Width of the character embedding; 0 feeds the character one-hot into the gates."""

    def __post_init__(self) -> None:
        """Check every field."""
        _at_least(3, vocab_size=self.vocab_size)
        _one_of(CELLS, cell=self.cell)
        _one_of(NONLINEARITIES, nonlinearity=self.nonlinearity)
        _require(
            self.cell == "rnn" or self.nonlinearity == "tanh",
            f"nonlinearity {self.nonlinearity} belongs to the rnn cell, not to {self.cell}",
        )
        _at_least(1, hidden_size=self.hidden_size, num_layers=self.num_layers)
        _require(
            self.num_layers <= MAX_LAYERS,
            f"{_option('num_layers')} must be at most {MAX_LAYERS}, got {self.num_layers}",
        )
        _at_least(0, embedding_size=self.embedding_size)

    @property
    def gates(self) -> int:
        """Number of gate blocks stacked in one layer's weights: LSTM 4, GRU 3, RNN 1."""
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]

    def input_size(self, layer: int) -> int:
        """Width of the input of `layer` (from 0)."""
        if layer:
            return self.hidden_size
        return self.embedding_size or self.vocab_size

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of the model, in the order of the data flow.

        Gates are stacked in torch's order: LSTM input, forget, cell, output; GRU reset,
        update, new. The file, the NumPy engine and the torch network all follow this table.
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
        shapes["output.weight"] = (self.vocab_size, self.hidden_size)
        shapes["output.bias"] = (self.vocab_size,)
        return shapes

    def num_parameters(self) -> int:
        """Count of trained numbers."""
        return sum(math.prod(shape) for shape in self.weight_shapes().values())


@dataclass(frozen=True, kw_only=True)
class TextConfig(_Config):
    """How text was treated before training, and must be treated again afterwards.

    Raises:
        ConfigError: a value is out of range.
    """

    documents: str = "none"
    """What a document is: `none` (one long text), `line`, `blank-line` (separated by empty lines)
    or `file`. Documents end with EOS."""
    normalize: str = "none"
    """Unicode normalisation: `none`, `nfc` or `nfkc`."""

    def __post_init__(self) -> None:
        """Check every field."""
        _one_of(DOCUMENTS, documents=self.documents)
        _one_of(NORMALIZATIONS, normalize=self.normalize)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(_Config):
    """How files become ids.

    Raises:
        ConfigError: a value is out of range.
    """

    documents: str = "none"
    """As in TextConfig."""
    normalize: str = "none"
    """As in TextConfig."""
    unit: str = "char"
    """`char`: the characters of the training text; `byte`: the 256 bytes of UTF-8."""
    min_count: int = 1
    """Characters rarer than this in the training text become UNK."""
    val_fraction: float | None = None
    """Share kept for validation; None: a tenth, at most a million characters, nothing if tiny."""
    encoding: str = "auto"
    """Of the files: `auto` is UTF-8, or what a byte order mark says."""
    errors: str = "strict"
    """Undecodable bytes: `strict` refuses the file, `replace` reads U+FFFD."""
    glob: str = "*.txt"
    """Which files of a directory are read, recursively."""
    split_seed: int = 0
    """Seed of the choice of validation documents."""

    def __post_init__(self) -> None:
        """Check every field."""
        _one_of(DOCUMENTS, documents=self.documents)
        _one_of(NORMALIZATIONS, normalize=self.normalize)
        _one_of(UNITS, unit=self.unit)
        _one_of(DECODING_ERRORS, errors=self.errors)
        _at_least(1, min_count=self.min_count)
        if self.val_fraction is not None:
            _require(
                0 <= self.val_fraction < 1,
                f"val fraction must be in [0, 1), got {self.val_fraction}",
            )
        if self.encoding != "auto":
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ConfigError(
                    f"encoding {self.encoding!r} is not known: try utf-8, latin-1, cp1252 or utf-16"
                ) from None

    @property
    def text(self) -> TextConfig:
        """The part that goes into the model."""
        return TextConfig(documents=self.documents, normalize=self.normalize)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Config):
    """How a network is trained. At most one of `time_s`, `epochs`, `steps` is the budget.

    Raises:
        ConfigError: a value is out of range, or two budgets are given.
    """

    time_s: float | None = None
    """Budget in seconds of wall-clock time."""
    epochs: float | None = None
    """Budget in passes over the training text."""
    steps: int | None = None
    """Budget in updates of the weights."""
    batch_size: int = 16
    """Lanes of text read side by side."""
    bptt: int = 64
    """Window of truncated backpropagation through time, in characters."""
    optimizer: str = "muon"
    """`muon` (Muon for the recurrent matrices, AdamW for the rest) or `adamw` (for all)."""
    learning_rate: float = 1.2e-2
    """Peak learning rate of AdamW; Muon's is a fixed multiple of it."""
    weight_decay: float = 0.05
    """Decoupled weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Largest Euclidean norm of the whole gradient; 0 switches it off."""
    clip_value: float = 0.0
    """Largest absolute value of a gradient element; 0 switches it off."""
    dropout: float = 0.0
    """Probability of dropping a unit between layers and before the output."""
    input_dropout: float = 0.0
    """Probability of dropping an element of the characters' embedding."""
    recurrent_dropout: float = 0.0
    """Probability of hiding a unit from the recurrent weights of its layer, for a whole window."""
    unknown_rate: float = 0.001
    """Share of input characters shown as UNK, so that UNK is trained in every corpus."""
    patience: int = 0
    """Evaluations without improvement before stopping; 0 never stops early."""
    max_epochs: float | None = None
    """Passes after which a run with a time budget ends even if there is time left."""
    finish_early: bool = False
    """End soon, with the learning rate brought down, once validation loss keeps rising."""
    calibrate: bool = True
    """Scale the logits of the model to fit the validation text best."""
    sample_every: int = 1
    """Show a sample at every n-th evaluation; 0 never."""
    members: int = 1
    """Networks trained side by side on the same windows; the model is the mean of their logits."""
    seed: int = 0
    """Seed of every random generator."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    dtype: str = "auto"
    """Precision of the matrix products: `auto`, `float32`, `bfloat16`."""

    def __post_init__(self) -> None:
        """Check every field."""
        budgets = [b for b in (self.time_s, self.epochs, self.steps) if b is not None]
        _require(len(budgets) <= 1, "time, epochs and steps are budgets: give one of them")
        _positive(
            time=self.time_s,
            epochs=self.epochs,
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
        )
        _at_least(1, steps=self.steps, batch=self.batch_size, bptt=self.bptt, members=self.members)
        _require(
            self.members <= MOST_MEMBERS,
            f"members must be at most {MOST_MEMBERS}, got {self.members}",
        )
        _at_least(
            0,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            patience=self.patience,
            sample_every=self.sample_every,
            seed=self.seed,
        )
        for name in ("dropout", "input_dropout", "recurrent_dropout", "unknown_rate"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{_option(name)} must be in [0, 1), got {value}")
        _require(self.seed < 1 << 64, f"seed must be below 2**64, got {self.seed}")
        _one_of(DTYPES, dtype=self.dtype)
        _one_of(OPTIMIZERS, optimizer=self.optimizer)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(_Config):
    """How text is drawn from a model.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 always takes the most probable character."""
    top_k: int = 0
    """Keep the k most probable characters; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest characters whose probabilities sum to p; 1 keeps all."""
    min_p: float = 0.0
    """Keep characters at least p times as probable as the most probable; 0 keeps all."""
    no_repeat: int = 0
    """Never write an N-gram of this many characters twice; 0 allows it."""
    length: int = 1000
    """Most characters to write, the prompt not counted."""
    min_length: int = 0
    """EOS is forbidden before so many characters."""
    stop: tuple[str, ...] = ()
    """Texts that end the sample; they are not written."""
    logprobs: bool = False
    """Record the log-probability of every character."""
    seed: int = 0
    """Seed of the random generator; sample k of a seed is always the same text."""

    def __post_init__(self) -> None:
        """Check every field."""
        _at_least(
            0,
            temperature=self.temperature,
            seed=self.seed,
            top_k=self.top_k,
            no_repeat=self.no_repeat,
            min_length=self.min_length,
        )
        _at_least(1, length=self.length)
        _require(0 < self.top_p <= 1, f"top p must be in (0, 1], got {self.top_p}")
        _require(0 <= self.min_p <= 1, f"min p must be in [0, 1], got {self.min_p}")
        _require(
            self.min_length <= self.length,
            f"min length {self.min_length} is more than the length {self.length}",
        )
        _require(all(self.stop), "a stop text must have at least one character")


def fresh_seed() -> int:
    """Return a seed that nobody has used, short enough to type."""
    return secrets.randbelow(1_000_000_000)
