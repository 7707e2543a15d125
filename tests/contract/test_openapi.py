"""The OpenAPI document describes the routes."""

from __future__ import annotations

import re

from service.wire.query import Options
from tests.conftest import Running


def test_every_reference_resolves_and_every_route_is_described(server: Running) -> None:
    response = server.http.get("/openapi.json")
    document = response.json()

    assert document["openapi"].startswith("3.1")
    for name in re.findall(r'"#/components/schemas/([^"]+)"', response.text):
        assert name in document["components"]["schemas"]
    assert sorted(document["paths"]) == [
        "/canary", "/canary/promote", "/canary/rollback", "/compare", "/healthz", "/jobs", "/jobs/{job_id}",
        "/jobs/{job_id}/cancel", "/jobs/{job_id}/result", "/metrics", "/models",
        "/models/{name}", "/models/{name}/manifest.json", "/models/{name}/model.onnx", "/predict", "/predict/batch",
        "/readyz", "/sources", "/sources/{source_id}", "/sources/{source_id}/pause", "/sources/{source_id}/resume",
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{name}", "/v2/models/{name}/infer",
        "/v2/models/{name}/ready", "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/infer", "/v2/models/{name}/versions/{version}/ready",
        "/v2/repository/index", "/v2/repository/models/{name}/load", "/v2/repository/models/{name}/rollback",
        "/v2/repository/models/{name}/unload",
    ]  # fmt: skip
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["description"]
            assert "HTTPValidationError" not in str(operation)


def test_predict_has_its_body_types_parameters_replies_and_problems(server: Running) -> None:
    operation = server.http.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "image/jpeg", "image/png", "image/webp", "multipart/form-data", "application/json",
    }  # fmt: skip
    assert {parameter["name"] for parameter in operation["parameters"]} == set(Options.model_fields)
    assert all(parameter["description"] for parameter in operation["parameters"])
    responses = operation["responses"]
    assert set(responses["200"]["content"]) == {"application/json", "image/jpeg", "image/png", "text/csv"}
    assert set(responses) == {"200", "400", "404", "406", "408", "413", "415", "422", "503", "504"}
    for status in set(responses) - {"200"}:
        assert list(responses[status]["content"]) == ["application/problem+json"]
    assert "queue-full" in responses["503"]["description"]


def test_docs_are_served(server: Running) -> None:
    response = server.http.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text
