"""Which device and precision to compute with."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch

from charrnn.errors import ConfigError
from charrnn.network import CharNetwork


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


def choose_dtype(network: CharNetwork, device: torch.device, batch_size: int, bptt: int) -> str:
    """Return `bfloat16` where the machine has it and it is measured to be faster.

    Times forward and backward passes on noise; the network's weights are not touched.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32"
    times = {d: _time_steps(network, device, batch_size, bptt, d) for d in ("float32", "bfloat16")}
    network.zero_grad(set_to_none=True)
    return min(times, key=lambda d: times[d])


def _time_steps(
    network: CharNetwork, device: torch.device, batch_size: int, bptt: int, dtype: str
) -> float:
    ids_BT = torch.zeros(batch_size, bptt, dtype=torch.int64, device=device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        with autocast(device, dtype):
            logits_BTV, _ = network(ids_BT, network.initial_state(batch_size))
        logits_BTV.float().sum().backward()
        best = min(best, time.perf_counter() - start)
    return best
