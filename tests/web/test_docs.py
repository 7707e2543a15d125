"""The API documentation at /docs in a real browser that reaches no other host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.settings import Settings
from tests.conftest import Running, serving
from tests.proxies import proxied
from tests.web.chrome import Tab

BACKEND = "backend.example"
OPERATIONS = "document.querySelectorAll('.opblock').length"


@pytest.fixture(scope="module", params=["bare", "behind a proxy"])
def url(server: Running, models_dir: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "bare":
        yield server.url
        return
    settings = Settings(models_dir=models_dir, root_path="/pose", allowed_hosts=(BACKEND,))
    with serving(settings) as running, proxied(running.url, "/pose", host=BACKEND) as it:
        yield it


@pytest.mark.slow
def test_every_operation_is_shown_and_can_be_executed(tab: Tab, server: Running, url: str) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    tab.open(url + "/docs", camera=None)
    tab.wait_for(f"{OPERATIONS} === {sum(map(len, paths.values()))}")
    for path in paths:
        assert path in tab.text("#viewer").replace("\u200b", "")
    tab.click("[id$='healthz_get'] button")
    tab.wait_for("document.querySelector('.try-out__btn') !== null")
    tab.click(".try-out__btn")
    tab.wait_for("document.querySelector('.execute') !== null")
    tab.click(".execute")
    tab.wait_for(
        "document.querySelector('.live-responses-table .response .response-col_status')?.innerText.startsWith('200')"
    )
    assert tab.faults() == []
    requested = {it for it in tab.addresses() if not it.startswith(("data:", "blob:"))}
    assert url + "/healthz" in requested
    assert {urlsplit(it).netloc for it in requested} == {urlsplit(url).netloc}
