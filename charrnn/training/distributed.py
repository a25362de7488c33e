"""Several processes that train one model: who they are, what they sum up, how they end together.

`torchrun` starts the processes and tells each its number by environment variables; torch's own
engine connects them, with gloo between CPUs and NCCL between GPUs. What the methods of a group send
is a collective: every process calls them, in the same order. What decides over the course of a run
(limits in time, signals, settings) goes through gloo on the CPU, even where the gradients go
through NCCL: the device is not waited for, and a process that has died is noticed at once.

Process 0 leads: it alone writes files and speaks.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.batches.windows import Share
from charrnn.errors import ConfigError, RunError
from charrnn.models.device import choose_device
from charrnn.training.system import SIGNALS, load_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_T = TypeVar("_T")
_K = TypeVar("_K")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables by which torchrun tells a process who it is and where the others are."""
PATIENCE = timedelta(days=1)
"""How long a process waits for the others: process 0 may have a long text to read."""
LINGER_S = 0.1
"""How long a process waits for gloo's threads before it ends."""
FAILED = "charrnn/failed"
"""Key of the store that counts the processes that have failed."""


class PeerError(RunError):
    """Another process of the training has ended."""


class Group:
    """The processes of one training, as one of them sees it.

    Args:
        rank: number of this process, from 0.
        size: how many there are; alone, nothing is sent, and torch not even imported.
        store: what they share beside the collectives.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None) -> None:
        """Keep who this process is."""
        self.rank, self.size = rank, size
        self._store = store

    @property
    def leads(self) -> bool:
        """True of the process that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The batch rows of this process, where rows are shared out."""
        return Share(self.rank, self.size)

    def device(self, name: str) -> torch.device:
        """Return the device of this process: where there are GPUs, each has one of its own.

        Raises:
            ConfigError: there is none for it.
        """
        import torch

        if self.size == 1:
            return choose_device(name)
        if name.startswith("cuda:"):
            raise ConfigError(
                f"gives all processes one GPU, got {name}: with torchrun, use cuda, and each has "
                "its own",
                field="device",
            )
        if name == "mps":
            raise ConfigError(
                "can be mps in one process only: use cpu with torchrun", field="device"
            )
        device = choose_device("cpu" if name == "auto" and not torch.cuda.is_available() else name)
        if device.type != "cuda":
            return device
        here, own = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", self.rank))
        if own >= here:
            raise ConfigError(
                f"has {here} GPUs on this machine, too few for a process on each: start torchrun "
                f"with --nproc-per-node {here}, or use cpu",
                field="device",
            )
        torch.cuda.set_device(own)
        return torch.device("cuda", own)

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum of those of all processes, the same bits in each."""
        if self.size > 1:
            import torch.distributed as dist

            with _collective():
                dist.all_reduce(tensor)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.size == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64)
        self.add(tensor)
        result: list[float] = tensor.tolist()
        return result

    def send(self, tensor: Tensor, sender: int) -> None:
        """Replace a tensor by that of one process."""
        if self.size > 1:
            import torch.distributed as dist

            with _collective():
                dist.broadcast(tensor, sender)

    def agree(self, value: _T) -> _T:
        """Return the value that process 0 has; it is sent pickled, which only the group does."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        values = [value]
        with _collective():
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all processes to process 0, and an empty list to the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.size if self.leads else None
        with _collective():
            dist.gather_object(value, values)
        return values or []

    @contextlib.contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let one process say why all end: the first that fails; the others end without a word.

        Raises:
            SystemExit: another process speaks.
        """
        try:
            yield
        except KeyboardInterrupt:
            if self.leads:
                raise
            raise SystemExit(130) from None
        except Exception as error:
            if self.size > 1:
                _ignore_signals()  # torchrun sends one to all that are left
                if not self._is_first_to_fail():
                    raise SystemExit(1) from error
            raise

    def _is_first_to_fail(self) -> bool:
        try:
            return bool(self._store.add(FAILED, 1) == 1)
        except RuntimeError:  # the store has gone with process 0
            return True


ALONE = Group()
"""The group of a process that nobody has told of others."""
_joined = ALONE


def join() -> Group:
    """Return the group that this process belongs to; the first call meets the others.

    Raises:
        ConfigError: the environment does not say where the others are.
    """
    global _joined
    if os.environ.get("WORLD_SIZE", "1") == "1" or _joined.size > 1:
        return _joined
    rank, size = _numbers(os.environ)
    load_torch()
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise ConfigError(
            "this torch cannot train in several processes: start one, without torchrun"
        )
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        store.set_timeout(PATIENCE)
        has_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_gpus else "gloo",
            store=PrefixStore("charrnn", store),
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the processes of this training cannot meet at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: start all of them with torchrun"
        ) from error
    atexit.register(_leave)
    _joined = Group(rank, size, store)
    return _joined


def have_met() -> bool:
    """Say whether this process has joined others: then they decide who speaks."""
    return _joined.size > 1


def _numbers(variables: Mapping[str, str]) -> tuple[int, int]:
    """Return number and count of the processes.

    Raises:
        ConfigError: a variable is missing, or is none.
    """
    missing = [name for name in VARIABLES if not variables.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE asks for several processes, and {missing[0]} is not set: start them with "
            "torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
    except ValueError:
        rank, size = 0, 0
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK must be a number below WORLD_SIZE, got {variables['RANK']} of "
            f"{variables['WORLD_SIZE']}: start the processes with torchrun"
        )
    return rank, size


@contextlib.contextmanager
def _collective() -> Iterator[None]:
    """Recognise the error of a process that has gone.

    Raises:
        PeerError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerError("another process of this training has ended, and so all do") from error


def _ignore_signals() -> None:
    """Let this process end by itself."""
    with contextlib.suppress(ValueError):  # not the main thread: it gets none
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _leave() -> None:
    """Close the connections in good order.

    The threads of gloo let go of Python's objects a little later; while Python ends, that would
    crash the process ("terminate called without an active exception").
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(LINGER_S)


def merged(parts: Iterable[Mapping[_K, Any]]) -> dict[_K, Any]:
    """Return what several processes have given, under all their names; the first of each counts."""
    whole: dict[_K, Any] = {}
    for part in parts:
        whole = {**part, **whole}
    return whole
