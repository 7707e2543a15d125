"""Who may import whom: `CONTRIBUTING.md`, "The house"."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("service", "training", "clients", "posewright_client", "tests")
# From the most special to the most general: the first prefix that fits a module decides.
ALLOWED = {
    "service.pose": ("service.pose",),
    "service": ("service",),
    "training": ("training", "service.pose"),
    "clients.python": ("posewright_client",),
}
RUNTIME_FREE_OF = {"torch", "training", "pycocotools", "onnx"}


def modules() -> list[Path]:
    return sorted(p for package in ("service", "training", "clients/python") for p in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_rule(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    allowed = next(targets for package, targets in ALLOWED.items() if inside(name, package))
    for module in imports(path):
        if module.split(".")[0] in OURS:
            assert any(inside(module, target) for target in allowed), f"{name} must not import {module}"
        if inside(name, "service"):
            assert module.split(".")[0] not in RUNTIME_FREE_OF, f"{name} must not need {module}"
        if inside(name, "service.pose"):
            assert module.split(".")[0] not in {"fastapi", "starlette", "uvicorn"}, f"{name} must not need {module}"


def test_the_rule_catches_an_offender(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from training import loop\n")
    assert imports(tmp_path / "x.py") == {"training.engine.loop"}


@pytest.mark.parametrize("module", ["service.pose.estimator", "service.app", "service.__main__"])
def test_importing_the_runtime_loads_no_torch(module: str) -> None:
    script = f"import sys, {module}; print(sorted(set(sys.modules) & {RUNTIME_FREE_OF | {'PIL', 'skimage'}!r}))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_no_tracked_file_is_a_link() -> None:
    """Git for Windows checks links out as small texts."""
    command = ["git", "ls-files", "--stage"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    files = listed.stdout.splitlines()
    assert len(files) > 100
    assert [line for line in files if line.startswith("120000")] == []
