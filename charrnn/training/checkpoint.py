"""The resume state: everything a stopped run needs to go on exactly as if it had not stopped.

One safetensors file: the network's weights, the optimiser's moments, the carried state of the
lanes and the random generators as arrays; counters, settings and the lanes' position as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from charrnn.errors import RunError
from charrnn.models.ensemble import Network
from charrnn.models.network import NetworkState
from charrnn.storage.atomic import atomic_writer

RECORD_KEY = "charrnn_resume"


def save_checkpoint(
    path: Path,
    network: Network,
    optimizers: Sequence[Optimizer],
    generators: Sequence[torch.Generator],
    state: NetworkState,
    record: dict[str, Any],
) -> None:
    """Write the resume state atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    arrays: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        arrays[f"weights/{name}"] = parameter.detach()
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                arrays[f"optimizer/{name}/{key}"] = value
    for k, parts in enumerate(state):
        for j, part in enumerate(parts):
            arrays[f"state/{k}/{j}"] = part.detach()
    for k, generator in enumerate(generators):
        arrays[f"rng/{k}"] = generator.get_state()
    arrays = {name: array.cpu().contiguous().clone() for name, array in arrays.items()}
    with atomic_writer(path) as file:
        file.write(safetensors.torch.save(arrays, {RECORD_KEY: json.dumps(record)}))


def read_record(path: Path) -> dict[str, Any]:
    """Return the JSON part of a resume state.

    Raises:
        RunError: there is no resume state, or it cannot be read.
    """
    if not path.is_file():
        raise RunError(f"there is no resume state {path}: nothing to resume")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})[RECORD_KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"the resume state {path} cannot be read ({error})") from error
    assert isinstance(record, dict)
    return record


def load_checkpoint(
    path: Path,
    network: Network,
    optimizers: Sequence[Optimizer],
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> NetworkState:
    """Put weights, optimiser and random state back, and return the lanes' carried state.

    Raises:
        RunError: the file does not fit the network.
    """
    try:
        arrays = safetensors.torch.load_file(path, device="cpu")
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(arrays[f"weights/{name}"])
        owners = {p: o for o in optimizers for g in o.param_groups for p in g["params"]}
        for optimizer in optimizers:
            optimizer.state.clear()
        for name, array in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                parameter_name, _, key = rest.rpartition("/")
                parameter = parameters[parameter_name]
                # fused AdamW wants its step counter on the device, too
                owners[parameter].state[parameter][key] = array.to(device)
        for k, generator in enumerate(generators):
            generator.set_state(arrays[f"rng/{k}"])
        return [
            tuple(arrays[f"state/{k}/{j}"].to(device) for j in range(len(parts)))
            for k, parts in enumerate(network.initial_state(1))
        ]
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise RunError(f"the resume state {path} does not fit this run ({error})") from error
