"""Where torch computes: which device, how arrays get there, and what a device may lack.

torch is imported by the functions, not by the module: work that stays with the NumPy engine must
not pay for it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from charrnn.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

LEAST_ROWS, LEAST_CHARS = 256, 1_000_000
"""From here on, `auto` samples and scores on a GPU: texts side by side, and characters in all.
Below, the NumPy engine is done before torch is loaded. Chosen by reasoning, not measured."""
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of these is there where Linux has a driver for CUDA, for ROCm, or for Windows' GPU (WSL)."""


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` prefers a GPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32: float32 with a short mantissa
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    here = {"cpu": True, "cuda": cuda, "mps": mps}[device.type]
    if not here or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"{name} is not available on this machine: use cpu or auto", field="device"
        )
    return device


def reading_device(name: str, *, rows: int, chars: float) -> str:
    """Return where to sample or score; `cpu` stands for the NumPy engine.

    `auto` takes a CUDA GPU if there is one, if at least `LEAST_ROWS` texts are written or read side
    by side, and if they have at least `LEAST_CHARS` characters in all; otherwise the NumPy engine.

    Args:
        name: as the user gave it.
        rows: texts side by side.
        chars: characters of all texts, at most.
    """
    if name != "auto":
        return name
    is_large = rows >= LEAST_ROWS and chars >= LEAST_CHARS
    return "cuda" if is_large and has_cuda() else "cpu"


def has_cuda() -> bool:
    """Say whether torch finds a CUDA GPU; without a driver, torch is not even imported."""
    if "torch" not in sys.modules and not (_has_driver() and importlib.util.find_spec("torch")):
        return False
    try:
        import torch
    except (ImportError, OSError):  # `auto` does without
        return False
    return torch.cuda.is_available()


def _has_driver() -> bool:
    if sys.platform == "win32":
        return os.path.exists(os.path.expandvars(r"%SystemRoot%\System32\nvcuda.dll"))
    return any(map(os.path.exists, DRIVERS))


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array on the device, without waiting for the device where that is safe.

    CUDA copies it from pinned memory while the host continues. MPS would read the array after it
    has been freed, and get other numbers (pytorch#189690), so there the host waits.
    """
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute products in all bits of float32, where training may do with the fewer of TF32."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether the error means that a device's memory is too small."""
    import torch

    is_typed = isinstance(error, torch.cuda.OutOfMemoryError)
    return is_typed or "MPS backend out of memory" in str(error)


def lacking_operator(error: NotImplementedError) -> str:
    """Return the name of the operator that a device lacks."""
    found = re.search(r"aten::[\w.]+", str(error))
    return found.group() if found else "an operator"


@contextmanager
def told_what_it_lacks(device: torch.device) -> Iterator[None]:
    """Let a device whose memory is too small, or that lacks an operator, be named.

    Raises:
        ConfigError: it is so.
    """
    try:
        yield
    except NotImplementedError as error:
        raise ConfigError(
            f"{device} lacks {lacking_operator(error)}, which sampling and scoring need: use cpu",
            field="device",
        ) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{device} has too little memory for these texts: use cpu", field="device"
        ) from None
