"""axe-core, which looks for barriers in a page (www.deque.com/axe), in a tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.web import npm
from tests.web.chrome import Tab

RUN = """async () => {
  const { violations, passes } = await axe.run(document, { resultTypes: ["violations"] });
  const placesOf = ({ nodes }) => nodes.map((it) => `${it.target.join(" ")}: ${it.failureSummary}`);
  return { rules: passes.length + violations.length,
    findings: violations.map((it) => ({ id: it.id, impact: it.impact, places: placesOf(it) })) };
}"""
MIN_RULES = 20
"""Rules that apply to any state of the page."""


def script(folder: Path) -> str:
    """Install axe-core into a folder; returns its source. Skips the test where npm has no access to it."""
    return (npm.install(folder, npm.AXE) / "axe-core" / "axe.min.js").read_text()


def findings(tab: Tab, source: str) -> list[dict[str, Any]]:
    """What axe-core finds on the page as it is now, with all of its rules."""
    if not tab.run("'axe' in window"):
        tab.run(source + "; 0")
    report = tab.call(RUN)
    assert report["rules"] >= MIN_RULES
    found: list[dict[str, Any]] = report["findings"]
    return found
