"""The process keeps freed memory blocks."""

import subprocess
import sys

import pytest

from training.engine import allocator

CODE = """
import resource
import numpy as np
from training.engine import allocator
kept = {keep} and allocator.keep_freed()
np.ones(16 * 1024**2, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(16 * 1024**2, np.float32)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> tuple[str, int]:
    """Allocate four blocks of 64 MB in another process; returns whether blocks are kept, and the page faults."""
    answer = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], check=True, capture_output=True, text=True)
    kept, count = answer.stdout.split()
    return kept, int(count)


def test_freed_blocks_of_any_size_are_reused() -> None:
    kept, count = faults(keep=True)
    if kept == "False":
        pytest.skip("the allocator is not glibc's")
    assert 10 * count < faults(keep=False)[1]


def test_nothing_changes_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed()
