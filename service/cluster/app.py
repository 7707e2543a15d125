"""build(arguments): the application of Ray Serve, for ``serve deploy``, RayService and ``posewright-serve-cluster``."""

from __future__ import annotations

import os

from ray import serve
from ray.serve import Application

from service import settings as settings_
from service.cluster.arguments import ClusterArguments, of_replica, require_fitting
from service.cluster.replica import PoseReplica

NAME = "posewright"
MAX_ONGOING_REQUESTS = 10_000
"""More than replicas let in: they refuse calls and streams themselves, with a problem document and Retry-After."""


def build(args: ClusterArguments) -> Application:
    """Describe the deployment.

    Args:
        args: From the ``args`` of a Ray Serve config file, or from the command line. Settings that they do not name
            come from the environment of this process.

    Raises:
        SettingsError: A setting has an invalid value, or one that has no meaning on a cluster.
    """
    settings = settings_.load(os.environ, args.settings)
    require_fitting(settings)
    deployment = serve.deployment(
        serve.ingress()(PoseReplica),
        name=NAME,
        num_replicas=None,
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "initial_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.target_ongoing_requests,
            "upscale_delay_s": args.upscale_delay_s,
            "downscale_delay_s": args.downscale_delay_s,
        },
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": args.cpus_per_replica},
        health_check_period_s=5,
        health_check_timeout_s=30,
        # The longest that a call can take. Streams are closed by then.
        graceful_shutdown_timeout_s=settings.upload_s + settings.deadline_s,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(of_replica(settings, args.cpus_per_replica))
