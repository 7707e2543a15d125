"""The other environment of these tests: Python 3.10, the client, and large libraries that use it.

The variable POSEWRIGHT_PYTHON310 names its interpreter; `.ci/run` makes it. FiftyOne and the server exclude each
other's versions of OpenCV and Starlette, so that they cannot share an environment.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PYTHON310 = os.environ.get("POSEWRIGHT_PYTHON310")


def environment(**variables: str) -> dict[str, str]:
    """Environment variables with which only installed packages are found."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables


def run(folder: Path, *arguments: str, **variables: str) -> str:
    """Run the interpreter in a folder; returns what it printed."""
    command = [str(PYTHON310), *arguments]
    result = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def skip_without(library: str) -> None:
    """Skip the test if the environment or the library in it is missing."""
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
    if PYTHON310 is None or subprocess.run([PYTHON310, "-c", script], check=False).returncode:
        pytest.skip(f"needs {library} in the Python that POSEWRIGHT_PYTHON310 names")
