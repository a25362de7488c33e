"""Which device and precision to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from charrnn.errors import ConfigError

MIN_HIDDEN = 64
"""Units below which converting to bfloat16 costs more than the products save."""


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` prefers a GPU.

    Raises:
        ConfigError: there is no such device here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"there is no device called {name!r}: use cpu, cuda or mps") from None
    here = {"cpu": True, "cuda": cuda, "mps": mps}.get(device.type, False)
    if not here or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"the device {name!r} is not available on this machine: use cpu or auto")
    return device


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in `dtype`."""
    if dtype == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def choose_dtype(device: torch.device, hidden_size: int) -> str:
    """Return `bfloat16` where the machine computes in it and the network is large enough to gain.

    Nothing is timed, so that the same command trains the same model each time on a machine.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    native = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return (
        "bfloat16" if device.type == "cpu" and native and hidden_size >= MIN_HIDDEN else "float32"
    )
