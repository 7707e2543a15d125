"""The server against its own OpenAPI document, by schemathesis: requests of every shape that the document allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Running

pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis)")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PATIENCE_S = 1200.0


@pytest.mark.slow
def test_no_request_that_the_document_allows_gets_an_answer_that_it_does_not(server: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json", "--checks", CHECKS]
    command += ["--max-examples", "60", "--generation-database", "none", "--seed", "1", "--no-color"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
