"""The page's files as HTTP serves them; no browser needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Running

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "clients" / "browser" / "posewright.js"
WEB = ROOT / "service" / "web"


def test_the_module_is_the_one_of_the_clients(server: Running) -> None:
    for path in ("/posewright.js", "/web/posewright.js"):
        assert server.http.get(path).content == SOURCE.read_bytes()


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/posewright.js", "javascript"), ("/web/page.css", "text/css"), ("/web/icon.svg", "svg")],
)
def test_a_file_is_sent_once_and_asked_for_again(server: Running, path: str, kind: str) -> None:
    first = server.http.get(path)
    assert first.status_code == 200
    assert kind in first.headers["content-type"]
    assert first.headers["cache-control"] == "no-cache"
    again = server.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    head = server.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))


def test_the_page_may_use_nothing_from_elsewhere(server: Running) -> None:
    page = server.http.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in sorted(WEB.iterdir()):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)  # comments may show addresses
        assert not re.findall(r"""(?:src|href|from|import)\s*[=(]?\s*["'](?:https?:)?//""", text), path.name
        assert " style=" not in text, f"{path.name}: the policy forbids inline styles"


def test_every_part_that_the_page_names_is_there(server: Running) -> None:
    names = set(re.findall(r'(?:src|href)="(web/[^"]+)"', server.http.get("/").text))
    assert len(names) >= 4
    for name in names:
        assert server.http.get("/" + name).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "%2e%2e/page.py", "%00"])
def test_other_files_are_not_there(server: Running, name: str) -> None:
    reply = server.http.get(f"/web/{name}")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs TypeScript's compiler: npm install --global typescript")
def test_the_types_hold() -> None:
    files = [str(it) for it in sorted(WEB.glob("*.js"))]
    strictly = "--allowJs --checkJs --noEmit --strict --noUnusedLocals --noUnusedParameters --preserveSymlinks"
    target = "--target es2022 --module es2022 --moduleResolution bundler"
    library = "--lib es2023,dom,dom.iterable,dom.asynciterable"
    command = ["tsc", *strictly.split(), *target.split(), *library.split(), *files]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
