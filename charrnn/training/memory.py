"""Keeping freed memory for the next step."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`."""
LARGEST = 32 << 20
"""The largest value, in bytes, that glibc takes for the mmap threshold."""


def keep_freed_memory() -> None:
    """Ask the C library not to give freed memory back to the system.

    Every step allocates and frees the same few arrays of some megabytes. glibc maps arrays of
    this size anew each time, and the system fills every page with zeros when it is first touched:
    more than a quarter of the time of a step with 384 units and 32 lanes. Nothing happens where
    the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2 * LARGEST)
