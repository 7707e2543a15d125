"""The page's files as HTTP serves them; no browser needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Running

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "service" / "web"


def test_the_module_is_the_one_that_the_page_uses(server: Running) -> None:
    assert b"export class Posewright" in server.http.get("/posewright.js").content
    assert server.http.get("/posewright.js").content == server.http.get("/web/posewright.js").content


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/posewright.js", "javascript"),
        ("/web/page.css", "text/css"),
        ("/web/icon.svg", "svg"),
        ("/docs", "text/html"),
        ("/docs/swagger-ui-bundle.js", "javascript"),
        ("/docs/swagger-ui.css", "text/css"),
    ],
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


def test_the_pages_may_use_nothing_from_elsewhere(server: Running) -> None:
    for page in map(server.http.get, ("/", "/docs")):
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        assert "http" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
    for path in sorted(WEB.iterdir()):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)  # comments may show addresses
        assert not re.findall(r"""(?:src|href|from|import)\s*[=(]?\s*["'](?:https?:)?//""", text), path.name
        assert " style=" not in text, f"{path.name}: the policy forbids inline styles"


def test_every_part_that_the_page_names_is_there(server: Running) -> None:
    for path in ("/", "/docs"):
        names = set(re.findall(r'(?:src|href)="(?:\./)?([^"#]+)"', server.http.get(path).text))
        assert len(names) >= 4
        for name in names:
            assert server.http.get("/" + name).status_code == 200


@pytest.mark.parametrize("folder", ["web", "docs"])
@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "..%2f__init__.py", "%2e%2e/page.py", "%00"])
def test_other_files_are_not_there(server: Running, folder: str, name: str) -> None:
    reply = server.http.get(f"/{folder}/{name}")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs TypeScript's compiler: npm install --global typescript")
def test_the_types_hold() -> None:
    files = [str(it) for it in sorted(WEB.glob("*.js"))]
    strictly = "--allowJs --checkJs --noEmit --strict --noUnusedLocals --noUnusedParameters"
    target = "--target es2022 --module es2022 --moduleResolution bundler"
    library = "--lib es2023,dom,dom.iterable,dom.asynciterable"
    command = ["tsc", *strictly.split(), *target.split(), *library.split(), *files]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
