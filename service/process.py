"""One server process: its log, the application, and uvicorn."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from service import logs
from service.app import create_app, package_version
from service.http.server import Server
from service.inference import heap
from service.settings import Settings


def serve(settings: Settings, listener: socket.socket, announce: Callable[[str], None]) -> int:
    """Serve in this process until a signal comes.

    Args:
        settings: Of the server.
        listener: A bound socket.
        announce: Called with one line about the server as soon as it accepts connections.

    Returns:
        The exit status of the process; 1 if inference threads hang, so that whoever supervises it starts it again.

    Raises:
        BundleError: The models folder cannot be served from.
        BackendError: The execution provider does not work on this machine.
    """
    logs.configure(settings)
    if settings.model_control != "none":
        heap.use_one_arena()
    app = create_app(settings)
    if settings.workers > 1:  # a process that is not ready must not take connections from those that are
        app.state.registry.warm_up()
        app.state.repository.catch_up()  # one that starts in the place of another serves what that had loaded
    line = _announcement(app, settings, listener)
    status = 0
    try:
        Server(app, settings, on_listening=lambda: announce(line)).run(sockets=[listener])
    except SystemExit as stopped:
        status = 1 if stopped.code else 0
    return 1 if app.state.service.scheduler.failed else status


def end_despite_threads(status: int) -> None:
    """End the process now if a thread still runs a network: the runtime's exit handlers would crash under it."""
    if any(thread.name.startswith(("inference-", "warm-up")) for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(status)


def _announcement(app: FastAPI, settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    models: dict[str, Any] = app.state.registry.models
    choice = settings.provider_choice
    loaded = ", ".join(
        f"{model.manifest.name} {model.manifest.version}" + ("" if model.network else " (unavailable)")
        for model in models.values()
    )
    processes = f"{settings.workers} processes x " if settings.workers > 1 else ""
    threads = settings.inference_thread_count
    return (
        f"posewright {package_version()} at http://{host}:{listener.getsockname()[1]} (docs at /docs) with {loaded}; "
        f"{processes}{threads} inference thread{'s' if threads > 1 else ''} x {settings.runtime_thread_count} "
        f"on {choice.provider.backend} ({choice.reason}); "
        f"API keys: {', '.join(app.state.api_keys.names) or 'none, every caller is answered'}"
    )
