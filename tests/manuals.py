"""The manuals as tests read them: pages, code blocks, inline code, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + [
    *DOCS,
    ROOT / "clients" / "python" / "README.md",
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    kind: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *kinds: str) -> list[Block]:
    """Fenced blocks of these kinds; "" is a fence that names none."""
    found = [Block(name_of(page), kind, text) for kind, text in _FENCE.findall(page.read_text())]
    return [block for block in found if block.kind in kinds]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    return [" ".join(it.split()) for it in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(page: Path, program: str) -> list[list[str]]:
    """Arguments of every call of a program in the shell blocks of a page; ``$P`` is posewright-train."""
    found = []
    for block in blocks(page, "", "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in line.replace("$P ", "posewright-train ").split("&&"):
                words = shlex.split(part, comments=True)
                if words and "=" not in words[0] and Path(words[0]).name == program:
                    found.append(words[1:])
    return found
