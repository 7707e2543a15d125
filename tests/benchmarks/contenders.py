"""The servers that are compared, how each is started, and the forms of request that each is asked with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

Form = Literal["none", "raw", "multipart", "stream"]
SERVERS = "tests.benchmarks.servers"
STEPS_PACKAGES = ("limits", "numpy", "onnxruntime", "opencv-python-headless", "prometheus-client", "pydantic")
"""What `tests.benchmarks.steps` needs in an environment of its own."""
_UVICORN = ("-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port", "{port}")


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A kind of server.

    Attributes:
        arguments: Of Python, with ``{port}``, ``{slots}`` (pictures at the same time) and ``{picture}``.
        package: Distribution that is installed in an environment of its own; None: this environment has all.
        version_of: Distribution whose version is reported.
    """

    arguments: tuple[str, ...]
    package: str | None = None
    version_of: str = "fastapi"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server, asked in one form.

    Attributes:
        server: Key of `KINDS`.
        form: Of the request's body; "none" for no HTTP at all.
        path: Of the request.
    """

    server: str
    form: Form
    path: str = "/predict"


KINDS = {
    "in-process": ServerKind(("-m", f"{SERVERS}.in_process", "{picture}"), version_of="onnxruntime"),
    "posewright": ServerKind(("-m", "service", "--port", "{port}"), version_of="uvicorn"),
    "fastapi-def": ServerKind((*_UVICORN, f"{SERVERS}.fastapi_def:app")),
    "fastapi-async": ServerKind((*_UVICORN, f"{SERVERS}.fastapi_async:app")),
    "litserve": ServerKind(("-m", f"{SERVERS}.lit", "{port}", "{slots}"), "litserve", "litserve"),
    "bentoml": ServerKind(
        ("-m", "bentoml", "serve", f"{SERVERS}.bento:Poses", "--host", "127.0.0.1", "--port", "{port}"),
        "bentoml",
        "bentoml",
    ),
    "ray-serve": ServerKind(("-m", f"{SERVERS}.ray_serve", "{port}", "{slots}"), "ray[serve]", "ray"),
}
CONTENDERS = {
    "in-process": Contender("in-process", "none"),
    "ours, raw": Contender("posewright", "raw"),
    "ours, multipart": Contender("posewright", "multipart"),
    "ours, stream": Contender("posewright", "stream"),
    "FastAPI def": Contender("fastapi-def", "raw"),
    "FastAPI def, multipart": Contender("fastapi-def", "multipart", "/predict/multipart"),
    "FastAPI async def": Contender("fastapi-async", "raw"),
    "LitServe": Contender("litserve", "raw"),
    "BentoML": Contender("bentoml", "raw"),
    "Ray Serve": Contender("ray-serve", "raw"),
}


class InstallError(Exception):
    """A rival's package cannot be installed."""


def python_of(kind: ServerKind, cache: Path) -> str:
    """Return the Python that has the server's packages; makes its environment in ``cache`` at the first call.

    Raises:
        InstallError: pip failed.
    """
    if kind.package is None:
        return sys.executable
    folder = cache / kind.package.partition("[")[0]
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        command = [python, "-m", "pip", "install", "--quiet", *STEPS_PACKAGES, kind.package]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise InstallError(f"pip could not install {kind.package}: {result.stderr.strip()[-300:]}")
        done.touch()
    return str(python)


def version(kind: ServerKind, python: str) -> str:
    """Return name and version of the server's distribution."""
    code = f"from importlib.metadata import version; print(version({kind.version_of!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return f"{kind.version_of} {found.strip()}"


def request_bytes(contender: Contender, content: bytes, boxes: str) -> bytes:
    """Write the whole request, or the stream's frame."""
    if contender.form in {"none", "stream"}:
        return content
    media_type, body = "image/jpeg", content
    if contender.form == "multipart":
        media_type = "multipart/form-data; boundary=limit"
        head = b'--limit\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        body = head + b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n--limit--\r\n"
    head = (
        f"POST {contender.path}?boxes={quote(boxes)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    return head + body
