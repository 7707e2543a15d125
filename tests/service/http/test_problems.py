"""The pages of the problem types, and their page in the documentation."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin

import pytest

from service.errors import ServiceError
from service.http.problem_types import PROBLEM_TYPES
from tests.conftest import Running

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "errors.md"


def test_the_documentation_is_up_to_date() -> None:
    """If this fails: python -m service.http.problems > docs/errors.md.

    A fresh interpreter shows that the page does not depend on what else is imported.
    """
    command = [sys.executable, "-X", "utf8", "-m", "service.http.problems"]
    written = subprocess.run(command, cwd=DOCUMENTATION.parents[1], capture_output=True, text=True, check=True)
    assert DOCUMENTATION.read_text("utf-8") == written.stdout


@pytest.mark.parametrize("kind", PROBLEM_TYPES, ids=lambda kind: kind.slug)
def test_every_problem_type_has_a_page_and_a_section(server: Running, kind: type[ServiceError]) -> None:
    response = server.http.get(f"/problems/{kind.slug}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    shown = html.unescape(re.sub("<[^>]+>", "", response.text))
    assert f"<h1>{kind.title}</h1>" in response.text
    assert f"<dd>{kind.status}</dd>" in response.text
    section = DOCUMENTATION.read_text("utf-8").partition(f"## {kind.slug}\n")[2].partition("\n## ")[0]
    for text in (kind.meaning, kind.advice):
        assert text in section
        assert text.replace("`", "") in shown
    for name, meaning in kind.fields.items():
        assert f"Field {name}\n{meaning.replace('`', '')}" in shown
        assert f"- `{name}`: {meaning}" in section


def test_a_subclass_does_not_inherit_the_text_of_its_parent() -> None:
    kinds = PROBLEM_TYPES
    for texts in ([kind.meaning for kind in kinds], [kind.advice for kind in kinds], [kind.title for kind in kinds]):
        assert len(set(texts)) == len(kinds)


def test_the_list_links_every_page(server: Running) -> None:
    response = server.http.get("/problems")
    links = re.findall(r'href="([^"]+)"', response.text)
    assert len(links) == len(PROBLEM_TYPES)
    for link in links:
        page = server.http.get(urljoin(str(response.url), link))
        assert page.status_code == 200
        (back,) = re.findall(r'href="([^"]+)"', page.text)
        assert urljoin(str(page.url), back) == str(response.url)


def test_unknown_problems_are_not_found(server: Running) -> None:
    response = server.http.get("/problems/unheard-of")
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
