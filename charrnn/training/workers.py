"""Several things at once on a processor, each with its share of the threads.

The layers of a small network gain little from a second thread, or lose by it, while two networks
on a thread each are trained nearly twice as fast as one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


class Workers:
    """Does the same for several networks.

    Args:
        n: how many networks there are.
        device: where they compute; only on a processor at once.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        """Start no thread yet."""
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        at_once = min(n, threads)
        self._pool = (
            ThreadPoolExecutor(at_once, "member", torch.set_num_threads, (threads // at_once,))
            if at_once > 1
            else None
        )

    def map(self, function: Callable[..., _T], *arguments: Iterable[Any]) -> list[_T]:
        """Return `function` of each network's arguments, in their order."""
        run = map if self._pool is None else self._pool.map
        return list(run(function, *arguments))
