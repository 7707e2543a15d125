"""Types of settings whose text needs more than a conversion: hosts, origins, paths, rates, options."""

from __future__ import annotations

import json
import re
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator

_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NUMBERS = re.compile(r"[0-9.]+")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+")


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origin(value: str) -> str:
    """Write an origin as browsers send it (RFC 6454, sec. 6.2): lower case, nothing behind the port."""
    origin = value.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"expected * or scheme://host[:port], such as https://example.org, got {value!r}")
    return origin


def _host(value: str) -> str:
    """Write a host name in lower case, without a dot at its end."""
    name = value.lower().removesuffix(".")
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"expected *, or a host name without a port such as pose.example.org or *.example.org, got {value!r}"
        )
    return name


def _source_host(value: str) -> str:
    """Check an entry of the list of hosts, networks, folders and devices that videos may come from."""
    if value == "device":
        return value
    if value.startswith("file:"):
        folder = value.removeprefix("file:").removeprefix("//")
        if not Path(folder).is_absolute():
            raise ValueError(f"expected the whole path of a folder, such as file:/srv/videos, got {value!r}")
        return f"file:{folder}"
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        pass
    name = value.lower().removesuffix(".")
    if name == "*" or not _HOST.fullmatch(name) or _NUMBERS.fullmatch(name):
        raise ValueError(
            "expected a host name without a port such as camera.local or *.cameras.example.org, an address or network "
            f"such as 10.0.0.0/8, file:/folder, or device, got {value!r}"
        )
    return name


def _root_path(value: str) -> str:
    path = value.rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError("expected a path such as /pose, of letters, digits and ._~-")
    return path


def _shared_port(workers: int) -> int:
    if workers > 1 and sys.platform == "win32":
        raise ValueError("expected 1 on Windows; start several servers with ports of their own behind a proxy")
    return workers


def _run_dir(value: Path | None) -> Path | None:
    if value is not None and sys.platform == "win32":
        raise ValueError("expected none on Windows, where processes cannot share it; change the models of each one")
    return value


def _rates(value: str) -> str:
    try:
        parsed = parse_many(value) if value else []
    except ValueError:
        parsed = None
    if parsed is None or any(it.amount < 1 for it in parsed):
        raise ValueError("expected rates such as 10/second, 600/minute or 10/second;5000/day")
    return value


def _provider_options(value: object) -> object:
    """Read a JSON object of plain values; onnxruntime takes them as text, true as 1."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise ValueError('expected a JSON object such as {"trt_fp16_enable": true}')  # noqa: TRY004 - pydantic's
    return {key: str(int(it)) if isinstance(it, bool) else str(it) for key, it in read.items()}


Rates = Annotated[str, AfterValidator(_rates)]
ProviderOptions = Annotated[dict[str, str], BeforeValidator(_provider_options)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_comma_separated)]
SourceHosts = Annotated[tuple[Annotated[str, AfterValidator(_source_host)], ...], BeforeValidator(_comma_separated)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_comma_separated)]
RootPath = Annotated[str, AfterValidator(_root_path)]
Workers = Annotated[int, AfterValidator(_shared_port)]
RunDir = Annotated[Path | None, AfterValidator(_run_dir)]
