"""posewright-serve-cluster: starts or joins a Ray cluster and deploys the application on it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Sequence
from contextlib import suppress

from pydantic import ValidationError

from service import settings as settings_
from service.__main__ import LIBRARY_ENVIRONMENT
from service.app import package_version
from service.cli import add_setting_flags
from service.cluster.arguments import ClusterArguments, given_settings, require_fitting
from service.settings import Settings, SettingsError

LOCAL = "local"
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports nothing about its use
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",  # on a busy machine its proxy takes longer than Ray's 5 s to start
}
"""Variables of Ray that have another value here, unless they are set."""
OBJECT_STORE_BYTES = 100_000_000
"""Of a local cluster: calls and pictures do not stay in Ray's object store."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status."""
    given = vars(_parser().parse_args(arguments))
    flags = {name: given[name] for name in Settings.model_fields if given[name] is not None}
    scale = {name: given[name] for name in ClusterArguments.model_fields if given.get(name) is not None}
    try:
        # Joined clusters have an environment of their own: every setting goes into the arguments.
        settings = settings_.load(os.environ, flags)
        require_fitting(settings)
        args = ClusterArguments(**scale, settings=given_settings(settings))
    except SettingsError as error:
        print(f"posewright-serve-cluster: {error}", file=sys.stderr)
        return 1
    except ValidationError as error:
        for fault in error.errors():
            message = fault["msg"].removeprefix("Value error, ")
            if fault["loc"]:
                message = f"--{str(fault['loc'][0]).replace('_', '-')}: {message}, got {fault['input']!r}"
            print(f"posewright-serve-cluster: {message}", file=sys.stderr)
        return 1
    _serve(given["address"], given["metrics_port"], settings, args)
    return 0


def _serve(address: str, metrics_port: int, settings: Settings, args: ClusterArguments) -> None:
    for name, value in (RAY_ENVIRONMENT | LIBRARY_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    # Imported late: --help and faults in settings are answered without Ray, which takes seconds to import.
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415

    from service.cluster.app import NAME, build  # noqa: PLC0415

    if address == LOCAL:
        ray.init(
            LOCAL,
            num_cpus=args.max_replicas * args.cpus_per_replica,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            _metrics_export_port=metrics_port,
        )
    else:
        ray.init(address)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with suppress(TimeoutError):  # on a busy machine Ray's proxy takes more than the minute that Ray waits for it
        serve.start(http_options={"host": settings.host, "port": settings.port}, proxy_location="EveryNode")
    serve.run(build(args), name=NAME, route_prefix="/")
    while not stopped.is_set() and not _answers(settings):
        stopped.wait(0.5)
    print(
        f"posewright {package_version()} at http://{settings.host}:{settings.port} (docs at /docs) on Ray, "
        f"{args.min_replicas} to {args.max_replicas} replicas of {args.cpus_per_replica} cores"
        + (f"; metrics of all replicas at http://127.0.0.1:{metrics_port}/metrics" if address == LOCAL else ""),
        flush=True,
    )
    stopped.wait()
    # Not serve.shutdown alone: it ends Ray's proxies at once, and with them the calls that replicas still answer.
    serve.delete(NAME)
    if address == LOCAL:
        serve.shutdown()
        ray.shutdown()


def _answers(settings: Settings) -> bool:
    """Whether the proxy of this machine passes calls on to a replica that is ready."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - compared only
    try:
        with urllib.request.urlopen(f"http://{host}:{settings.port}/readyz", timeout=10):
            return True
    except OSError:
        return False


def _parser() -> argparse.ArgumentParser:
    """Make one flag for each argument of the deployment, and for each setting."""
    parser = argparse.ArgumentParser(
        prog="posewright-serve-cluster",
        description="Serve human poses from a Ray cluster. Settings can also be set as POSEWRIGHT_<NAME> in the "
        "environment; every replica gets them.",
    )
    parser.add_argument("--version", action="version", version=f"posewright {package_version()}")
    parser.add_argument(
        "--address", default=LOCAL, metavar="ADDRESS",
        help="local starts a cluster on this machine; auto joins the one that runs here; or host:port of its head.",
    )  # fmt: skip
    parser.add_argument(
        "--metrics-port", type=int, default=8080, metavar="PORT",
        help="With --address local: where Ray shows the metrics of all replicas, for Prometheus (default: 8080).",
    )  # fmt: skip
    for name, field in ClusterArguments.model_fields.items():
        if name != "settings":
            text = f"{field.description} (default: {field.default})"
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    add_setting_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
