"""The examples in docs/deploy: their schemas, and that what they name exists in the application."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from service import settings as settings_
from service.app import create_app
from service.cluster.arguments import ClusterArguments
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
EXAMPLES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES_VERSION = "1.31"
POD_FIELDS = {"containers", "terminationGracePeriodSeconds"}
PRESTOP_S = re.compile(r"time\.sleep\((\d+)\)")
every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)


@cache
def documents(path: Path) -> list[Any]:
    """The documents of a YAML file. Keys that occur twice are errors (PyYAML takes the last one)."""
    return list(YAML(typ="safe", pure=True).load_all(path.read_text()))


def find(kind: str) -> dict[str, Any]:
    (found,) = (
        it for path in [*KUBERNETES, *DEPLOY.glob("*.yaml")] for it in documents(path) if it.get("kind") == kind
    )
    return found


def valid(resource: dict[str, Any]) -> None:
    """Check a resource against the schema of Kubernetes; unknown fields are errors."""
    validator = pytest.importorskip("kubernetes_validate", reason="the schemas: pip install '.[dev]'")
    validator.validate(resource, KUBERNETES_VERSION, strict=True)


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": spec}


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]]:
    """The containers that run posewright-serve: (name, pod's spec, container, environment)."""
    plain = find("Deployment")["spec"]["template"]["spec"]
    yield "kubernetes", plain, plain["containers"][0], find("ConfigMap")["data"]
    kserve = find("InferenceService")["spec"]["predictor"]
    container = kserve["containers"][0]
    yield "kserve", kserve, container, {it["name"]: it["value"] for it in container["env"]}


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_manifests_fit_its_schema(path: Path) -> None:
    assert documents(path)
    for resource in documents(path):
        valid(resource)


def test_an_unknown_field_does_not_fit() -> None:
    deployment = find("Deployment")
    with pytest.raises(Exception, match="replica"):
        valid(deployment | {"spec": deployment["spec"] | {"replica": 2}})


def test_compose_fits_its_schema() -> None:
    pytest.importorskip("check_jsonschema", reason="the schema: pip install '.[dev]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@every_example
def test_settings_that_are_named_exist(path: Path) -> None:
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", path.read_text()):
        assert name.lower() in Settings.model_fields, name


def test_environments_are_valid_settings() -> None:
    compose = documents(DEPLOY / "compose.yaml")[0]["services"]["posewright"]
    grace_s = float(compose["stop_grace_period"].removesuffix("s"))
    assert settings_.load(compose["environment"]).stop_s < grace_s
    for name, spec, container, environment in containers():
        settings = settings_.load(environment)
        lifecycle = str(container.get("lifecycle", ""))
        before_s = sum(map(int, PRESTOP_S.findall(lifecycle)))
        assert before_s + settings.stop_s < spec["terminationGracePeriodSeconds"], name


def test_probes_ask_routes_on_the_port_of_the_server() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    seen = 0
    for _, _, container, environment in containers():
        port = settings_.load(environment).port
        named = {it["name"]: it["containerPort"] for it in container["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                probe = container[kind]["httpGet"]
                assert probe["path"] in paths
                assert named.get(probe["port"], probe["port"]) == port
                seen += 1
    assert seen == 5
    scraped = find("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/path"] in paths
    assert scraped["prometheus.io/port"] == "8000"


def test_resources_find_each_other() -> None:
    deployment = find("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        find("Service")["spec"]["selector"],
        find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    assert find("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    backend = find("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    service = find("Service")
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {it["name"] for it in service["spec"]["ports"]}
    host = find("Ingress")["spec"]["rules"][0]["host"]
    assert settings_.load(find("ConfigMap")["data"]).allowed_hosts == (host,)


def test_prometheus_scrapes_the_server_of_the_compose_file() -> None:
    scraped = documents(DEPLOY / "prometheus.yml")[0]["scrape_configs"][0]
    (target,) = scraped["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert f"8000:{port}" in documents(DEPLOY / "compose.yaml")[0]["services"][name]["ports"]


def test_kserve_runs_a_valid_pod() -> None:
    service = find("InferenceService")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}  # the rest is inlined from PodSpec
    assert set(predictor) == own | POD_FIELDS
    assert set(service["spec"]) == {"predictor"}
    assert predictor["containers"][0]["name"] == "kserve-container"
    valid(pod({name: predictor[name] for name in POD_FIELDS}))


def test_rayservice_runs_valid_pods_with_the_ray_that_is_pinned() -> None:
    service = find("RayService")
    assert service["apiVersion"] == "ray.io/v1"
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    cluster = service["spec"]["rayClusterConfig"]
    assert set(cluster) == {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
    pinned = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert [cluster["rayVersion"]] == pinned
    assert f"FROM rayproject/ray:{pinned[0]}-py311" in (DEPLOY / "Dockerfile.ray").read_text()
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        valid(pod(group["template"]["spec"]))


def test_what_ray_deploys_exists() -> None:
    config = documents(DEPLOY / "serve.yaml")[0]
    assert YAML(typ="safe", pure=True).load(find("RayService")["spec"]["serveConfigV2"]) == config
    (application,) = config["applications"]
    module, _, name = application["import_path"].partition(":")
    source = ROOT / Path(*module.split(".")).with_suffix(".py")
    assert name in {it.name for it in ast.parse(source.read_text()).body if isinstance(it, ast.FunctionDef)}
    arguments = ClusterArguments(**application["args"])
    assert settings_.load({}, arguments.settings).allowed_hosts == ("pose.example.org",)


def test_ray_itself_reads_its_config_file() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="the cluster: pip install '.[cluster]'")
    read = schema.ServeDeploySchema.model_validate(documents(DEPLOY / "serve.yaml")[0])
    assert read.applications[0].import_path == "service.cluster.app:build"


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", DEPLOY / "Dockerfile.ray"], ids=lambda path: path.name)
def test_images_copy_what_exists_and_is_not_ignored(path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copies = [line.split()[1:-1] for line in path.read_text().splitlines() if line.startswith("COPY ")]
    names = [name for names in copies for name in names if not name.startswith(("--", "/"))]
    assert len(names) >= 7
    for name in names:
        assert (ROOT / name).exists(), name
        assert not any(name == it or name.startswith(f"{it}/") for it in ignored), name
