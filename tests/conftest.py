"""A real server: uvicorn on a free port in a thread, with onnxruntime and small networks that detect spots."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import settings as hypothesis_settings

from service.app import create_app
from service.http.server import Server
from service.http.upload_budget import UploadBudget
from service.inference.registry import ModelRegistry
from service.settings import Settings
from tests import spots

# Threads of torch that spin while they wait slow down all other tests. Set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Without a deadline: benchmarks measure speed.
hypothesis_settings.register_profile("local", deadline=None, max_examples=25)
hypothesis_settings.register_profile("ci", deadline=None, max_examples=100)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "local")

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Running:
    """A running server."""

    app: FastAPI
    url: str
    http: httpx.Client
    stop: Callable[[], None]
    """Asks the server to stop; the end of the `serving` block waits for it."""

    @property
    def open_streams(self) -> int:
        return len(self.app.state.streams)

    @property
    def upload_budget(self) -> UploadBudget:
        return self.app.state.upload_budget

    @property
    def registry(self) -> ModelRegistry:
        return self.app.state.registry

    def predict(self, content: bytes, content_type: str = "image/png", **query: object) -> httpx.Response:
        return self.http.post("/predict", content=content, params=query, headers={"Content-Type": content_type})


@contextmanager
def serving(settings: Settings, *, warm: bool = True, port: int = 0) -> Iterator[Running]:
    """Serve until the block ends.

    Args:
        settings: Of the server.
        warm: Wait until the models are warm.
        port: 0 for any free port.
    """
    app = create_app(settings)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio disables Nagle's algorithm only with it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listening = threading.Event()
        server = Server(app, settings.model_copy(update={"log_level": "warning"}), on_listening=listening.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert listening.wait(PATIENCE_S)
            if warm:
                assert app.state.registry.wait_until_warm(PATIENCE_S)
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
                yield Running(app, url, http, lambda: setattr(server, "should_exit", True))
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spots.write_models(tmp_path_factory.mktemp("registry") / "models")


@pytest.fixture(scope="session")
def server(models_dir: Path) -> Iterator[Running]:
    """Serve with the default settings, except for small limits."""
    settings = Settings(models_dir=models_dir, max_bytes=4_000_000, max_batch_bytes=8_000_000, max_pixels=4_000_000)
    with serving(settings) as running:
        yield running
