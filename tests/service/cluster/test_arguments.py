"""What the command and the config files of a cluster refuse, before Ray is started."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import settings as settings_
from service.cluster.__main__ import main
from service.cluster.arguments import ClusterArguments, given_settings, of_replica


def test_more_replicas_at_least_than_at_most_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--min-replicas", "3", "--max-replicas", "2"]) == 1
    assert capsys.readouterr().err.startswith("posewright-serve-cluster: expected min_replicas <= max_replicas, got 3")


def test_a_fault_in_an_argument_names_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cpus-per-replica", "many"]) == 1
    assert "posewright-serve-cluster: --cpus-per-replica: " in capsys.readouterr().err


def test_a_fault_in_a_setting_is_told_as_posewright_serve_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--queue-size", "-1"]) == 1
    assert "POSEWRIGHT_QUEUE_SIZE (--queue-size): " in capsys.readouterr().err


def test_unknown_arguments_of_a_file_are_refused() -> None:
    with pytest.raises(ValidationError, match="replicas"):
        ClusterArguments.model_validate({"replicas": 2})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers", "2"], "(--workers): expected 1 on a cluster"),
        (["--source-hosts", "10.0.0.1"], "(--source-hosts): expected no sources on a cluster"),
        (["--jobs-dir", "jobs"], "(--jobs-dir): expected none on a cluster"),
        (["--model-control", "explicit"], "(--model-control): expected none on a cluster"),
    ],
)
def test_settings_that_mean_nothing_on_a_cluster_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 1
    assert said in capsys.readouterr().err


def test_a_replica_gets_every_setting_that_was_set(tmp_path: Path) -> None:
    """Through the command, the arguments, another process and the replica: secrets, paths, rates and lists too."""
    environment = {
        "POSEWRIGHT_API_KEYS": "camera:camera-0123456789.abc",
        "POSEWRIGHT_ALLOWED_HOSTS": "a.example,*.b.example",
    }
    flags = {
        "api_keys_file": str(tmp_path / "keys"),
        "rate_limit_per_key": "10/second;5000/day",
        "provider_options": '{"intra": true}',
        "execution_provider": "cpu",
        "canary": "student-t",
        "fallback_score": "0.5",
        "root_path": "/pose",
        "inference_threads": "3",
    }
    settings = settings_.load(environment, flags)
    args = ClusterArguments(settings=given_settings(settings))
    told = settings_.load({}, args.settings)
    replica = settings_.load({}, pickle.loads(pickle.dumps(of_replica(told, 6))))
    assert replica.api_keys is not None
    assert replica.api_keys.get_secret_value() == "camera:camera-0123456789.abc"
    assert replica.model_copy(update={"runtime_threads": 0}) == settings
    assert replica.runtime_threads == 2
    assert "0123456789" not in str(args)
