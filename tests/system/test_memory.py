"""Memory of a real server process, with the bundles that ship and the default settings."""

from pathlib import Path

import httpx
import pytest

from service.settings import MAX_DEFAULT_INFERENCE_THREADS
from tests.system import pictures
from tests.system.bench_memory import EVERYBODY, LARGEST, predict, predict_batch
from tests.system.processes import ServerProcess, run_server

PEAK_MB = 700
pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux' /proc"),
]


def test_no_call_keeps_memory_and_the_peak_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "POSEWRIGHT_INFERENCE_THREADS", str(MAX_DEFAULT_INFERENCE_THREADS)
    )  # as on a machine of many cores
    everybody, largest = pictures.crowd(12, 8), pictures.scaled(*LARGEST, orientation=6)
    with run_server("--deadline-s", "600") as server, httpx.Client(base_url=server.url, timeout=600) as client:
        assert predict(client, everybody, **EVERYBODY) > 20
        before = server.memory_mb("VmRSS")
        assert predict_batch(client, [pictures.crowd(4, 3)] * MAX_DEFAULT_INFERENCE_THREADS, **EVERYBODY) > 20
        predict_batch(client, [largest] * MAX_DEFAULT_INFERENCE_THREADS)
        predict(client, largest, "image/jpeg")
        assert _settled(server, client) < before + 300  # other threads have allocated some meanwhile
        assert server.memory_mb("VmHWM") < PEAK_MB


def _settled(server: ServerProcess, client: httpx.Client) -> float:
    """Resident memory after a small call, 10^6 bytes."""
    predict(client, pictures.scaled(320, 240))
    return server.memory_mb("VmRSS")
