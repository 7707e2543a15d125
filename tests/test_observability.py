"""The page, the dashboard and the alert rules name what a real server reports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import spots
from tests.conftest import Running
from tests.manuals import ROOT
from tests.spots import SURE
from tests.streaming import frame, hear, streaming

FOLDER = ROOT / "docs" / "observability"
PAGE = ROOT / "docs" / "observability.md"
DASHBOARD, ALERTS = FOLDER / "grafana.json", FOLDER / "alerts.yaml"
NAME = re.compile(r"\b(?:http_server|posewright|process)_[a-z_]+\b(?!\()")
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}
LABEL = re.compile(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"")
EVERYWHERE = {"job", "instance"}
"""Labels that Prometheus itself adds."""
TARGETS = {"up"}


def families(server: Running) -> dict[str, Any]:
    picture = spots.encode(spots.paint(SURE))
    server.predict(picture)
    server.predict(b"no picture")
    with streaming(server, policy="all") as connection:
        connection.send(frame(picture, 0))
        hear(connection)
    parsed = text_string_to_metric_families(server.http.get("/metrics").text)
    return {family.name: family for family in parsed if not family.name.endswith("_created")}


@pytest.fixture(scope="module")
def reported(server: Running) -> dict[str, Any]:
    return families(server)


@pytest.fixture(scope="module")
def series(reported: dict[str, Any]) -> set[str]:
    """Names of time series, as queries use them."""
    return {family.name + suffix for family in reported.values() for suffix in SUFFIXES[family.type]}


def expressions_of_dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def expressions_of_alerts() -> list[str]:
    """The queries; YAML is read line by line, as the service's tests have no YAML library."""
    text = re.sub(
        r"expr: \|\n((?: {10,}.*\n)+)", lambda it: "expr: " + " ".join(it[1].split()) + "\n", ALERTS.read_text()
    )
    return re.findall(r"^ +expr: (.+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("expressions", [expressions_of_dashboard, expressions_of_alerts])
def test_queries_name_metrics_and_labels_of_a_real_server(
    expressions: Any, series: set[str], reported: dict[str, Any]
) -> None:
    known = {label for family in reported.values() for sample in family.samples for label in sample.labels}
    known |= {"reason", "name", "version", "model", "state"} | EVERYWHERE
    found = expressions()
    assert len(found) >= 10
    for expression in found:
        names = set(NAME.findall(expression))
        assert names | ({"up"} & set(re.findall(r"\w+", expression))), expression
        assert names <= series, expression
        labels = set(LABEL.findall(expression))
        for listed in re.findall(r"\bby \(([^)]*)\)", expression):
            labels |= {label.strip() for label in listed.split(",")}
        assert labels <= known, expression


def test_every_metric_of_ours_is_on_the_dashboard(reported: dict[str, Any]) -> None:
    shown = " ".join(expressions_of_dashboard())
    missing = {name for name in reported if name not in shown}
    assert missing <= {"process_virtual_memory_bytes", "process_start_time_seconds"}


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == variables
    cells = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        taken = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in taken) < 24
        assert not taken & cells, panel["title"]
        cells |= taken


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    result = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules_and_their_tests() -> None:
    promtool("check", "rules", "alerts.yaml")
    promtool("test", "rules", "alerts_test.yaml")


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{i}", "expr": re.sub(r"\$\{?\w*rate_interval\}?", "1m", expression)}
        for i, expression in enumerate(expressions_of_dashboard())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML, too
    promtool("check", "rules", str(path))


def test_promtool_finds_nothing_against_the_conventions(server: Running, tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    families(server)
    text = server.http.get("/metrics").text
    result = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    remarks = [it for it in (result.stdout + result.stderr).splitlines() if "_created " not in it and it.strip()]
    assert remarks == []


def test_the_page_lists_exactly_the_metrics_of_a_real_server(reported: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), flags=re.MULTILINE)
    listed = {name: kind for name, kind, _ in rows}
    expected = {name + ("_total" if it.type == "counter" else ""): it.type for name, it in reported.items()}
    assert listed == expected
    for name, _, labels in rows:
        family = reported.get(name.removesuffix("_total")) or reported[name]
        if family.samples:
            used = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert set(re.findall(r"`(\w+)`", labels)) == used, name
