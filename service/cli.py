"""The command line: flags and environment -> Settings -> one server process, or several under a supervisor."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from pydantic import SecretStr

from service import logs, standard_streams
from service import settings as settings_
from service.app import package_version
from service.pose.backends.execution_provider import BackendError
from service.pose.bundle import BundleError
from service.process import end_despite_threads, serve
from service.settings import Settings, SettingsError
from service.workers import StartError, Supervisor

MAX_OPEN_FILES = 65_536
"""Open files, and so connections, that the process allows itself where the system does."""


def main() -> int:
    """Serve until interrupted, and return the exit status."""
    _end_on_signals()
    _allow_many_connections()
    with standard_streams.protected():
        status = run()
        end_despite_threads(status)
    return status


def run(arguments: Sequence[str] | None = None) -> int:
    """Read flags and environment, serve, and return the exit status."""
    flags = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    try:
        settings = settings_.load(os.environ, flags)
        with _listen(settings) as listener:
            if settings.workers == 1:
                return serve(settings, listener, standard_streams.announce)
            logs.configure(settings)
            Supervisor(settings, listener).run()
    except (SettingsError, BundleError, BackendError, StartError) as error:
        print(f"posewright-serve: {error}", file=sys.stderr)
        return 1
    return 0


def _end_on_signals() -> None:
    """End with status 0 on SIGTERM and SIGINT, where Python would die of the one and print a traceback for the other.

    While the server runs, it handles both itself, and raises them again when it has stopped.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def _allow_many_connections() -> None:
    """Raise the soft limit of open files towards the hard one: the default of many systems is 1024, for `select`."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - Unix only

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(ValueError, OSError):  # macOS has a lower limit that it does not tell
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
        default = f" (default: {field.default})" if field.default not in (None, (), {}, "") else ""
        described = (str(field.description) + default).replace("%", "%%")
        kind = _refuse_secret if field.annotation == SecretStr | None else str
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=described, type=kind)


def _refuse_secret(_: str) -> str:
    """Refuse a secret on the command line, without repeating it."""
    raise argparse.ArgumentTypeError("expected a variable in the environment, got a flag, which others can read")


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
