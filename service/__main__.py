"""posewright-serve: flags and environment -> Settings -> application -> server."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from service import settings as settings_
from service.app import create_app, package_version
from service.http.server import Server
from service.pose.bundle import BundleError
from service.settings import Settings, SettingsError


class StartError(Exception):
    """The server cannot start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted, and return the exit status."""
    flags = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    try:
        settings = settings_.load(os.environ, flags)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        app = create_app(settings)
        listener = _listen(settings)
    except (SettingsError, BundleError, StartError) as error:
        print(f"posewright-serve: {error}", file=sys.stderr)
        return 1
    with listener:
        line = _announcement(app, settings, listener)
        Server(app, settings, on_listening=lambda: print(line, flush=True)).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    """Make one flag for each setting, with the setting's own description."""
    parser = argparse.ArgumentParser(
        prog="posewright-serve",
        description="Serve human poses over HTTP. Each flag can also be set as POSEWRIGHT_<NAME> in the environment.",
    )
    parser.add_argument("--version", action="version", version=f"posewright {package_version()}")
    add_setting_flags(parser)
    return parser


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each setting."""
    for name, field in Settings.model_fields.items():
        default = f" (default: {field.default})" if field.default not in {None, (), ""} else ""
        described = (str(field.description) + default).replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=described)


def _listen(settings: Settings) -> socket.socket:
    """Bind the port.

    Raises:
        StartError: The port is taken, or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio disables Nagle's algorithm, which delays replies, only on sockets that were made with their protocol.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(
            f"expected an address of this machine, got host {settings.host!r}: {error.strerror}"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on port {settings.port} of {settings.host}: {error.strerror}; "
            "stop the program that holds it, or choose another port with --port"
        ) from error
    return listener


def _announcement(app: FastAPI, settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    models: dict[str, Any] = app.state.registry.models
    loaded = ", ".join(
        f"{model.manifest.name} {model.manifest.version}" + ("" if model.network else " (unavailable)")
        for model in models.values()
    )
    return (
        f"posewright {package_version()} at http://{host}:{listener.getsockname()[1]} (docs at /docs) with {loaded}; "
        f"{settings.inference_thread_count} inference threads x {settings.runtime_thread_count}"
    )


if __name__ == "__main__":
    sys.exit(main())
