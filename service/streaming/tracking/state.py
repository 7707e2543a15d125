"""The state of tracking as plain values that JSON holds exactly, so that a video job goes on after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def pack(record: Any) -> dict[str, Any]:
    """Turn a dataclass of numbers and arrays into plain values: float32 survives the way through JSON's doubles."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {
        name: {"dtype": value.dtype.name, "shape": value.shape, "values": value.ravel().tolist()}
        if isinstance(value, np.ndarray)
        else value
        for name, value in values.items()
    }


def unpack(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from what `pack` returned.

    Raises:
        ValueError: The values are not of this dataclass.
    """
    try:
        return kind(
            **{
                name: np.array(value["values"], value["dtype"]).reshape(value["shape"])
                if isinstance(value, dict)
                else value
                for name, value in values.items()
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected the values of a {kind.__name__}, got others: {error}") from error
