"""Headers that every response has, whatever it answers."""

from __future__ import annotations

import pytest

from tests import spots
from tests.conftest import Running

PICTURE = spots.encode(spots.paint(spots.SURE))


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("GET", "/healthz", 200, {}),
        ("HEAD", "/readyz", 200, {}),
        ("GET", "/models", 200, {}),
        ("GET", "/metrics", 200, {}),
        ("GET", "/openapi.json", 200, {}),
        ("POST", "/predict", 200, {"Content-Type": "image/png"}),
        ("POST", "/predict", 200, {"Content-Type": "image/png", "Accept": "image/jpeg"}),
        ("POST", "/predict?max_people=x", 422, {"Content-Type": "image/png"}),
        ("POST", "/predict", 415, {"Content-Type": "text/plain"}),
        ("GET", "/nowhere", 404, {}),
        ("GET", "/web/nothing.js", 404, {}),
        ("DELETE", "/predict", 405, {}),
        ("GET", "/docs/", 307, {}),
        ("GET", "/models", 421, {"Host": "evil.example"}),
        ("GET", "/", 200, {}),
        ("GET", "/docs", 200, {}),
        ("GET", "/problems", 200, {}),
        ("GET", "/problems/not-found", 200, {}),
        ("GET", "/posewright.js", 200, {}),
        ("GET", "/docs/swagger-ui-bundle.js", 200, {}),
    ],
)
def test_every_response_has_each_header_once(
    server: Running, method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    content = PICTURE if method == "POST" else None
    reply = server.http.request(method, path, headers=headers, content=content)
    assert reply.status_code == status
    assert reply.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert reply.headers.get_list("Referrer-Policy") == ["no-referrer"]
    assert reply.headers.get_list("Cross-Origin-Resource-Policy") == ["same-origin"]
    (policy,) = reply.headers.get_list("Content-Security-Policy")
    assert "frame-ancestors" in policy
    assert "script-src" not in policy, "default-src 'self' holds: no inline script"
    if "text/html" in reply.headers.get("Content-Type", ""):
        assert policy.startswith("default-src 'self';")
    assert "Strict-Transport-Security" not in reply.headers
    assert "Server" not in reply.headers


def test_a_page_that_is_sent_again_has_them_too(server: Running) -> None:
    etag = server.http.get("/").headers["ETag"]
    again = server.http.get("/", headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert again.headers["X-Content-Type-Options"] == "nosniff"
