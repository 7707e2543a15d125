"""Memory of a real server process, with the bundles that ship and the default settings."""

import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.settings import MAX_DEFAULT_INFERENCE_THREADS
from tests.system import pictures
from tests.system.bench_memory import EVERYBODY, LARGEST, predict, predict_batch
from tests.system.processes import ServerProcess, run_server

PEAK_MB = 700
LOADS = 24
pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux' /proc"),
]


@pytest.mark.slow
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


@pytest.mark.slow
def test_models_that_are_loaded_again_beside_calls_leave_no_gaps() -> None:
    photos = [pictures.scaled(640, 480), pictures.crowd(8, 5), pictures.scaled(4000, 3000)]
    done = threading.Event()

    def call(photo: bytes) -> None:
        with httpx.Client(base_url=server.url, timeout=600) as client:
            while not done.is_set():
                predict(client, photo)

    with (
        run_server("--deadline-s", "600", "--model-control", "explicit") as server,
        httpx.Client(base_url=server.url, timeout=600) as client,
        ThreadPoolExecutor(len(photos)) as pool,
    ):
        callers = [pool.submit(call, photo) for photo in photos]
        memory_mb = []
        for _ in range(LOADS):
            for name in ("student-s", "detector", "teacher"):
                client.post(f"/v2/repository/models/{name}/load").raise_for_status()
            memory_mb.append(server.memory_mb("VmRSS"))
        done.set()
        assert all(caller.result() is None for caller in callers)
        # If the heap's free pages were kept, it would be more than twice as much.
        assert statistics.mean(memory_mb[-LOADS // 4 :]) < 1.5 * statistics.mean(memory_mb[: LOADS // 4])


def _settled(server: ServerProcess, client: httpx.Client) -> float:
    """Resident memory after a small call, 10^6 bytes."""
    predict(client, pictures.scaled(320, 240))
    return server.memory_mb("VmRSS")
