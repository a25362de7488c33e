"""Several trained models as one, whose logits are the mean of theirs.

The softmax of a mean of logits is the normalised geometric mean of the models' probabilities, the
logarithmic opinion pool (Heskes 1998): at least as good as the models are on average, and the
better the more they differ, as models from other seeds do. No format and no engine need to know:
layers side by side are one layer whose weights are blocks on a diagonal, zero elsewhere.

Shapes: H hidden units, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.engine.matrix import block_bounds
from charrnn.errors import ConfigError
from charrnn.storage.model_file import SavedModel, Weights

Array = NDArray[np.float32]


def merge_models(models: Sequence[SavedModel]) -> SavedModel:
    """Return one model whose logits are the mean of the models' logits.

    Its layers and its embedding are as wide as theirs together. The training record tells how the
    models were trained.

    Raises:
        ConfigError: there are fewer than two, or they differ in cell, number of layers, alphabet,
            treatment of the text, or in whether characters are embedded.
    """
    if len(models) < 2:
        raise ConfigError("there is nothing to merge: give two models or more")
    first = models[0]
    for number, model in enumerate(models[1:], 2):
        traits = _traits(model)
        for what, one in _traits(first).items():
            if one != traits[what]:
                raise ConfigError(
                    f"models 1 and {number} cannot be merged: they differ in {what} "
                    f"({one} and {traits[what]})"
                )
        if model.vocabulary != first.vocabulary:
            raise ConfigError(
                f"models 1 and {number} cannot be merged: their alphabets differ; train them on "
                "the same text"
            )
    config = merge_configs([model.config for model in models])
    return SavedModel(
        config=config,
        vocabulary=first.vocabulary,
        text=first.text,
        weights=merge_weights(config, [model.weights for model in models]),
        training=_record(models),
    )


def require_different(models: Sequence[SavedModel]) -> None:
    """Refuse to merge a model with itself.

    Raises:
        ConfigError: two of the models have the same weights.
    """
    for (one, model), (two, other) in combinations(enumerate(models, 1), 2):
        if (
            model.config == other.config
            and model.vocabulary == other.vocabulary
            and all(
                np.array_equal(array, other.weights[name]) for name, array in model.weights.items()
            )
        ):
            raise ConfigError(
                f"models {one} and {two} are the same, and merging them gains nothing: leave one "
                "out"
            )


def merge_configs(configs: Sequence[ModelConfig]) -> ModelConfig:
    """Return the shape of the merged model: as wide as the models together."""
    return replace(
        configs[0],
        hidden_size=sum(config.hidden_size for config in configs),
        embedding_size=sum(config.embedding_size for config in configs),
    )


def merge_weights(config: ModelConfig, parts: Sequence[Weights]) -> dict[str, Array]:
    """Return the arrays of the merged model.

    Args:
        config: its shape.
        parts: the arrays of each model.
    """
    return {
        name: _merged(name, config, [part[name] for part in parts])
        for name in config.weight_shapes()
    }


def split_weights(configs: Sequence[ModelConfig], weights: Weights) -> list[dict[str, Array]]:
    """Return the arrays of each of the models that were merged: `merge_weights` undone.

    The output biases are all the same, their mean.

    Args:
        configs: the shape of each.
        weights: of the merged model.
    """
    names = configs[0].weight_shapes()
    parts = {name: _parts(name, configs, weights[name]) for name in names}
    return [{name: parts[name][k] for name in names} for k in range(len(configs))]


def part_configs(config: ModelConfig, weights: Weights) -> list[ModelConfig]:
    """Return the shapes of the models that were merged; a model that was not is its only part."""
    inner = [name for name in config.weight_shapes() if _is_square(name)]
    found = set(block_bounds(weights[inner[0]])).intersection(
        *(block_bounds(weights[name]) for name in inner[1:])
    )
    bounds = sorted(found)
    hidden = [end - start for start, end in pairwise(bounds)]
    embedding = [0] * len(hidden)
    if config.embedding_size:
        rows_GHE = np.reshape(weights["layers.0.weight_ih"], (config.gates, bounds[-1], -1))
        used = [np.any(rows_GHE[:, start:end], axis=(0, 1)) for start, end in pairwise(bounds)]
        embedding = [int(columns.sum()) for columns in used]
        if not np.array_equal(np.repeat(np.arange(len(used)), embedding), np.argmax(used, axis=0)):
            return [config]
    if len(hidden) == 1 or min(hidden) == 1:  # single units only look like models
        return [config]
    sizes = zip(hidden, embedding, strict=True)
    return [replace(config, hidden_size=h, embedding_size=e) for h, e in sizes]


def _parts(name: str, configs: Sequence[ModelConfig], array: Array) -> list[Array]:
    """Return one array of each model: `_merged` undone."""
    if name == "output.bias":
        return [array] * len(configs)
    units = np.cumsum([config.hidden_size for config in configs])[:-1]
    if name == "output.weight":
        scale = np.float32(len(configs))
        return [part * scale for part in np.split(array, units, axis=1)]
    embedded = np.cumsum([config.embedding_size for config in configs])[:-1]
    if name == "embedding.weight":
        return np.split(array, embedded, axis=1)
    gates = [np.split(gate, units) for gate in np.split(array, configs[0].gates)]
    if not _reads_alike(name, configs[0]):
        bounds = units if _is_square(name) else embedded
        gates = [
            [np.split(rows, bounds, axis=1)[k] for k, rows in enumerate(gate)] for gate in gates
        ]
    return [np.concatenate(blocks) for blocks in zip(*gates, strict=True)]


def _is_square(name: str) -> bool:
    """Say whether an array is made of square blocks `[H, H]`."""
    return "weight_hh" in name or ("weight_ih" in name and not name.startswith("layers.0."))


def _traits(model: SavedModel) -> dict[str, Any]:
    """Return by name what must be the same in all models."""
    config, text = model.config, model.text
    return {
        "unit": model.vocabulary.unit,
        "cell": config.cell,
        "nonlinearity": config.nonlinearity,
        "layers": config.num_layers,
        "embedding": "a vector" if config.embedding_size else "one-hot",
        "documents": text.documents,
        "normalization": text.normalize,
    }


def _merged(name: str, config: ModelConfig, parts: Sequence[Array]) -> Array:
    """Return one array of the merged model.

    Args:
        name: of the array.
        config: of the merged model.
        parts: the models' arrays of that name.
    """
    if name == "output.bias":
        return np.asarray(np.mean(parts, axis=0), np.float32)
    if name == "output.weight":
        parts = [part / np.float32(len(parts)) for part in parts]
    if name in ("output.weight", "embedding.weight"):
        return np.concatenate(parts, axis=1)
    join = np.concatenate if _reads_alike(name, config) else _block_diagonal
    gates = zip(*(np.split(part, config.gates) for part in parts), strict=True)
    return np.concatenate([join(blocks) for blocks in gates])


def _reads_alike(name: str, config: ModelConfig) -> bool:
    """Say whether an array multiplies the same in all models, so that rows are only stacked."""
    return "bias" in name or (name == "layers.0.weight_ih" and not config.embedding_size)


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    """Return the blocks `[H, I]` on the diagonal of one array, with zeros beside them."""
    rows, columns = (sum(block.shape[axis] for block in blocks) for axis in (0, 1))
    whole = np.zeros((rows, columns), np.float32)
    row = column = 0
    for block in blocks:
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return whole


def _record(models: Sequence[SavedModel]) -> dict[str, Any]:
    """Return the training record of the merged model: those of its parts, without their curves."""
    parts = [{k: v for k, v in model.training.items() if k != "curve"} for model in models]
    corpora = [part.pop("corpus", None) for part in parts]
    same = corpora[0] is not None and all(corpus == corpora[0] for corpus in corpora)
    if same:
        return {"corpus": corpora[0], "merged": parts}
    return {
        "merged": [{**part, "corpus": corpus} for part, corpus in zip(parts, corpora, strict=True)]
    }
