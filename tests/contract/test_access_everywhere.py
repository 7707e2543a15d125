"""API keys, rate limits and model control together, on every door: who is refused how, and who meets the canary."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from service.inference.trial import position
from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.contract.test_canary import put
from tests.spots import SURE
from tests.streaming import connected, hear, say

KEYS = {name: f"{name}-0123456789abcdef" for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")}
PICTURE = spots.encode(spots.paint(SURE), "JPEG")
CONTROLS = [
    ("PUT", "/canary"),
    ("POST", "/canary/promote"),
    ("POST", "/canary/rollback"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/teacher/load"),
    ("POST", "/v2/repository/models/teacher/unload"),
    ("POST", "/v2/repository/models/teacher/rollback"),
]
DOORS = [*CONTROLS, ("GET", "/canary"), ("GET", "/metrics"), ("POST", "/v2/models/auto/infer"), ("GET", "/v2")]


@pytest.fixture(scope="module")
def guarded(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("doors") / "models"))
    spots.write_pose_bundle(folder, "candidate", "student", gain=3.9)
    keys = SecretStr(",".join(f"{name}:{key}" for name, key in KEYS.items()))
    settings = Settings(
        models_dir=folder, model_control="explicit", api_keys=keys, cors_origins=("*",), rate_limit_per_key="1000/day"
    )
    with serving(settings) as running:
        running.http.headers["X-API-Key"] = KEYS["alpha"]
        yield running


def refusal(running: Running, method: str, path: str, status: int, **headers: str) -> None:
    """Check that a call is refused in the form of its door, as the OpenAPI document says."""
    response = running.http.request(method, path, headers=headers)
    assert response.status_code == status, response.text
    kind = response.headers["content-type"]
    if path.startswith("/v2"):
        assert (kind, list(response.json())) == ("application/json", ["error"])
        schema = "InferenceError"
    else:
        assert (kind, response.json()["status"]) == ("application/problem+json", status)
        schema = "Problem"
    template = re.sub("/models/(teacher|auto)/", "/models/{name}/", path)
    operation = running.http.get("/openapi.json").json()["paths"][template][method.lower()]
    content = operation["responses"][str(status)]["content"]
    assert content == {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_a_wrong_key_is_refused_in_the_form_of_the_door(guarded: Running, method: str, path: str) -> None:
    refusal(guarded, method, path, 401, **{"X-API-Key": "wrong-0123456789abcdef"})


def test_every_route_reads_its_body_itself(guarded: Running) -> None:
    """The framework would read it before any check, and without any limit."""
    together = [getattr(it, "original_router", None) for it in guarded.app.routes]  # FastAPI keeps them together
    routes = [*guarded.app.routes, *(route for it in together if it is not None for route in it.routes)]
    found = [it for it in routes if isinstance(it, APIRoute)]
    assert {"/canary", "/predict", "/v2/repository/index"} <= {it.path for it in found}
    assert [it.path for it in found if it.body_field is not None] == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "https://evil.example:99999"])
def test_pages_of_other_sites_may_change_nothing_even_if_they_may_read(guarded: Running, origin: str) -> None:
    """Also with ``--cors-origins *``."""
    for method, path in CONTROLS:
        response = guarded.http.request(
            method, path, headers={"Origin": origin}, json={"model": "candidate", "share": 1} if method == "PUT" else {}
        )
        assert response.status_code == 403, (path, response.text)


def test_a_page_of_the_server_may_change_models(guarded: Running) -> None:
    for origin in (guarded.url, guarded.url.replace("http:", "https:")):
        assert guarded.http.post("/v2/repository/index", headers={"Origin": origin}).status_code == 200


def test_callers_over_the_limit_are_refused_in_the_form_of_the_door(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, model_control="explicit", rate_limit_per_address="1/day")
    with serving(settings) as running:
        assert running.predict(PICTURE, "image/jpeg").status_code == 200
        for method, path in DOORS:
            if method == "POST":
                refusal(running, method, path, 429)
        assert running.http.get("/canary").status_code == 200


def test_the_name_of_the_key_decides_who_meets_the_canary(guarded: Running) -> None:
    put(guarded, "candidate", 0.5)
    expected = {name: "candidate" if position("candidate", name) < 0.5 else "student-s" for name in KEYS}
    assert len(set(expected.values())) == 2
    for name, key in KEYS.items():
        headers = {"X-API-Key": key, "Content-Type": "image/jpeg"}
        reply = guarded.http.post("/predict", content=PICTURE, headers=headers).json()
        assert reply["model"]["name"] == expected[name], name
        with connected(guarded, additional_headers={"X-API-Key": key}) as connection:
            say(connection, type="hello")
            assert hear(connection)["model"]["name"] == expected[name], name
    users = {
        guarded.http.post(
            "/predict", content=PICTURE, headers={"Content-Type": "image/jpeg", "X-Canary-Key": f"user-{i}"}
        ).json()["model"]["name"]
        for i in range(12)
    }
    assert users == {"candidate", "student-s"}, "users behind one key are told apart by the header"
