"""What the command and the config files of a cluster refuse, before Ray is started."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.cluster.__main__ import main
from service.cluster.arguments import ClusterArguments


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
