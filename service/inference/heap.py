"""The heap of glibc's malloc."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def return_freed_memory() -> None:
    """Return the free pages of the heap to the system; glibc itself returns only those at its end.

    A model that is loaded beside calls leaves gaps between their buffers, and its successor fits into few of them.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, such as musl
            ctypes.CDLL(None).malloc_trim(0)
