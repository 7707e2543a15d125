"""`--workers N`: real processes on one port, killed, restarted and stopped while clients ask."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests import spots
from tests.spots import SURE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
PICTURE = spots.encode(spots.paint(SURE))
STOP_S = 3


@dataclass
class Cluster:
    """A supervisor with two server processes."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def pids(self) -> list[int]:
        """The server processes, without multiprocessing's own helper."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if "spawn_main" in command_of(pid)]

    @property
    def metrics_folder(self) -> Path:
        variables = Path(f"/proc/{self.pids[0]}/environ").read_text().split("\0")
        (folder,) = (it.partition("=")[2] for it in variables if it.startswith("PROMETHEUS_MULTIPROC_DIR="))
        return Path(folder)

    def predict(self) -> httpx.Response:
        """Ask on a new connection: any process may answer."""
        return httpx.post(
            self.url + "/predict", content=PICTURE, headers={"Content-Type": "image/png"}, timeout=PATIENCE_S
        )

    def samples(self) -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(httpx.get(self.url + "/metrics").text)
        return {(it.name, *it.labels.values()): it.value for family in families for it in family.samples}

    def counted(self) -> float:
        return self.samples().get(("http_server_request_duration_seconds_count", "POST", "/predict", "200"), 0.0)


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""


def environment(models_dir: Path, temporary: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSEWRIGHT_")}
    return kept | {"POSEWRIGHT_MODELS_DIR": str(models_dir), "TMPDIR": str(temporary)}


COMMAND = [sys.executable, "-m", "service", "--port", "0", "--workers", "2", "--stop-s", str(STOP_S)]


@contextmanager
def running(models_dir: Path, temporary: Path) -> Iterator[Cluster]:
    log = temporary / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            COMMAND,
            env=environment(models_dir, temporary),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"at (http://127\.0\.0\.1:\d+) ", line)
            assert found, log.read_text()
            assert "2 processes x" in line
            yield Cluster(process, found[1], log)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def workers(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(models_dir, tmp_path_factory.mktemp("workers")) as cluster:
        yield cluster


@dataclass
class Load:
    """Clients that ask all the time, each call on a new connection."""

    cluster: Cluster
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self.over.is_set():
            try:
                response = self.cluster.predict()
            except httpx.TransportError as error:
                self.failures.append(repr(error))
            else:
                if response.status_code == 200:
                    self.answered += 1
                else:
                    self.failures.append(response.text)


@contextmanager
def load(cluster: Cluster, clients: int) -> Iterator[Load]:
    asking = Load(cluster)
    threads = [threading.Thread(target=asking.ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.over.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def eventually(holds: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_s
        time.sleep(0.1)


@pytest.mark.slow
def test_whichever_process_answers_reports_the_metrics_of_all(workers: Cluster) -> None:
    for _ in range(12):
        assert workers.predict().status_code == 200
    seen = [workers.samples() for _ in range(8)]
    for samples in seen:
        assert samples["http_server_request_duration_seconds_count", "POST", "/predict", "200"] == 12
        assert samples["posewright_workers",] == 2
        assert samples["posewright_inference_threads",] == 2 * Settings(workers=2).inference_thread_count
        assert samples["posewright_queue_capacity",] == 64
        models = {key[2]: value for key, value in samples.items() if key[0] == "posewright_model_info"}
        assert models == {"detector": 1, "student-s": 1, "teacher": 1}
        assert samples["process_resident_memory_bytes",] > 100e6
    cpu = [samples["process_cpu_seconds_total",] for samples in seen]
    assert cpu == sorted(cpu)


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_others_answer_meanwhile(workers: Cluster) -> None:
    before, cpu_s = workers.counted(), workers.samples()["process_cpu_seconds_total",]
    victim, other = workers.pids
    clients = 3
    with load(workers, clients) as asking:
        eventually(lambda: asking.answered > 5)
        os.kill(victim, signal.SIGKILL)
        workers.process.poll()
        sofar = asking.answered
        eventually(lambda: asking.answered > sofar + 5)
        eventually(lambda: len(workers.pids) == 2 and victim not in workers.pids)
        eventually(lambda: workers.samples()["posewright_workers",] == 2)
    assert len(asking.failures) <= clients, asking.failures  # what the victim was working on
    assert other in workers.pids
    eventually(lambda: workers.counted() >= before + asking.answered)  # what the victim had counted is not lost
    samples = workers.samples()
    assert samples["posewright_worker_restarts_total",] == 1
    assert samples["process_cpu_seconds_total",] > cpu_s
    assert f"server process {victim} died (signal SIGKILL)" in workers.log.read_text()


@pytest.mark.slow
def test_sighup_replaces_all_processes_and_no_call_fails(workers: Cluster) -> None:
    before, restarts = set(workers.pids), workers.samples()["posewright_worker_restarts_total",]
    with load(workers, 2) as asking:
        workers.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(workers.pids) == 2 and not before & set(workers.pids))
    assert asking.failures == []
    assert asking.answered > 0
    assert workers.samples()["posewright_worker_restarts_total",] == restarts  # a wanted restart is not counted


@pytest.mark.slow
def test_sigterm_answers_what_was_accepted_and_leaves_nothing_behind(models_dir: Path, tmp_path: Path) -> None:
    with running(models_dir, tmp_path) as cluster:
        pids, folder = cluster.pids, cluster.metrics_folder
        assert len(pids) == 2
        assert folder.is_dir()
        with load(cluster, 3) as asking:
            eventually(lambda: asking.answered > 5)
            cluster.process.send_signal(signal.SIGTERM)
            assert cluster.process.wait(PATIENCE_S) == 0
        # Refused connections are the clients' signal to go elsewhere; a connection that was accepted gets its answer.
        assert all("ConnectError" in failure for failure in asking.failures), asking.failures
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert not folder.exists()


@pytest.mark.slow
def test_the_processes_end_with_their_supervisor(models_dir: Path, tmp_path: Path) -> None:
    with running(models_dir, tmp_path) as cluster:
        pids = cluster.pids
        assert len(pids) == 2
        cluster.process.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
def test_a_damaged_bundle_is_reported_once(models_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models_dir, tmp_path / "models"))
    (folder / "teacher" / "model.onnx").write_bytes(b"damaged")
    result = subprocess.run(
        COMMAND, env=environment(folder, tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("posewright-serve: ")
    assert "'teacher'" in line


@pytest.mark.slow
def test_a_process_that_cannot_start_again_is_tried_later_and_the_others_go_on(
    models_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models_dir, tmp_path / "models"))
    with running(folder, tmp_path) as cluster:
        intact = (folder / "teacher" / "model.onnx").read_bytes()
        (folder / "teacher" / "model.onnx").write_bytes(b"damaged")
        os.kill(cluster.pids[0], signal.SIGKILL)
        eventually(lambda: cluster.log.read_text().count("cannot start") >= 2)
        assert cluster.predict().status_code == 200
        (folder / "teacher" / "model.onnx").write_bytes(intact)
        eventually(lambda: cluster.samples()["posewright_workers",] == 2)
        assert re.search(r"died \(exit status 1\); another one starts in 1 s", cluster.log.read_text())
