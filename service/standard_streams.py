"""The process' standard streams: a log that nobody can write or read must not stop the server.

A disk may be full, the reader of a pipe may be gone, or it may stop reading: then lines of the log are lost, and the
server goes on.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FIRST_FREE = 3


@contextmanager
def protected() -> Iterator[None]:
    """Make the standard streams safe until the block ends.

    - A stream that is closed is opened as ``/dev/null``: otherwise a socket could get its number, and libraries in C,
      which print warnings to standard error, would write into an answer.
    - A pipe does not block: a write that finds it full is dropped.
    - At the end, what cannot be flushed is dropped, because Python would turn it into a failed exit status.
    """
    _open_closed()
    if sys.stdout is None or sys.stderr is None:  # Python's own view of streams that were closed at its start
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open to the end
    pipes = [number for number in (1, 2) if _is_blocking_pipe(number)]
    for number in pipes:
        os.set_blocking(number, False)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drop_unwritten(stream)
        for number in pipes:
            os.set_blocking(number, True)


def announce(line: str) -> None:
    """Print a line to standard output, if it can be written."""
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        print(line, flush=True)


def _open_closed() -> None:
    while (number := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:
        pass  # the lowest free number: one of the standard streams'
    os.close(number)


def _is_blocking_pipe(number: int) -> bool:
    return sys.platform != "win32" and stat.S_ISFIFO(os.fstat(number).st_mode) and os.get_blocking(number)


def _drop_unwritten(stream: object) -> None:
    try:
        stream.flush()  # type: ignore[attr-defined] # a text stream
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
            os.close(nothing)
