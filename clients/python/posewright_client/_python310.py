"""What Python 3.10 lacks, from the packages that have it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
    from typing import Self, Unpack
else:
    from async_timeout import timeout
    from typing_extensions import Self, Unpack

__all__ = ["Self", "Unpack", "timeout"]
