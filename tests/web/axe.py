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


def script(folder: Path) -> str:
    """Install axe-core into a folder; returns its source. Skips the test where npm has no access to it."""
    return (npm.install(folder, npm.AXE) / "axe-core" / "axe.min.js").read_text()


def findings(tab: Tab, source: str, *, min_rules: int = 20) -> list[dict[str, Any]]:
    """What axe-core finds on the page as it is now, with all of its rules.

    Args:
        tab: With the page.
        source: Of axe-core.
        min_rules: Rules that apply to such a page; if there are fewer, it was not looked at.
    """
    if not tab.run("'axe' in window"):
        tab.run(source + "; 0")
    report = tab.call(RUN)
    assert report["rules"] >= min_rules
    found: list[dict[str, Any]] = report["findings"]
    return found
