"""The structure of the code, read from the code itself: ``python -m tests.house`` (``make house``) prints it.

A *room* is a folder directly inside ``service`` or ``training``. Imports inside functions count as well.
"""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "training", "clients/python")
SERVICE_ROOMS = ("cluster", "http", "sources", "jobs", "video", "streaming", "wire", "inference", "pose")
"""A room may import itself and those after it."""
TRAINING_STEPS = (
    ("cli",),
    ("adapt", "evaluation", "export", "onnx", "synthetic"),
    ("distillation",),
    ("engine",),
    ("networks", "data"),
    ("recipe",),
)
"""A room may import itself, its neighbours on the same step (never in a circle), and the steps after its own."""


def sources() -> list[Path]:
    """All Python files of the packages, in order."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    """``service/pose/crop.py`` is ``service.pose.crop``; a package is named without ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[:2] == ("clients", "python"):
        parts = parts[2:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module, or name of a module, that a file imports.

    Raises:
        SyntaxError: The file imports relatively; this project does not.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise SyntaxError(f"{path}: expected absolute imports, got a relative one")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports."""
    files = {module_name(path): path for path in sources()}

    def resolve(name: str) -> str | None:
        return name if name in files else name.rpartition(".")[0] if name.rpartition(".")[0] in files else None

    return {
        module: {found for name in imports(path) if (found := resolve(name)) and found != module}
        for module, path in files.items()
    }


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A circle of nodes that import each other, its first node repeated at its end; empty where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def room(module: str) -> str | None:
    """``service.http`` of ``service.http.routes``; None for files that lie in no room."""
    parts = module.split(".")
    is_package = (ROOT / Path(*parts)).is_dir()
    return ".".join(parts[:2]) if len(parts) > 2 or (len(parts) == 2 and is_package) else None


def room_graph() -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    arrows: dict[str, set[str]] = {}
    for module, targets in graph().items():
        if here := room(module):
            arrows.setdefault(here, set()).update(there for it in targets if (there := room(it)) and there != here)
    return arrows


def main() -> None:
    """Print the largest files, the size of each folder, the arrows between rooms, and a circle if there is one."""
    lines = {path: len(path.read_text().splitlines()) for path in sources()}
    print("Largest files")
    for path in sorted(lines, key=lambda it: -lines[it])[:10]:
        print(f"  {lines[path]:5}  {path.relative_to(ROOT)}")
    files, sizes = Counter[Path](), Counter[Path]()
    for path, count in lines.items():
        files[path.parent] += 1
        sizes[path.parent] += count
    print("Files and lines in each folder")
    for folder in sorted(files):
        print(f"  {files[folder]:5} {sizes[folder]:6}  {folder.relative_to(ROOT)}")
    print("Rooms and what they import")
    for here, targets in sorted(room_graph().items()):
        print(f"  {here} -> {', '.join(sorted(targets)) or '-'}")
    for kind, arrows in (("files", graph()), ("rooms", room_graph())):
        print(f"Circle of {kind}: {' -> '.join(circle(arrows)) or 'none'}")


if __name__ == "__main__":
    main()
