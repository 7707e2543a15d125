"""Keeps the memory that a training step frees, because the next step needs blocks of the same sizes."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Constants of glibc's malloc.h."""


def keep_freed() -> bool:
    """Tell glibc to keep freed blocks of any size; returns False, and does nothing, with another C library.

    By default it returns blocks over 32 MB to the system, and every step would pay for them with page faults.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
