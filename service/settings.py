"""Settings: what an operator may choose, read once from ``POSEWRIGHT_*`` variables and flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.pose.backends.cpu_quota import available_cores
from service.pose.backends.runner import Backend, require_installed

PREFIX = "POSEWRIGHT_"
MOST_WORKERS = 4
"""By default: so many stay within the bound on memory (`tests/system/test_memory.py`), however many cores there are."""
_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+")


class SettingsError(ValueError):
    """A setting is not what it must be."""


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origin(value: str) -> str:
    """Write an origin as browsers send it (RFC 6454, sec. 6.2): lower case, nothing behind the port."""
    origin = value.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"expected * or scheme://host[:port], such as https://example.org, got {value!r}")
    return origin


def _host(value: str) -> str:
    """Write a host name as it is compared: lower case."""
    name = value.lower().removesuffix(".")
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"expected *, or a host name without a port such as pose.example.org or *.example.org, got {value!r}"
        )
    return name


def _root_path(value: str) -> str:
    path = value.rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError("expected a path such as /pose, of letters, digits and ._~-")
    return path


class Settings(BaseModel):
    """All settings, frozen. ``POSEWRIGHT_<NAME>`` in the environment or ``--<name>`` as a flag; flags win."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_comma_separated)] = (
        Field(
            (),
            description="Further host names by which the server may be asked, separated by commas: those that a proxy "
            "in front passes on as Host, such as pose.example.org or *.example.org; * for any. IP addresses, names "
            "without a dot (localhost) and this machine's own always may.",
        )
    )
    root_path: Annotated[str, AfterValidator(_root_path)] = Field(
        "",
        description="Path under which a proxy in front shows the server, such as /pose, and which it takes off the "
        "calls that it passes on.",
    )
    models_dir: Path = Field(Path(__file__).parent / "models", description="Folder of the bundles, one folder each.")
    student: str = Field("student-s", description="Bundle that answers by default.")
    teacher: str = Field("teacher", description="Bundle that answers where the student cannot, and in /compare.")
    detector: str = Field("detector", description="Bundle that finds people.")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Inference threads: calls worked on at the same time; 0 = one per two cores, at most 4, since each "
        "takes memory of its own.",
    )
    backend: Annotated[Backend, AfterValidator(require_installed)] = Field(
        "onnxruntime",
        description="What runs the networks: onnxruntime, or openvino (an extra; bf16 where the CPU can).",
    )
    flip_test: bool = Field(
        default=False,
        description="true: average each network's answer over a person and the mirror image, a little more accurate at "
        "twice the network's time.",
    )
    second_look: bool = Field(
        default=True,
        description="true: where a pose shows that the detector's box was off, look again with a better one; false "
        "spares a little time in /predict on whole pictures.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of the backend inside one call; 0 = the available cores shared by workers.",
    )
    queue_size: int = Field(
        32, ge=0, le=10_000, description="Calls that may wait for a worker; one more gets 503 with Retry-After."
    )
    deadline_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds from the end of a call's body to its answer, for each picture of a batch; later it gets "
        "504.",
    )
    upload_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds that a call's body may take to arrive; later it gets 408."
    )
    stop_s: float = Field(
        8.0,
        ge=2,
        le=3600,
        description="Seconds in which the server stops: Docker kills after 10. Bodies and streams may go on for half "
        "of it; calls that are unanswered at its end get 503.",
    )
    max_bytes: int = Field(20_000_000, ge=1, description="Largest picture, in bytes as sent.")
    max_pixels: int = Field(32_000_000, ge=1, description="Largest picture, in pixels; read from its header.")
    max_batch: int = Field(32, ge=1, le=1000, description="Most pictures in one /predict/batch call.")
    max_batch_bytes: int = Field(64_000_000, ge=1, description="Largest body of one /predict/batch call.")
    max_bodies_bytes: int = Field(
        500_000_000, ge=1, description="Bodies of all calls together, in bytes; one more gets 503 with Retry-After."
    )
    max_people: int = Field(20, ge=1, le=100, description="People per picture where the caller names no number.")
    min_score: float = Field(
        0.15, ge=0, le=1, description="Poses of a lower expected OKS are left out where the caller names no score."
    )
    keypoint_threshold: float = Field(
        0.35, ge=0, le=1, description="Keypoint score from which `visible` is true where the caller names none."
    )
    fallback_score: float | None = Field(
        None, ge=0, le=1, description="Students' poses with a lower score are answered by the teacher; unset = never."
    )
    stream_max_sessions: int = Field(
        32, ge=1, le=10_000, description="Streams at the same time; one more is closed with 1013."
    )
    stream_max_per_address: int | None = Field(
        None, ge=1, description="Streams at the same time from one address; unset = half of stream_max_sessions."
    )
    stream_max_bytes: int = Field(
        4_000_000, ge=1000, description="Largest frame of a stream, in bytes as sent; a larger one ends it with 1009."
    )
    stream_max_fps: float = Field(
        60.0, gt=0, le=1000, description="Frames per second of one stream that are answered, if it asks for no fewer."
    )
    stream_queue: int = Field(
        8, ge=1, le=1000, description="Frames that may wait in a stream of policy `all`, which then must slow down."
    )
    stream_idle_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds without a frame after which a stream is closed with 4408."
    )
    stream_send_s: float = Field(
        5.0, gt=0, le=3600, description="Seconds for which a client may leave unread what fills its buffers."
    )
    stream_detect_every: int = Field(
        10, ge=1, le=1000, description="Frames of a stream after which people are looked for anew; 1 = in every frame."
    )
    stream_max_misses: int = Field(
        30, ge=0, le=1000, description="Frames in a row for which a person may be out of sight and keep the id."
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_comma_separated)] = (
        Field(
            (),
            description="Origins of web pages that may call and open streams, separated by commas; * for all. Pages of "
            "this server always may.",
        )
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message that is logged; debug also logs every call."
    )

    @property
    def streams_per_address(self) -> int:
        """Most streams from one address after ``unset = half`` is worked out."""
        return self.stream_max_per_address or max(1, self.stream_max_sessions // 2)

    @property
    def worker_count(self) -> int:
        """Inference threads after ``0 = one per two cores, at most 4`` is worked out."""
        return self.workers or min(MOST_WORKERS, max(1, available_cores() // 2))

    @property
    def thread_count(self) -> int:
        """Threads of the backend per call after ``0`` is worked out."""
        return self.threads or max(1, available_cores() // self.worker_count)


def load(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        environ: ``os.environ``; other variables, and ours when empty, are left alone.
        flags: By field name; these win.

    Raises:
        SettingsError: One line that names each wrong setting, what it must be and what came.
    """
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environ.get(PREFIX + name.upper(), "").strip()
        # For a Service called "posewright" Kubernetes sets POSEWRIGHT_PORT=tcp://10.0.0.1:80, not meant for us.
        if value and not value.startswith("tcp://"):
            given[name] = value
    given.update(flags or {})
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [_sentence(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()]
        raise SettingsError("; ".join(faults)) from error


def _sentence(location: tuple[int | str, ...], message: str, got: object) -> str:
    name = str(location[0])
    return f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}): {message}, got {got!r}"
