"""Known vulnerabilities of the pinned dependencies: ``python -m tests.audit`` (part of ``make check``).

Asks the advisory service of OSV with pip-audit about every version in ``constraints.txt``. Fails where it has a
finding, and says so where it cannot be reached. Further arguments go to pip-audit, such as ``--ignore-vuln ID``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
UNREACHABLE = ("ConnectionError", "Could not connect", "Timeout", "ServiceError", "SSLError", "ProxyError")
"""What pip-audit writes where it gets no answer."""


def main(arguments: Sequence[str]) -> int:
    """Audit, and return the exit status: 1 for a finding or a failure, 0 otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--disable-pip", "--no-deps"]
        command += ["--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", "10"]
        command += ["--format", "json", "--output", str(report), "--cache-dir", folder, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.exists() or not report.stat().st_size:
            if any(it in result.stderr for it in UNREACHABLE):
                print("audit: SKIPPED, as the advisory service (api.osv.dev) cannot be reached: nothing was checked")
                return 0
            print(f"audit: expected a report of pip-audit, got none:\n{result.stderr}", file=sys.stderr)
            return 1
        dependencies = json.loads(report.read_text("utf-8"))["dependencies"]
    found = [(it["name"], it["version"], fault) for it in dependencies for fault in it.get("vulns", ())]
    for name, version, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "none yet"
        print(f"audit: {name} {version}: {fault['id']}: {fault['description'][:300]} (fixed in: {fixed})")
    print(f"audit: {len(dependencies)} dependencies, {len(found)} known vulnerabilities")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
