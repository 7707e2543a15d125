"""When the browser client repeats a call: against servers that refuse, break off, or limit the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware

from service.settings import Settings
from tests.client.hosts import Scripted, free_address, hosting
from tests.client.replies import PREDICTION, problem
from tests.conftest import serving
from tests.spots import SURE
from tests.web.browser_scripts import BOTH, packed, run
from tests.web.chrome import Tab

FULL = (503, {"retry-after": "0"}, problem("queue-full", 503))
RATE = (429, {"retry-after": "0"}, problem("rate-limited", 429))
BAD = (422, {}, problem("bad-parameter", 422))
GATEWAY = (502, {"content-type": "text/html"}, b"<h1>Bad Gateway</h1>")
GOOD = (200, {}, PREDICTION)
CUT = (200, {}, b'{"poses": [')
QUICK = "const other = new Posewright(b, { retries: { backoffMs: 2, maxBackoffMs: 4, ...c } });"
PREDICT = "return await other.predict(blobOf(a)).then(({ id }) => id, (it) => [it.status, it.slug]);"

Host = Callable[[list[Any]], tuple[str, list[Any]]]


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, Scripted]]:
    app = Scripted([GOOD])
    open_to_all = CORSMiddleware(
        app, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["Retry-After"]
    )
    with hosting(open_to_all) as url:
        yield url, app


@pytest.fixture
def scripted(host: tuple[str, Scripted]) -> Host:
    """Make the server send these replies; returns its URL and the list of received requests."""
    url, app = host

    def play(replies: list[Any]) -> tuple[str, list[Any]]:
        app.replies, app.requests = replies, []
        return url, app.requests

    return play


@pytest.mark.parametrize(
    ("replies", "options", "outcome", "calls"),
    [
        ([FULL, RATE, GATEWAY, GOOD], {}, PREDICTION["id"], 4),
        ([FULL], {}, [503, "queue-full"], 4),
        ([FULL, GOOD], {"attempts": 1}, [503, "queue-full"], 1),
        ([BAD, GOOD], {}, [422, "bad-parameter"], 1),
        ([(503, {"retry-after": "3600"}, problem("not-ready", 503)), GOOD], {}, [503, "not-ready"], 1),
        ([(500, {}, problem("internal", 500)), GOOD], {}, [500, "internal"], 1),
        ([CUT, GOOD], {}, [0, "unreachable"], 1),
    ],
    ids=["until-it-works", "bounded", "none-wanted", "final", "longer-than-budget", "failed-server", "begun"],
)
def test_what_may_pass_is_repeated(
    blank_page: Tab, scripted: Host, replies: list[Any], options: dict[str, Any], outcome: Any, calls: int
) -> None:
    url, requests = scripted(replies)
    assert run(blank_page, QUICK + PREDICT, packed(BOTH), url, options) == outcome
    assert len(requests) == calls
    assert len({it["body"] for it in requests}) == 1


def test_a_broken_connection_is_repeated_as_often(blank_page: Tab) -> None:
    body = QUICK + "globalThis.fetches = 0; const { fetch } = globalThis;"
    body += "globalThis.fetch = (...it) => { fetches += 1; return fetch(...it); };"
    body += "const outcome = await other.models().catch((it) => it.slug); return [outcome, fetches];"
    assert run(blank_page, body, None, free_address(), {"attempts": 3}) == ["unreachable", 3]


def test_aborting_ends_the_wait(blank_page: Tab, scripted: Host) -> None:
    url, requests = scripted([(503, {"retry-after": "20"}, problem("queue-full", 503))])
    body = QUICK + "const signal = AbortSignal.timeout(200);"
    body += "return await other.predict(blobOf(a), { signal }).catch((it) => it.name);"
    assert run(blank_page, body, packed(BOTH), url, {}) == "TimeoutError"
    assert len(requests) == 1


def test_ready_asks_once(blank_page: Tab, scripted: Host) -> None:
    url, requests = scripted([FULL, (500, {}, problem("internal", 500))])
    body = QUICK + "return [await server.ready(), await other.ready(), await other.ready().catch((it) => it.status)];"
    assert run(blank_page, body, None, url, {}) == [True, False, 500]
    assert len(requests) == 2


def test_a_call_over_the_rate_limit_waits_for_its_turn(tab: Tab, models_dir: Any) -> None:
    with serving(Settings(models_dir=models_dir, rate_limit_per_address="2/second")) as server:
        tab.open(server.url + "/healthz")
        body = """const impatient = new Posewright(undefined, { retries: { attempts: 1 } });
        const refused = await Promise.all(
          [1, 2, 3].map(() => impatient.predict(blobOf(a)).then(() => 0, (it) => it.status)));
        const answered = await Promise.all([1, 2].map(() => server.predict(blobOf(a))));
        return [refused.includes(429), answered.map((it) => it.poses[0].keypoints[0].x)];"""
        limited, noses = run(tab, body, packed(BOTH))
        assert limited
        assert noses == pytest.approx([SURE.keypoints[0, 0]] * 2, abs=1.5)
