"""The verbs for Python: `load(path)` gives a model that samples and scores; `train`; `merge`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from charrnn.config import CorpusConfig, ModelConfig, SamplingConfig, TrainingConfig, fresh_seed
from charrnn.corpus.corpus import check_unchanged, load_corpus
from charrnn.corpus.encode import encode_corpus
from charrnn.corpus.sources import find_sources
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError
from charrnn.interrupts import interrupts_put_off
from charrnn.normalize import normalize
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.prompt import Request, Start, encode_prompt, read_prompt
from charrnn.sampling.sample import Sample
from charrnn.sampling.stream import Stream
from charrnn.scoring.batch import score_many
from charrnn.scoring.details import CharScore, char_scores
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer
from charrnn.scoring.text import score_pieces
from charrnn.storage.merge import merge_models, part_configs, require_different
from charrnn.storage.model_file import SavedModel, load_model, save_model
from charrnn.storage.runs import find_model, new_run, unfinished_run
from charrnn.training.sizing import TYPICAL, complete_settings

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

FINE_TUNING_RATE = 3e-3
"""Peak learning rate when a trained model is trained further: it has less far to go."""


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

    @cached_property
    def engine(self) -> Engine:
        """The NumPy engine with this model's weights."""
        return Engine(self.saved.config, self.saved.weights)

    def start(
        self,
        prompt: str = "",
        *,
        after: Start | None = None,
        on_unknown: str = "error",
        progress: Callable[[int], None] | None = None,
    ) -> Start:
        """Read a prompt once and return the place after it, to begin any number of samples from.

        Args:
            prompt: text to read.
            after: a place to go on from, such as `Stream.end`; without it, a fresh text begins.
            on_unknown: what to do with characters the model has never seen: `error`, `skip` them,
                or `replace` them by UNK.
            progress: called with the characters read so far.

        Raises:
            UnknownCharacterError: the prompt has characters the model has never seen.
        """
        text = normalize(prompt, self.saved.text.normalize)
        ids = encode_prompt(self.saved.vocabulary, text, on_unknown)
        return read_prompt(self.engine, ids, after=after, progress=progress)

    def stream(
        self, prompt: str = "", *, after: Start | None = None, index: int = 0, **options: Any
    ) -> Stream:
        """Return an iterator over the characters of a sample; the prompt is read, not repeated.

        Afterwards its `stop_reason` tells how the text ended, and its `end` can be continued.

        Args:
            prompt: text that the sample continues.
            after: a place to go on from; see `start`.
            index: which sample of the seed.
            options: fields of `SamplingConfig`: temperature, top_k, top_p, min_p, no_repeat,
                length, min_length, stop, seed (a fresh one when None or left out).

        Raises:
            ConfigError: an option is out of range.
            UnknownCharacterError: the prompt has characters the model has never seen.
        """
        config = sampling_config(options)
        start = self.start(prompt, after=after)
        return self.stream_request(Request(start, prompt, config.temperature, index), config)

    def stream_request(self, request: Request, config: SamplingConfig) -> Stream:
        """Return the stream of one request."""
        return Stream(self.engine, self.saved.vocabulary, request, config)

    @overload
    def sample(
        self, prompt: str = "", *, num: None = None, after: Start | None = None, **options: Any
    ) -> Sample: ...

    @overload
    def sample(
        self, prompt: str = "", *, num: int, after: Start | None = None, **options: Any
    ) -> list[Sample]: ...

    def sample(
        self,
        prompt: str = "",
        *,
        num: int | None = None,
        after: Start | None = None,
        **options: Any,
    ) -> Sample | list[Sample]:
        """Return a whole sample, or with `num` a list of so many, drawn in one batch.

        Sample k is the text that `stream(..., index=k)` gives with the same seed. Other arguments
        as for `stream`; `str(sample)` is the text.
        """
        config = sampling_config(options)
        start = self.start(prompt, after=after)
        requests = [Request(start, prompt, config.temperature, k) for k in range(num or 1)]
        samples = list(self.sample_requests(requests, config))
        return samples[0] if num is None else samples

    def sample_requests(
        self, requests: Sequence[Request], config: SamplingConfig
    ) -> Iterator[Sample]:
        """Yield samples for requests that differ in prompt or temperature, in their order."""
        return sample_batch(self.engine, self.saved.vocabulary, requests, config)

    def scorer(
        self, *, eos: bool | None = None, on_unknown: str = "unk", context: str = ""
    ) -> Scorer:
        """Return the rules to score by, for the functions of `charrnn.scoring`.

        Args:
            eos: count the end of each text as an event; None does it for models of documents.
            on_unknown: `unk` charges unknown characters with the probability of UNK, `skip`
                leaves them out, `error` refuses them.
            context: text before each text, read but not scored.

        Raises:
            ConfigError: `on_unknown` is none of these.
            UnknownCharacterError: the context has unknown characters, and they are refused.
        """
        return Scorer(
            self.engine,
            self.saved.vocabulary,
            eos=self.ends_count if eos is None else eos,
            on_unknown=on_unknown,
            context=context,
            normalize=self.saved.text.normalize,
        )

    @property
    def ends_count(self) -> bool:
        """True for a model of documents, which has learned where they end."""
        return self.saved.text.documents != "none"

    def score(self, text: str, **rules: Any) -> Score:
        """Return how probable a text is.

        Args:
            text: what to score, whole.
            rules: `eos`, `on_unknown` and `context`, as for `scorer`.

        Raises:
            UnknownCharacterError: the text has unknown characters, and they are refused.
        """
        return score_pieces(self.scorer(**rules), [text], text=text)

    def score_many(self, texts: Iterable[str], **rules: Any) -> list[Score]:
        """Return the scores of many texts, read side by side; arguments as for `score`."""
        return list(score_many(self.scorer(**rules), texts))

    def char_scores(self, text: str, *, alternatives: int = 5, **rules: Any) -> list[CharScore]:
        """Return each event of a text: probability, rank, and what was expected instead.

        Args:
            text: what to score.
            alternatives: how many of the most probable characters to name at each place.
            rules: as for `score`.
        """
        return list(char_scores(self.scorer(**rules), [text], alternatives=alternatives))


