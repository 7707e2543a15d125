"""The command line in-process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posewright_client.cli.main import main
from tests import spots
from tests.spots import SURE, UNSURE

Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    """Run ``posewright-client`` with arguments of any type; returns the exit status."""
    return lambda *arguments: main([str(it) for it in arguments])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(spots.encode(spots.paint(SURE, UNSURE), "JPEG"))
    return path
