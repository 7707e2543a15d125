"""The audit of the dependencies, against an advisory service of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.client.hosts import free_address

pytest.importorskip("pip_audit", reason="needs pip-audit, which `make check` installs")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ADVISORY = {
    "id": "PYSEC-0000-1",
    "summary": "A flaw of this test's own.",
    "affected": [
        {
            "package": {"name": "starlette", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@contextmanager
def advisory_service(flawed: str) -> Iterator[tuple[str, set[str]]]:
    """Serve OSV's query API; yields its address, and the names that it is asked about."""
    asked = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.add(query["package"]["name"])
            known = {"vulns": [ADVISORY]} if query["package"]["name"] == flawed else {}
            body = json.dumps(known).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{service.server_port}/v1/query", asked
        finally:
            service.shutdown()
            thread.join()


def audit(url: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.audit", "--osv-url", url]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_a_finding_fails_and_names_what_to_do() -> None:
    with advisory_service("starlette") as (url, asked):
        status, said = audit(url)
    assert status == 1
    for part in ("starlette", "PYSEC-0000-1", "fixed in: 99.0", "1 known vulnerabilities"):
        assert part in said
    assert asked >= {"fastapi", "onnxruntime", "limits", "torch"}


def test_without_findings_it_passes_and_without_a_service_it_says_so() -> None:
    with advisory_service("") as (url, _):
        status, said = audit(url)
    assert (status, "0 known vulnerabilities" in said) == (0, True)
    status, said = audit(free_address() + "/v1/query")
    assert (status, "SKIPPED" in said) == (0, True)
