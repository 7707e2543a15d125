"""The page, the API documentation and the browser client of a server that asks for an API key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.conftest import Running, serving
from tests.streaming import eventually
from tests.web.browser_scripts import BOTH, packed, run
from tests.web.chrome import Tab

KEY, OTHER = "page-key-0123456789", "other-key-0123456789"
ASKED = "!document.querySelector('#key-form').hidden"
ROWS = "document.querySelectorAll('#people tbody tr').length"


@pytest.fixture(scope="module")
def guarded(models_dir: Path) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, api_keys=SecretStr(f"page:{KEY}"))) as running:
        yield running


def enter(tab: Tab, key: str) -> None:
    tab.call("(key) => { document.querySelector('#key').value = key; }", key)
    tab.click("#key-form button")


def test_the_page_asks_for_a_key_and_uses_it_for_calls_and_streams(tab: Tab, guarded: Running, picture: Path) -> None:
    tab.open(guarded.url + "/")
    tab.wait_for(ASKED)
    assert "asks for an API key" in tab.text("#key-form")
    enter(tab, OTHER)
    tab.wait_for(f"{ASKED} && document.querySelector('#key-hint').textContent.includes('does not accept')")
    enter(tab, KEY)
    tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
    tab.choose("#file", picture)
    tab.wait_for(f"{ROWS} === 2")
    tab.click("#camera")
    tab.wait_for("Number(document.querySelector('#answered').textContent) >= 3")
    # The key stays for this tab only, and never in an address.
    assert tab.run("sessionStorage.getItem('posewright-api-key')") == KEY
    assert tab.run("localStorage.length") == 0
    assert not [it for it in tab.addresses() if KEY in it]
    tab.open(guarded.url + "/")
    tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
    eventually(lambda: guarded.open_streams == 0)


def test_the_browser_client_sends_the_key_and_takes_a_refusal_as_final(tab: Tab, guarded: Running) -> None:
    page = tab.open(guarded.url + "/healthz")
    script = """
      const source = await canvasOf(blobOf(a));
      const outcomes = [];
      for (const key of [b, c, undefined, "with space and ü"]) {
        const server = new Posewright(undefined, { key });
        const states = [];
        const call = await server.predict(source).then((it) => it.poses.length, fieldsOf);
        const stream = server.stream(source, { onState: (state) => states.push(state) });
        const ended = await outcomeOf(stream);
        outcomes.push([call, ended.poses?.length ?? ended, states]);
      }
      return outcomes;
    """
    accepted, *refused = run(page, script, packed(BOTH), KEY, OTHER)
    assert accepted[:2] == [2, 2]
    assert len(refused) == 3
    for call, stream, states in refused:
        assert (call["status"], stream["status"]) == (401, 401)
        assert states == ["connecting", "closed"], "another attempt would end in the same way"
    assert [it[1]["slug"] for it in refused] == ["unauthorized", "unauthorized", "bad-key"]


def test_the_documentation_has_a_button_for_the_key(tab: Tab, guarded: Running) -> None:
    tab.open(guarded.url + "/docs", camera=None)
    tab.wait_for("document.querySelector('.btn.authorize') !== null")
    assert tab.faults() == []
