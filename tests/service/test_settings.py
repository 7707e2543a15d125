"""Settings: environment, flags, messages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service import settings as settings_
from service.settings import MAX_DEFAULT_INFERENCE_THREADS, PREFIX, Settings, SettingsError

# Every setting with a text that an operator can write, and its value.
EXAMPLES = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "allowed_hosts": ("Pose.example., *.example.org", ("pose.example", "*.example.org")),
    "root_path": ("/pose/", "/pose"),
    "models_dir": ("/srv/models", "/srv/models"),
    "student": ("student-m", "student-m"),
    "teacher": ("teacher-l", "teacher-l"),
    "detector": ("detector-2", "detector-2"),
    "inference_threads": ("3", 3),
    "workers": ("2", 2),
    "execution_provider": ("cpu", "cpu"),
    "provider_options": ('{"a": true, "b": 2}', {"a": "1", "b": "2"}),
    "batch_size": ("4", 4),
    "batch_window_ms": ("1.5", 1.5),
    "flip_test": ("true", True),
    "refine_boxes": ("false", False),
    "runtime_threads": ("2", 2),
    "queue_size": ("5", 5),
    "deadline_s": ("2.5", 2.5),
    "upload_s": ("3.5", 3.5),
    "keep_alive_s": ("65", 65.0),
    "stop_s": ("4.5", 4.5),
    "max_bytes": ("1000", 1000),
    "max_pixels": ("2000", 2000),
    "max_batch": ("4", 4),
    "max_batch_bytes": ("3000", 3000),
    "max_bodies_bytes": ("9000", 9000),
    "max_people": ("7", 7),
    "min_score": ("0.4", 0.4),
    "keypoint_threshold": ("0.6", 0.6),
    "model_control": ("explicit", "explicit"),
    "run_dir": ("/run/posewright", "/run/posewright"),
    "fallback_score": ("0.5", 0.5),
    "stream_max_sessions": ("6", 6),
    "stream_max_per_address": ("3", 3),
    "stream_max_bytes": ("5000", 5000),
    "stream_max_fps": ("12.5", 12.5),
    "stream_queue": ("3", 3),
    "stream_idle_s": ("7.5", 7.5),
    "stream_send_s": ("1.5", 1.5),
    "stream_detect_every": ("4", 4),
    "stream_max_misses": ("9", 9),
    "shadow_model": ("student-m", "student-m"),
    "shadow_share": ("0.01", 0.01),
    "shadow_whole_picture": ("true", True),
    "canary": ("student-n", "student-n"),
    "canary_share": ("0.1", 0.1),
    "canary_file": ("/srv/canary.json", "/srv/canary.json"),
    "canary_window_s": ("60", 60),
    "canary_auto_rollback": ("true", True),
    "serve_bundles": ("true", True),
    "source_hosts": (
        "camera.local, 10.0.0.0/8, file:/srv/videos, device",
        ("camera.local", "10.0.0.0/8", "file:/srv/videos", "device"),
    ),
    "source_max": ("2", 2),
    "source_max_viewers": ("100", 100),
    "source_timeout_s": ("3", 3),
    "source_webhook_hosts": ("hooks.example.org", ("hooks.example.org",)),
    "source_record_dir": ("/srv/results", "/srv/results"),
    "source_record_bytes": ("5000000", 5_000_000),
    "cors_origins": ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "access_log": ("true", True),
    "api_keys": ("camera:0123456789abcdef", SecretStr("camera:0123456789abcdef")),
    "api_keys_file": ("/run/secrets/keys", "/run/secrets/keys"),
    "public_metrics": ("true", True),
    "rate_limit_per_key": ("10/second;5000/day", "10/second;5000/day"),
    "rate_limit_per_address": ("600 per 2 minutes", "600 per 2 minutes"),
    "stream_max_per_key": ("3", 3),
    "jobs_dir": ("/srv/jobs", "/srv/jobs"),
    "jobs_at_once": ("2", 2),
    "jobs_queue_size": ("9", 9),
    "jobs_keep_hours": ("1.5", 1.5),
    "jobs_max_bytes": ("7000", 7000),
    "job_max_bytes": ("6000", 6000),
    "job_max_frames": ("50", 50),
    "job_max_duration_s": ("2.5", 2.5),
    "job_upload_s": ("90", 90.0),
}


def test_every_setting_is_tested_here_and_has_a_description() -> None:
    assert set(EXAMPLES) == set(Settings.model_fields)
    for field in Settings.model_fields.values():
        assert field.description
        assert field.description.endswith(".")


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("source", ["environment", "flag"])
def test_every_setting_is_read(name: str, source: str) -> None:
    text, expected = EXAMPLES[name]
    environ, flags = ({PREFIX + name.upper(): text}, {}) if source == "environment" else ({}, {name: text})

    value = getattr(settings_.load(environ, flags), name)

    assert (str(value) if isinstance(value, Path) else value) == expected


def test_flags_win_and_empty_variables_are_ignored() -> None:
    environ = {"POSEWRIGHT_PORT": "1", "POSEWRIGHT_HOST": "", "POSEWRIGHT_FALLBACK_SCORE": " ", "PORT": "3"}
    settings = settings_.load(environ, {"port": "2"})
    assert (settings.port, settings.host, settings.fallback_score) == (2, "127.0.0.1", None)


def test_service_links_of_kubernetes_are_ignored() -> None:
    assert settings_.load({"POSEWRIGHT_PORT": "tcp://10.0.0.1:80"}).port == 8000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "70000"), ("port", "eighty"), ("deadline_s", "0"), ("max_people", "0"), ("min_score", "2"),
        ("keypoint_threshold", "nan"), ("inference_threads", "-1"), ("workers", "0"), ("stream_max_fps", "0"),
        ("stream_detect_every", "0"), ("log_level", "loud"),
        ("execution_provider", "torch"), ("execution_provider", "cpu:1"), ("provider_options", "fp16"),
        ("provider_options", "[1]"), ("batch_size", "63"), ("batch_window_ms", "-1"),
        ("allowed_hosts", "pose.example:8000"), ("allowed_hosts", "https://pose.example"), ("allowed_hosts", "*pose"),
        ("root_path", "pose"), ("root_path", "/pose?x"), ("root_path", '/"><script>'), ("root_path", "//evil.example"),
        ("upload_s", "0"), ("stop_s", "1"), ("cors_origins", "example.org"), ("cors_origins", "https://a.example/page"),
    ],
)  # fmt: skip
def test_the_message_names_an_invalid_value(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_.load({PREFIX + name.upper(): text})
    message = str(caught.value)
    assert PREFIX + name.upper() in message
    assert "--" + name.replace("_", "-") in message
    assert repr(text) in message
    assert message.count(", got ") == 1
    assert "Value error" not in message
    assert "\n" not in message


def test_the_message_names_all_invalid_values() -> None:
    with pytest.raises(SettingsError, match=r"POSEWRIGHT_PORT.*POSEWRIGHT_INFERENCE_THREADS"):
        settings_.load({"POSEWRIGHT_PORT": "x", "POSEWRIGHT_INFERENCE_THREADS": "x"})


def test_origins_are_normalised_as_browsers_send_them() -> None:
    read = settings_.load({}, {"cors_origins": "HTTPS://A.example/,*,http://localhost:5173"})
    assert read.cors_origins == ("https://a.example", "*", "http://localhost:5173")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_a_machine_of_many_cores_has_at_most_four_default_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cores in (1, 2, 8, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        automatic = Settings()
        assert 1 <= automatic.inference_thread_count <= MAX_DEFAULT_INFERENCE_THREADS
        assert automatic.inference_thread_count * automatic.runtime_thread_count <= max(cores, 1)
        assert Settings(inference_threads=64).inference_thread_count == 64


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for workers in (1, 2, 4, 16, 64):
        shared = Settings(workers=workers)
        used = workers * shared.inference_thread_count * shared.runtime_thread_count
        assert used <= max(16, workers)
        assert used >= min(16, workers)


def test_several_processes_are_refused_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SettingsError, match=r"--workers.*expected 1 on Windows.*proxy"):
        settings_.load({}, {"workers": "2"})
    assert settings_.load({}, {"workers": "1"}).workers == 1


def test_inference_threads_share_the_cores() -> None:
    automatic = Settings()
    assert automatic.inference_thread_count >= 1
    assert automatic.runtime_thread_count >= 1
    assert Settings(inference_threads=1, runtime_threads=3).runtime_thread_count == 3
    assert Settings(inference_threads=64).runtime_thread_count == 1
