"""The heap of glibc's malloc, where models are loaded again and again beside calls."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_ARENA_MAX = -8
"""Name of the option in glibc's malloc.h."""


def use_one_arena() -> None:
    """Let all threads share one arena, before they begin.

    By default there are eight for each core, and each keeps the gaps that models leave. Threads are faster with arenas
    of their own, so this is for servers whose models change.
    """
    _call("mallopt", _M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return the free pages of the heap to the system; glibc itself returns only those at its end.

    A model that is loaded beside calls leaves gaps between their buffers, and its successor fits into few of them.
    """
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, such as musl
            getattr(ctypes.CDLL(None), name)(*arguments)
