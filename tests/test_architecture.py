"""Who may import whom: `CONTRIBUTING.md`, "The house". The rules' tables are in `tests.house`."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import house

ROOT = house.ROOT
WIRING = ("service.app", "service.cli", "service.__main__")
"""They put the rooms together, so they may import any."""
RUNTIME_FREE_OF = {"torch", "training", "pycocotools", "onnx"}
POSE_FREE_OF = {"fastapi", "starlette", "uvicorn"}
LEAVES = {"service": {"service.settings", "service.setting_types", "service.errors"}, "training": {"training.files"}}
"""Files outside the rooms that every room may import."""
CONVERTERS = ("service.jobs.export", "posewright_client")
"""The one file of the service that imports another distribution of ours, and that one: the client's converters write
the results of jobs in other tools' formats, and they exist once. The file is a program of its own, the package
optional."""


def allowed_rooms(room: str) -> set[str]:
    """The rooms that a room may import, itself included."""
    package, name = room.split(".")
    if package == "service":
        return {f"service.{it}" for it in house.SERVICE_ROOMS[house.SERVICE_ROOMS.index(name) :]}
    step = next(i for i, names in enumerate(house.TRAINING_STEPS) if name in names)
    return {f"training.{it}" for names in house.TRAINING_STEPS[step:] for it in names} | {"service.pose"}


def offences(module: str, targets: set[str]) -> list[str]:
    """Imports of ours that the rules forbid."""
    here, package = house.room(module), module.split(".", maxsplit=1)[0]
    found = []
    for target in sorted(targets):
        there = house.room(target)
        if module == CONVERTERS[0] and target.startswith(CONVERTERS[1]):
            fits = True
        elif package not in {"service", "training"}:
            fits = target.startswith(package)
        elif module in WIRING or package == target:
            fits = target.startswith("service")
        elif here is None:
            fits = target.startswith(package) or there == "service.pose"
        elif there is None:
            runs_the_application = here == "service.cluster" and target in {*WIRING, "service.logs"}
            fits = runs_the_application or (target in LEAVES[package] and here != "service.pose")
        else:
            fits = there in allowed_rooms(here)
        if not fits:
            found.append(f"{module} must not import {target}")
    return found


def test_imports_go_down_the_rooms_only() -> None:
    arrows = house.graph()
    assert len(arrows) > 200
    assert [told for module, targets in arrows.items() for told in offences(module, targets)] == []


def test_no_file_and_no_room_is_in_a_circle() -> None:
    assert house.circle(house.graph()) == []
    assert house.circle(house.room_graph()) == []


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name
        for path in house.sources()
        if path.relative_to(ROOT).parts[0] != "clients"  # a distribution of its own mirrors names of the wire
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert len(names) > 200
    assert [name for name, count in names.items() if count > 1] == []


def test_the_runtime_needs_no_training_libraries() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        outside = {name.split(".")[0] for name in house.imports(path)}
        forbidden = RUNTIME_FREE_OF | (POSE_FREE_OF if "pose" in path.relative_to(ROOT).parts else set())
        assert not outside & forbidden, path


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("service.inference.predict", "service.http.routes"),
        ("service.pose.crop", "service.settings"),
        ("training.engine.loop", "training.export.to_onnx"),
        ("training.data.coco", "service.inference.image"),
        ("posewright_client", "service.wire"),
        ("service.jobs.work", "posewright_client.formats"),
        ("service.jobs.export", "service.http.routes"),
    ],
)
def test_the_rules_catch_an_offender(module: str, target: str) -> None:
    assert offences(module, {target}) == [f"{module} must not import {target}"]


def test_imports_inside_functions_and_circles_are_seen(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from training import loop\n")
    assert house.imports(tmp_path / "x.py") == {"training.loop"}
    assert set(house.circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("module", ["service.pose.estimator", "service.app", "service.cli"])
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
