"""The files for browsers, as HTTP serves them; no browser needed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.conftest import Running

ROOT = Path(__file__).parents[2]
WEB = ROOT / "service" / "web"
BROWSER_CLIENT = ROOT / "clients" / "browser" / "src"
ADDRESSES = ("posewright.js", "posewright-local.js")
"""Modules that pages of other sites import."""
FILES = sorted([*WEB.iterdir(), *BROWSER_CLIENT.glob("**/*.js")])
IMPORTED = re.compile(r"""^(?:import|export) [^"]*from "(.+)";$""", re.MULTILINE)


def modules_reached(server: Running, path: str) -> set[str]:
    """Paths of all modules that a browser loads for one module."""
    reached, open_paths = set(), [path]
    while open_paths:
        path = open_paths.pop()
        if path in reached:
            continue
        reached.add(path)
        reply = server.http.get(path)
        assert reply.status_code == 200, path
        assert "javascript" in reply.headers["content-type"]
        open_paths += [urljoin(path, name) for name in IMPORTED.findall(reply.text)]
    return reached


def test_other_sites_import_the_same_modules_as_the_page(server: Running) -> None:
    client = {f"/web/browser/{it.name}" for it in BROWSER_CLIENT.glob("*.js")}
    assert len(client) >= 8
    assert modules_reached(server, "/posewright.js") == client | {"/posewright.js"}
    page = {f"/web/{it.name}" for it in WEB.glob("*.js")} - {"/web/docs.js", *(f"/web/{it}" for it in ADDRESSES)}
    assert modules_reached(server, "/web/page.js") == client | page, "a module that nothing imports is dead"
    local = {f"/web/browser/local/{it.name}" for it in BROWSER_CLIENT.glob("local/*.js")}
    assert modules_reached(server, "/posewright-local.js") - client == local | {"/posewright-local.js"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/posewright.js", "javascript"),
        ("/web/browser/client.js", "javascript"),
        ("/web/page.css", "text/css"),
        ("/web/icon.svg", "svg"),
        ("/docs", "text/html"),
        ("/docs/swagger-ui-bundle.js", "javascript"),
        ("/docs/swagger-ui.css", "text/css"),
    ],
)
def test_a_file_is_sent_once_and_then_revalidated(server: Running, path: str, kind: str) -> None:
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


def test_the_pages_load_nothing_from_other_hosts(server: Running) -> None:
    for page in map(server.http.get, ("/", "/docs")):
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        assert "http" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
    for path in FILES:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)  # comments may show addresses
        assert not re.findall(r"""(?:src|href|from|import)\s*[=(]?\s*["'](?:https?:)?//""", text), path.name
        assert " style=" not in text, f"{path.name}: the policy forbids inline styles"


def test_every_file_that_a_page_refers_to_exists(server: Running) -> None:
    for path in ("/", "/docs"):
        names = set(re.findall(r'(?:src|href)="(?:\./)?([^"#]+)"', server.http.get(path).text))
        assert len(names) >= 4
        for name in names:
            assert server.http.get("/" + name).status_code == 200


@pytest.mark.parametrize("folder", ["web", "web/browser", "web/browser/local", "docs"])
@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "..%2f__init__.py", "%2e%2e/page.py", "%00"])
def test_no_other_files_are_served(server: Running, folder: str, name: str) -> None:
    reply = server.http.get(f"/{folder}/{name}")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
