"""Settings: what an operator can configure, read once from ``POSEWRIGHT_*`` variables and flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from service.pose.backends.cpu_quota import available_cores
from service.pose.backends.provider_choice import AUTO, ProviderChoice, choose, require_installed
from service.setting_types import Hosts, Origins, ProviderOptions, Rates, RootPath, RunDir, SourceHosts, Workers

PREFIX = "POSEWRIGHT_"
MAX_DEFAULT_INFERENCE_THREADS = 4
"""More threads, on machines of many cores, would exceed the memory limit that `tests/system/test_memory.py` checks."""
DEFAULT_BATCH_SIZE, MAX_BATCH_SIZE = 8, 62
"""Images in a batch on an accelerator; at most, so that `inference_threads` can be two more."""
THREADS_JOIN_S = 1.0
"""Part of `Settings.stop_s` in which the threads of a stopping server must end, in seconds."""


class SettingsError(ValueError):
    """A setting has an invalid value."""


class Settings(BaseModel):
    """All settings, frozen: ``POSEWRIGHT_<NAME>`` in the environment or ``--<name>`` as a flag; flags win."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())  # for `model_control`

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 for any free port.")
    allowed_hosts: Hosts = Field(
        (),
        description="More host names of this server, separated by commas, such as pose.example.org or *.example.org; * "
        "for any. Set it to the name that a proxy passes on as Host. IP addresses, names without a dot (localhost) and "
        "this machine's name are always allowed.",
    )
    root_path: RootPath = Field(
        "",
        description="Path prefix, such as /pose, that a proxy serves this server under and removes from requests.",
    )
    models_dir: Path = Field(Path(__file__).parent / "models", description="Folder with one folder for each bundle.")
    student: str = Field("student-s", description="Bundle of the model that answers by default.")
    teacher: str = Field(
        "teacher", description="Bundle of the model that answers /compare, and if the student cannot answer."
    )
    detector: str = Field("detector", description="Bundle of the person detector.")
    inference_threads: int = Field(
        0,
        ge=0,
        le=64,
        description="Pictures processed at the same time in one process; each takes memory. 0 = one for every two "
        "cores of the process, at most 4; with batches, two more than a batch takes.",
    )
    workers: Workers = Field(
        1,
        ge=1,
        le=64,
        description="Server processes that share the port and the cores; each loads the models, and limits hold for "
        "each. 1 = no further process.",
    )
    execution_provider: Annotated[str, AfterValidator(require_installed)] = Field(
        AUTO,
        description="What runs the networks: auto, cpu, cuda, tensorrt, coreml, directml or openvino; cuda:1 is the "
        "second device. auto takes cuda or directml where the installed onnxruntime contains it and it works, else "
        "the CPU. openvino is an extra; it uses bf16 if the CPU supports it.",
    )
    provider_options: ProviderOptions = Field(
        {},
        description="Options of the execution provider by onnxruntime's names, as JSON, such as "
        '{"trt_fp16_enable": true}. It must be named then, not auto.',
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=MAX_BATCH_SIZE,
        description="Maximum number of images of different calls and streams that run in one batch; 1 = no batches. "
        "0 = 8 on cuda, tensorrt and directml, else 1.",
    )
    batch_window_ms: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Milliseconds that a batch waits for more images while other calls are in work.",
    )
    flip_test: bool = Field(
        default=False,
        description="true: average over each person and the mirror image. Slightly more accurate, twice the network "
        "time.",
    )
    refine_boxes: bool = Field(
        default=True,
        description="true: if a pose does not fit the detector's box, infer it again in a better box. false is faster.",
    )
    runtime_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of the runtime inside one call of a network. 0 = cores of the process / inference "
        "threads.",
    )
    queue_size: int = Field(
        32,
        ge=0,
        le=10_000,
        description="Maximum number of calls that wait for an inference thread; more get 503 with Retry-After.",
    )
    deadline_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds from the end of the upload to the answer, for each picture of a batch; later answers "
        "become 504.",
    )
    upload_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds in which a request's head must arrive, and then its body (or it gets 408); also those in "
        "which a client must read 100 kB of an answer, or its rest.",
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        le=3600,
        description="Seconds without a request after which a connection is closed. It must be longer than a proxy in "
        "front keeps idle connections (mostly 60), or some of its calls meet a connection that is just being closed.",
    )
    stop_s: float = Field(
        8.0,
        ge=2,
        le=3600,
        description="Seconds for a shutdown (Docker kills after 10). Uploads and streams may continue for half of it; "
        "calls without an answer at its end get 503.",
    )
    max_bytes: int = Field(20_000_000, ge=1, description="Maximum size of a picture file in bytes.")
    max_pixels: int = Field(32_000_000, ge=1, description="Maximum size of a picture in pixels.")
    max_batch: int = Field(32, ge=1, le=1000, description="Maximum number of pictures in one /predict/batch call.")
    max_batch_bytes: int = Field(64_000_000, ge=1, description="Maximum body of a /predict/batch call in bytes.")
    max_bodies_bytes: int = Field(
        500_000_000,
        ge=1,
        description="Maximum size of all request bodies together in bytes; further calls get 503 with Retry-After.",
    )
    max_people: int = Field(20, ge=1, le=100, description="Default maximum number of people in a picture.")
    min_score: float = Field(
        0.15, ge=0, le=1, description="Default minimum score (expected OKS) of a pose; lower ones are left out."
    )
    keypoint_threshold: float = Field(
        0.35, ge=0, le=1, description="Default score from which a keypoint counts as `visible`."
    )
    model_control: Literal["none", "explicit"] = Field(
        "none",
        description="explicit: load, unload and roll back models while the server runs, by POST to /v2/repository, "
        "and change the canary. Whoever can call the server can then do so. none: such calls get 403.",
    )
    run_dir: RunDir = Field(
        None,
        description="Folder in which the server processes of one machine tell each other of loaded and unloaded "
        "models. Needed only for servers that were started one by one: those of `workers` tell each other anyway.",
    )
    fallback_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Score below which the teacher replaces a student's pose; unset = never.",
    )
    stream_max_sessions: int = Field(
        32, ge=1, le=10_000, description="Maximum number of open streams; more are closed with code 1013."
    )
    stream_max_per_address: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open streams from one IP address; unset = half of stream_max_sessions.",
    )
    stream_max_bytes: int = Field(
        4_000_000,
        ge=1000,
        description="Maximum size of a stream's frame in bytes; a larger one closes the stream with code 1009.",
    )
    stream_max_fps: float = Field(
        60.0, gt=0, le=1000, description="Maximum number of frames per second that a stream gets answered."
    )
    stream_queue: int = Field(
        8, ge=1, le=1000, description="Maximum number of frames that wait in a stream with policy `all`."
    )
    stream_idle_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds without a frame after which a stream is closed with code 4408."
    )
    stream_send_s: float = Field(
        5.0, gt=0, le=3600, description="Seconds a client may stop reading before it is disconnected."
    )
    stream_detect_every: int = Field(
        10, ge=1, le=1000, description="The detector runs at least on every n-th frame of a stream; 1 = every frame."
    )
    stream_max_misses: int = Field(
        30, ge=0, le=1000, description="Consecutive missed frames after which a tracked person is removed."
    )
    shadow_model: str | None = Field(
        None, description="Bundle that answers sampled pictures again, for comparison; unset = the teacher."
    )
    shadow_share: float = Field(
        0.0, ge=0, le=1, description="Share of the pictures and frames that the shadow model answers again; 0 = none."
    )
    shadow_whole_picture: bool = Field(
        default=False,
        description="true: the shadow model looks for people itself, so that missed people count as well. false: it "
        "answers in the boxes of the answer that was sent.",
    )
    canary: str | None = Field(
        None, description="Bundle of a candidate that answers a part of the calls for `auto`; unset = none."
    )
    canary_share: float = Field(
        0.05, ge=0, le=1, description="Share of the callers whom the candidate answers, chosen by a hash."
    )
    canary_file: Path | None = Field(
        None,
        description="File through which servers share changes of the canary; they then also survive a restart, and win "
        "over `canary`. Its folder must exist. The processes of `workers` share them anyway.",
    )
    canary_window_s: float = Field(
        600.0, gt=0, le=86_400, description="Seconds back to which calls count in the statistics of canary and shadow."
    )
    canary_auto_rollback: bool = Field(
        default=False, description="true: a candidate that is measurably worse is rolled back without being asked."
    )
    serve_bundles: bool = Field(
        default=False,
        description="true: send the files of the models, /models/NAME/manifest.json and model.onnx, to callers, for "
        "pages that run them themselves (the browser client's local mode).",
    )
    source_hosts: SourceHosts = Field(
        (),
        description="Cameras and files that callers may let the server open, separated by commas: host names "
        "(camera.local, *.cameras.example.org), addresses and networks (10.0.0.0/8), folders (file:/srv/videos), and "
        "device for this machine's cameras. Empty = none.",
    )
    source_max: int = Field(8, ge=1, le=1000, description="Maximum number of sources (cameras and files) at once.")
    source_max_viewers: int = Field(
        64, ge=1, le=10_000, description="Maximum number of viewers of all sources together."
    )
    source_timeout_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Seconds for a camera to connect, and to send its next frame; then it is connected again.",
    )
    source_webhook_hosts: SourceHosts = Field(
        (),
        description="Hosts that results of sources may be sent to, as in source_hosts, without folders and devices. "
        "Empty = none.",
    )
    source_record_dir: Path | None = Field(
        None, description="Folder for the results of sources, as files of JSON lines; unset = none are written."
    )
    source_record_bytes: int = Field(
        1_000_000_000,
        ge=1_000_000,
        description="Maximum size of all files in source_record_dir together in bytes; the oldest are deleted.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins of web pages that may call this server and open streams, separated by commas; * for all. "
        "This server's own pages are always allowed.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of logged messages; debug also logs every call."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of logged messages; json writes one object a line, and logs every call."
    )
    access_log: bool | None = Field(
        None, description="Whether every call and stream is logged; unset = with log_format json or log_level debug."
    )
    api_keys: SecretStr | None = Field(
        None,
        description="API keys, name:key separated by commas; calls without one get 401. Only from the environment, as "
        "everybody on a machine can read the flags of its programs.",
    )
    api_keys_file: Path | None = Field(
        None, description="File of more API keys, one name:key a line; it is read again when it changes."
    )
    public_metrics: bool = Field(default=False, description="true: /metrics needs no API key.")
    rate_limit_per_key: Rates = Field(
        "",
        description="Maximum rate of calls and new streams of one API key, such as 10/second, 600/minute or "
        "10/second;5000/day; more get 429.",
    )
    rate_limit_per_address: Rates = Field(
        "", description="Maximum rate of calls and new streams from one IP address (IPv6: from one /64 network)."
    )
    stream_max_per_key: int | None = Field(
        None, ge=1, description="Maximum number of open streams of one API key; unset = no limit of its own."
    )
    jobs_dir: Path | None = Field(
        None,
        description="Folder of the videos and results of video jobs (/jobs), which survive a restart; unset = no jobs. "
        "Server processes may share it: one of them runs the jobs.",
    )
    jobs_at_once: int = Field(
        1, ge=1, le=64, description="Number of video jobs that run at the same time; the others wait."
    )
    jobs_queue_size: int = Field(
        100, ge=1, le=100_000, description="Maximum number of video jobs that wait or run; more get 503."
    )
    jobs_keep_hours: float = Field(
        24.0, gt=0, le=100_000, description="Hours after its end in which a job's video and results are kept."
    )
    jobs_max_bytes: int = Field(
        20_000_000_000,
        ge=1,
        description="Maximum size of all videos and results together in bytes; more get 507.",
    )
    job_max_bytes: int = Field(2_000_000_000, ge=1, description="Maximum size of a job's video in bytes.")
    job_max_frames: int = Field(500_000, ge=1, description="Maximum number of frames of a job's video.")
    job_max_duration_s: float = Field(14_400.0, gt=0, description="Maximum length of a job's video in seconds.")
    job_upload_s: float = Field(
        3600.0,
        gt=0,
        le=86_400,
        description="Seconds for the upload or download of a job's video; a transfer also ends when nothing comes for "
        "upload_s seconds.",
    )

    @property
    def streams_per_address(self) -> int:
        """Maximum number of streams from one address."""
        return self.stream_max_per_address or max(1, self.stream_max_sessions // 2)

    @property
    def cores_per_process(self) -> int:
        """Number of cores for each server process."""
        return max(1, available_cores() // self.workers)

    @property
    def logs_access(self) -> bool:
        """Whether every call is logged."""
        return self.log_format == "json" or self.log_level == "debug" if self.access_log is None else self.access_log

    @property
    def inference_thread_count(self) -> int:
        """Number of inference threads in each server process."""
        if self.images_per_batch > 1:
            return self.inference_threads or self.images_per_batch + 2
        return self.inference_threads or min(MAX_DEFAULT_INFERENCE_THREADS, max(1, self.cores_per_process // 2))

    @property
    def provider_choice(self) -> ProviderChoice:
        """The execution provider, chosen once in each process.

        Raises:
            BackendError: It does not work on this machine.
        """
        return choose(self.execution_provider, tuple(self.provider_options.items()))

    @property
    def images_per_batch(self) -> int:
        """Maximum number of images in a batch; 1: no batches."""
        return self.batch_size or (DEFAULT_BATCH_SIZE if self.provider_choice.provider.gains_from_batches else 1)

    @property
    def runtime_thread_count(self) -> int:
        """Number of the runtime's threads inside one call."""
        return self.runtime_threads or max(1, self.cores_per_process // self.inference_thread_count)


def load(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        environ: ``os.environ``; other variables and empty values are ignored.
        flags: Values by field name; they win over ``environ``.

    Raises:
        SettingsError: One line that names each invalid setting, what was expected and what came.
    """
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environ.get(PREFIX + name.upper(), "").strip()
        # Kubernetes sets POSEWRIGHT_PORT=tcp://10.0.0.1:80 itself if a Service has the name "posewright".
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
    message = message.removeprefix("Value error, ")
    told = "" if ", got " in message else f", got {got!r}"
    return f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}): {message}{told}"
