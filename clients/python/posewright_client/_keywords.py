"""Refuses unknown options, and names those that the caller may have meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def require_known(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse options that do not exist.

    Args:
        call: Name of the method.
        given: Names of the options that the caller gave.
        known: Names of the options that exist.

    Raises:
        TypeError: An option does not exist; the message has the names that are most like it, and all others.
    """
    for name in given:
        if name in known:
            continue
        near = [repr(it) for it in get_close_matches(name, known, n=2)]
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise TypeError(f"{call}() has no option {name!r}{meant} Its options are {', '.join(sorted(known))}")
