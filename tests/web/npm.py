"""Packages of npm for tests: installed into a folder of their own, or the test is skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PATIENCE_S = 300
TYPESCRIPT = "typescript@7.0.2"
ONNXRUNTIME_WEB = "onnxruntime-web@1.30.0"
AXE = "axe-core@4.14.1"


def npm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run npm in a folder."""
    path = shutil.which("npm")
    if path is None:
        pytest.skip("needs Node.js with npm: apt-get install nodejs npm")
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    return subprocess.run(
        [path, *arguments, *quiet], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def install(folder: Path, *packages: str) -> Path:
    """Install packages into ``folder/node_modules``; returns it. Skips the test where npm has no access to them."""
    done = npm(folder, "install", "--save-exact", "--ignore-scripts", *packages)
    if done.returncode and any(sign in done.stderr for sign in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT")):
        pytest.skip(f"needs npm's registry: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder / "node_modules"
