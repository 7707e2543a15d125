"""Every defence that the manual's page on security claims has a test."""

from __future__ import annotations

import re

from tests import house

PAGE = house.ROOT / "docs" / "security.md"


def test_every_threat_names_tests_that_exist() -> None:
    texts = [path.read_text("utf-8") for path in (house.ROOT / "tests").rglob("test_*.py")]
    defined = {name for text in texts for name in re.findall(r"^ *def (\w+)", text, flags=re.MULTILINE)}
    rows = re.findall(r"^\|([^|]+)\|([^|]+)\|([^|]+)\|$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    threats = [tests for threat, _, tests in rows if threat.strip() not in {"threat", "---"}]
    assert len(threats) > 20
    for tests in threats:
        named = re.findall(r"`(\w+)`", tests)
        assert named, tests
        assert not set(named) - defined
