"""What the allocator does with memory that a training step frees: the next step asks for the same blocks again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed() -> bool:
    """Have glibc keep freed blocks of any size; False where another library allocates, which nothing changes.

    It gives blocks over 32 MB back to the system at once, and each step paid for them with 100,000 page faults.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
