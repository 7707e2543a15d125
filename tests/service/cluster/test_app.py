"""The deployment that Ray Serve is given, read by Ray's own classes; no cluster is started."""

from __future__ import annotations

import warnings

import pytest

from service.cluster.arguments import ClusterArguments

pytest.importorskip("ray", reason="the cluster: pip install '.[cluster]'")
pytestmark = pytest.mark.slow  # Ray takes seconds to import

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own use of pydantic
    from service.cluster.app import build


def test_settings_come_from_the_environment_and_the_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEWRIGHT_STUDENT", "student-t")
    monkeypatch.setenv("POSEWRIGHT_QUEUE_SIZE", "7")
    bound = build(ClusterArguments(cpus_per_replica=6, settings={"queue_size": 9}))._bound_deployment
    (given,) = bound.init_args
    # Only what was set: replicas find out the rest, such as the models folder, where they are.
    assert given == {"student": "student-t", "queue_size": 9, "inference_threads": 3, "runtime_threads": 2}


def test_threads_that_are_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ClusterArguments(cpus_per_replica=8, settings={"inference_threads": 2, "runtime_threads": 1})
    (given,) = build(arguments)._bound_deployment.init_args
    assert (given["inference_threads"], given["runtime_threads"]) == (2, 1)


def test_a_removed_replica_has_the_time_of_the_longest_call() -> None:
    settings = {"upload_s": 20, "deadline_s": 7}
    deployment = build(ClusterArguments(min_replicas=2, max_replicas=5, settings=settings))._bound_deployment
    config = deployment._deployment_config
    assert config.graceful_shutdown_timeout_s == 27
    assert (config.autoscaling_config.min_replicas, config.autoscaling_config.max_replicas) == (2, 5)
    assert deployment.ray_actor_options["num_cpus"] == 2
