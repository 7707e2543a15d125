"""The client in Python 3.10, which ROS 2 Humble has, against a server in the Python of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.python310 import PYTHON310, run
from tests.client.test_readme import COMMANDS, PROGRAMS, folder
from tests.conftest import Running

__all__ = ["folder"]

STRICT = ("-W", "error", "-W", "ignore::ResourceWarning")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON310 is None, reason="needs Python 3.10: POSEWRIGHT_PYTHON310 names none"),
]


def test_it_is_python_310_with_the_client_alone(tmp_path: Path) -> None:
    script = (
        "import importlib.util, sys, posewright_client;"
        "print(sys.version_info[:2], importlib.util.find_spec('service'), posewright_client.__file__)"
    )
    assert run(tmp_path, "-W", "error", "-c", script).startswith("(3, 10) None ")


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_readme_runs(server: Running, folder: Path, program: str) -> None:
    assert run(folder, *STRICT, "-c", program.replace("http://localhost:8000", server.url)).strip()


@pytest.mark.parametrize("subcommand", ["predict", "video", "convert", "bench"])
def test_a_subcommand_runs(server: Running, folder: Path, subcommand: str) -> None:
    command = next(it for it in COMMANDS if f"posewright-client {subcommand} " in it)
    command = command.replace("http://localhost:8000", server.url).replace("--duration 2", "--duration 0.3 --warm-up 0")
    assert run(folder, *STRICT, "-m", "posewright_client", *command.split()[1:]).strip()


STALL = """
import asyncio, posewright_client as pw

async def main():
    async def handle(reader, writer):
        await asyncio.sleep(5)
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with pw.AsyncClient(f"http://127.0.0.1:{port}", timeout_s=0.2) as client:
        try:
            async for _ in client.stream([b"x"], reconnects=pw.NEVER):
                pass
        except pw.Timeout as error:
            print(error)
    server.close()

asyncio.run(main())
"""


def test_a_server_that_does_not_answer_is_a_timeout(tmp_path: Path) -> None:
    """In 3.10, asyncio's TimeoutError is not the built-in one."""
    assert "no stream within 0.2 s" in run(tmp_path, "-c", STALL)
