"""Who may use sources: callers with a key, and pages of this server, where the operator allows sources."""

from __future__ import annotations

from pathlib import Path

from websockets.sync.client import connect

from service.settings import Settings
from service.streaming.close import CloseCode
from tests import cameras
from tests.conftest import Running, serving
from tests.sources import add
from tests.streaming import hear, hear_goodbye, hear_until, say

KEY = "camera-operator-0123456789"


def test_pages_of_other_sites_may_not_let_the_server_open_anything(running: Running) -> None:
    headers = {"Origin": "https://evil.example"}
    response = running.http.post("/sources", json={"url": "http://127.0.0.1/"}, headers=headers)
    assert (response.status_code, response.json()["type"]) == (403, "/problems/source-forbidden")
    source = add(running, f"http://127.0.0.1:{cameras.free_port()}/")
    for method, path in [("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")]:
        assert running.http.request(method, f"/sources/{source}{path}", headers=headers).status_code == 403
    url = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
    with connect(url, origin="https://evil.example") as connection:  # type: ignore[arg-type] # the package's own alias of str
        hear_goodbye(connection, CloseCode.POLICY_VIOLATION)
    assert running.http.get(f"/sources/{source}", headers={"Origin": running.url}).status_code == 200


def test_sources_are_off_by_default(server: Running) -> None:
    for method, path in [
        ("GET", "/sources"), ("POST", "/sources"), ("GET", "/sources/x"), ("DELETE", "/sources/x"),
        ("POST", "/sources/x/pause"), ("POST", "/sources/x/resume"),
    ]:  # fmt: skip
        response = server.http.request(method, path, json={"url": "http://127.0.0.1/"} if method == "POST" else None)
        assert response.status_code == 403, (method, path)
        assert "--source-hosts" in response.json()["detail"]
    with connect(server.url.replace("http", "ws") + "/sources/x/stream") as connection:
        hear_goodbye(connection, CloseCode.FORBIDDEN)


def test_sources_and_their_viewers_need_a_key(models_dir: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"operator:{KEY}\n")
    with serving(Settings(models_dir=models_dir, source_hosts=("127.0.0.1",), api_keys_file=keys)) as running:
        url = f"http://127.0.0.1:{cameras.free_port()}/"
        assert running.http.post("/sources", json={"url": url}).status_code == 401
        running.http.headers["X-API-Key"] = KEY
        source = add(running, url)
        stream = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
        with connect(stream) as connection:
            hear_goodbye(connection, CloseCode.UNAUTHORIZED)
        with connect(stream, additional_headers={"X-API-Key": KEY}) as connection:
            say(connection, type="hello")
            assert hear(connection)["type"] == "ready"
            keys.write_text("other:other-operator-0123456789\n")
            bye = hear_until(connection, lambda it: it["type"] == "bye")[-1]
            assert bye["code"] == CloseCode.UNAUTHORIZED
