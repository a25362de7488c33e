"""Every knob of the machine in training: how torch is loaded, precision, threads and memory.

torch is imported by the functions, not by the module, because some knobs must be set before.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.errors import ConfigError
from charrnn.models.device import choose_device

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")

SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
}
"""What ends a run in good order; a closed window is SIGHUP, on Windows SIGBREAK."""

SPIN_COUNT = "500"
"""Turns that torch's threads wait busily for each other before they sleep. By default they wait
some milliseconds, and training is several times slower once another program needs a core."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`."""
LARGEST_THRESHOLD = 32 << 20
"""The largest mmap threshold, in bytes, that glibc accepts."""
BYTES_PER_WEIGHT = 16
"""Of memory in training: the weight, its gradient and two moments, in float32."""
TEXT_SHARE = 0.1
"""Of a GPU's free memory, for the encoded text: one byte for a character, or two."""
MIN_HIDDEN = 64
"""Units below which converting to bfloat16 costs more than the products save."""


def leave_cores_to_threads() -> None:
    """Let NumPy multiply on one thread, for work whose parts have a thread each.

    It heeds that only if it is not loaded yet, and a number that the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def require_torch() -> None:
    """See that torch is installed, without the second that importing it takes.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if "torch" not in sys.modules and importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def load_torch() -> None:
    """Import torch with the settings that training needs; later calls are cheap.

    A Ctrl-C that arrives during the import takes effect after it.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    with interrupts_put_off():
        import torch  # noqa: F401
    _keep_freed_memory()


def is_leader() -> bool:
    """Say whether this process may speak: it is alone, or number 0 of several of torchrun."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@contextmanager
def on_signals(heed: Callable[[int], None]) -> Iterator[None]:
    """Call `heed` with the number of each signal that asks the process to end: Ctrl-C's, SIGTERM,
    and SIGHUP, a closed terminal's.

    What the caller ignores, as nohup does SIGHUP, stays ignored. Threads other than the main one
    get no signals; there, this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [n for n, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in heeded:
        signal.signal(number, lambda number, frame: heed(number))
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number in heeded:
                signal.signal(number, before[number])


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Delay such signals to the end of the block: a library may crash if interrupted while it
    loads."""
    came: list[int] = []
    with on_signals(came.append):
        yield
    if came:
        signal.raise_signal(came[0])


def interrupt(number: int) -> None:
    """End what is done in this process as Ctrl-C does.

    Raises:
        KeyboardInterrupt: always.
    """
    raise KeyboardInterrupt


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of returning it to the system.

    Every step allocates and frees the same arrays of some megabytes. By default glibc maps each of
    them anew, and the system fills every page with zeros on first touch: more than a quarter of the
    time of a step with 384 units and 32 rows. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2 * LARGEST_THRESHOLD)


def require_memory(n_weights: int, device: str) -> None:
    """See that a network of this many weights can be trained in the machine's memory.

    Raises:
        ConfigError: it cannot.
    """
    if choose_device(device).type != "cpu":
        return
    try:
        here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return
    needed = BYTES_PER_WEIGHT * n_weights
    if needed > here:
        raise ConfigError(
            f"makes a network of {n_weights:,} weights, whose training needs "
            f"{needed / 1e9:,.0f} GB of memory, and this machine has {here / 1e9:,.0f} GB: choose "
            "fewer units, layers or members",
            field="hidden_size",
        )


def choose_dtype(device: torch.device, hidden_size: int) -> str:
    """Return `bfloat16` where the machine computes in it and the network is large enough to gain.

    Nothing is timed, so the same command always trains the same model on one machine.
    """
    import torch

    if device.type == "cuda":
        return "bfloat16" if multiplies_bfloat16(device) else "float16"
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    native = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    is_faster = device.type == "cpu" and native and hidden_size >= MIN_HIDDEN
    return "bfloat16" if is_faster else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Say whether products in bfloat16 are fast there: older GPUs, as T4 and V100, emulate them."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch._C._has_mkldnn:  # as on Macs
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_room_for_text(device: torch.device, n_bytes: int) -> bool:
    """Say whether a text is to lie on the device, where a step then needs only places in it.

    That is so on a CUDA GPU if it takes at most `TEXT_SHARE` of the memory that is free there.
    """
    import torch

    return device.type == "cuda" and n_bytes <= TEXT_SHARE * torch.cuda.mem_get_info(device)[0]


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in `dtype`."""
    import torch

    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, dtype))


class Workers:
    """Runs one function for several ensemble members, side by side on a CPU with several threads.

    A small network gains little from a second thread, while two networks on a thread each train
    nearly twice as fast as one after the other.

    Args:
        n: number of members.
        device: where they compute; side by side only on a CPU.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        """Start no thread yet."""
        import torch

        threads = torch.get_num_threads() if device.type == "cpu" else 1
        at_once = min(n, threads)
        self._pool = (
            ThreadPoolExecutor(at_once, "member", torch.set_num_threads, (threads // at_once,))
            if at_once > 1
            else None
        )

    def map(self, function: Callable[..., _T], *arguments: Iterable[Any]) -> list[_T]:
        """Return `function` of each member's arguments, in their order."""
        run = map if self._pool is None else self._pool.map
        return list(run(function, *arguments))


def is_in_foreground(terminal: int) -> bool:
    """Say whether a terminal is this process's now: it is not that of a job in the background.

    Args:
        terminal: its file descriptor.
    """
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except (AttributeError, OSError):  # there are no jobs, or it is no terminal of this session
        return True