def load(path: str | os.PathLike[str] | None = None) -> CharModel:
    """Load a model file or run directory, or `builtin`, the model that ships with charrnn.

    Without a path it is the newest model under `runs/`, and the builtin one before any training.

    Raises:
        ModelFileError: there is no model, or the file is not a sound one.
    """
    found = find_model(path)
    return CharModel(load_model(found), found)


def merge(
    models: Iterable[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> CharModel:
    """Make one model of several, save it in a run directory, and return it.

    Its logits are the mean of theirs, which is better than each of them is alone. It is as wide as
    they are together, and sampling from it costs their products together. See `merge_models`.

    Args:
        models: model files or run directories, from other seeds or settings on the same text.
        out: directory to save in; a new one under `runs/` when left out.
        name: or its name under `runs/`.

    Raises:
        ConfigError: the models do not fit together, two are the same, or both `out` and `name`
            are given.
        ModelFileError: one of them is missing or is no sound model.
        RunError: the directory already holds a run.
        StorageError: the model cannot be written.
    """
    run = new_run("merged", out=None if out is None else Path(out), name=name)
    parts = [load(path).saved for path in models]
    require_different(parts)
    merged = merge_models(parts)
    run.path.mkdir(parents=True, exist_ok=True)
    save_model(run.model, merged)
    return CharModel(merged, run.model)


def train(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    init: str | os.PathLike[str] | None = None,
    held_out: Sequence[str | os.PathLike[str]] = (),
    **options: Any,
) -> CharModel:
    """Train on one or several texts and return the best model.

    Args:
        corpus: path or paths, directories included.
        out: run directory; without it `runs/<corpus name>`.
        init: model to begin from, instead of random weights, `builtin` for the one that ships with
            charrnn; its shape is kept, and new characters are added to its alphabet.
        held_out: files to validate on, instead of a share of the corpus.
        options: fields of `ModelConfig`, `TrainingConfig` and `CorpusConfig`; what is not given
            is chosen from the corpus and the budget.

    Raises:
        CharRNNError: the corpus, an option or the run directory is unusable.
    """
    paths = [corpus] if isinstance(corpus, (str, os.PathLike)) else list(corpus)
    directory = None if out is None else Path(out)
    trainer = prepare_training(paths, out=directory, init=init, held_out=held_out, **options)
    for _ in trainer.run():
        pass
    return load(trainer.run_directory.model)


def prepare_training(
    paths: Sequence[str | os.PathLike[str]],
    *,
    out: Path | None = None,
    name: str | None = None,
    init: str | os.PathLike[str] | None = None,
    held_out: Sequence[str | os.PathLike[str]] = (),
    started: float | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Trainer:
    """Encode the corpus, choose what was left open, and return a trainer that is ready to run.

    Arguments as for `train`; `name` and `started` as for `new_run` and `Trainer`; `progress` is
    called with the characters encoded so far.
    """
    started = time.monotonic() if started is None else started
    options = {key: value for key, value in options.items() if value is not None}
    initial = None if init is None else load_model(find_model(init))
    if initial is not None:
        options = {**_settings_of(initial, options), **options}
    text_fields = {field.name for field in dataclasses.fields(CorpusConfig)}
    text = CorpusConfig(
        split_seed=options.get("seed", TrainingConfig.seed),
        **{key: value for key, value in options.items() if key in text_fields},
    )
    settings = {key: value for key, value in options.items() if key not in text_fields}
    complete_settings(1_000_000, 100, settings)  # a bad option is told before a long encoding
    run = new_run(find_sources(paths, text.glob)[0].stem, out=out, name=name)
    is_ours = not run.corpus.exists()  # a folder given with --out may hold one of the user's
    try:
        corpus = encode_corpus(
            paths,
            run.corpus,
            text,
            held_out=held_out,
            known=() if initial is None else initial.vocabulary.characters,
            progress=progress,
        )

        with interrupts_put_off():  # torch: only when sure to be needed
            from charrnn.training.speed import measure_speed
            from charrnn.training.trainer import Trainer

        if settings.get("steps") or settings.get("epochs"):  # the machine has no say in these
            speed = TYPICAL
        else:
            speed = measure_speed(settings.get("device", "auto"), settings.get("dtype", "auto"))
        model, training = complete_settings(
            corpus.n_train, len(corpus.vocabulary), settings, speed=speed
        )
        return Trainer(corpus, model, training, run, initial=initial, started=started)
    except BaseException:  # nothing has been trained: leave nothing behind
        if is_ours:
            shutil.rmtree(run.corpus, ignore_errors=True)
        with contextlib.suppress(OSError):
            run.path.rmdir()
        raise


def _settings_of(initial: SavedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a model to begin from decides.

    Raises:
        ConfigError: an option contradicts the model.
    """
    parts = part_configs(initial.config, initial.weights)
    if len(set(parts)) > 1:  # members are all alike, so these go on as one wide network
        parts = [initial.config]
    shape = parts[0].to_dict()
    del shape["vocab_size"]
    decided = {
        **shape,
        "members": len(parts),
        "unit": initial.vocabulary.unit,
        "normalize": initial.text.normalize,
    }
    for name, value in decided.items():
        if options.get(name, value) != value:
            raise ConfigError(
                f"the model to begin from has {name.replace('_', ' ')} {value}, not "
                f"{options[name]}: leave that option out"
            )
    return {**decided, "learning_rate": FINE_TUNING_RATE}


def prepare_resume(
    paths: Sequence[str | os.PathLike[str]],
    *,
    out: Path | None = None,
    name: str | None = None,
    started: float | None = None,
) -> Trainer:
    """Return a trainer that goes on where an unfinished run stopped, settings and all.

    Args:
        paths: the corpus, to check that it is the same; may be empty.
        out: the run directory.
        name: or its name under `runs/`; without both, the newest unfinished run of the corpus.
        started: as for `Trainer`.

    Raises:
        RunError: there is nothing to resume, or the corpus has changed since.
    """
    started = time.monotonic() if started is None else started
    stem = find_sources(paths)[0].stem if paths else None
    run = unfinished_run(stem, out=out, name=name)

    with interrupts_put_off():
        from charrnn.training.checkpoint import read_record
        from charrnn.training.trainer import Trainer

    record = read_record(run.resume)
    corpus = load_corpus(run.corpus)
    check_unchanged(corpus, paths)
    model = ModelConfig.from_dict(record["model"])
    training = TrainingConfig.from_dict(record["training"])
    return Trainer(corpus, model, training, run, resume=record, started=started)


def sampling_config(options: Mapping[str, Any]) -> SamplingConfig:
    """Return the config of sampling options, with a fresh seed if they have none.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    known = {field.name for field in dataclasses.fields(SamplingConfig)}
    for name in options:
        if name not in known:
            raise ConfigError(f"there is no sampling option called {name!r}")
    seed = options.get("seed")
    return SamplingConfig(**{**options, "seed": fresh_seed() if seed is None else seed})
