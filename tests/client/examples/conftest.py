"""The programs of ``clients/python/examples``, as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[3] / "clients" / "python" / "examples"
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def load() -> Iterator[Load]:
    """Import an example by its name."""
    loaded: dict[str, ModuleType] = {}

    def by_name(name: str) -> ModuleType:
        if name in loaded:
            return loaded[name]
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded[name] = module
        spec.loader.exec_module(module)
        return module

    yield by_name
    for module in loaded.values():
        del sys.modules[module.__name__]
