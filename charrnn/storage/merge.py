"""Several trained models as one ensemble, whose logits are the mean of theirs.

The softmax of a mean of logits is the normalised geometric mean of the models' probabilities, the
logarithmic opinion pool (Heskes 1998): at least as good as the models are on average, and the
better the more they differ, as models from other seeds do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import MAX_MEMBERS, REVERSE, ModelConfig
from charrnn.errors import ConfigError
from charrnn.storage.model_file import SavedModel, Weights


def merge_models(models: Sequence[SavedModel]) -> SavedModel:
    """Return the ensemble of all members of the models.

    The training record tells how the models were trained.

    Raises:
        ConfigError: there are fewer than two models, they have too many members together, or they
            differ in shape, alphabet, or treatment of the text.
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
    members = [part for model in models for part in split_weights(model.config, model.weights)]
    if len(members) > MAX_MEMBERS:
        raise ConfigError(
            f"an ensemble has at most {MAX_MEMBERS} members, and these models have {len(members)} "
            "together: merge fewer"
        )
    return SavedModel(
        config=replace(first.config, members=len(members)),
        vocabulary=first.vocabulary,
        text=first.text,
        weights=stack_weights(members),
        training=_record(models),
    )


def require_different(models: Sequence[SavedModel]) -> None:
    """Refuse to merge a network with itself, as a model of its own or as a member of another.

    Raises:
        ConfigError: two members have the same weights.
    """
    members = [
        (number, model, part)
        for number, model in enumerate(models, 1)
        for part in split_weights(model.config, model.weights)
    ]
    for (one, model, part), (two, other, counterpart) in combinations(members, 2):
        if (
            model.vocabulary == other.vocabulary
            and part.keys() == counterpart.keys()
            and all(np.array_equal(array, counterpart[name]) for name, array in part.items())
        ):
            which = (
                f"models {one} and {two} have" if one != two else f"two members of model {one} have"
            )
            raise ConfigError(
                f"{which} the same weights, and an ensemble gains nothing from a copy: leave one "
                "out"
            )


def stack_weights(parts: Sequence[Weights]) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of an ensemble, as in `ModelConfig.weight_shapes`, from its members'."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def split_weights(config: ModelConfig, weights: Weights) -> list[Weights]:
    """Return the arrays of each member: `stack_weights` undone."""
    if config.members == 1:
        return [weights]
    return [{name: array[k] for name, array in weights.items()} for k in range(config.members)]


def reverse_part(weights: Weights) -> dict[str, NDArray[Any]]:
    """Return the arrays that read from right to left, named as those of the other direction."""
    return {
        name.removeprefix(REVERSE): array
        for name, array in weights.items()
        if name.startswith(REVERSE)
    }


def _traits(model: SavedModel) -> dict[str, Any]:
    """Return by name what must be the same in all models."""
    config, text = model.config, model.text
    return {
        "unit": model.vocabulary.unit,
        "cell": config.cell,
        "nonlinearity": config.nonlinearity,
        "layers": config.num_layers,
        "hidden size": config.hidden_size,
        "embedding size": config.embedding_size or "one-hot",
        "direction": "both" if config.bidirectional else "left to right",
        "documents": text.documents,
        "normalization": text.normalize,
    }


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
