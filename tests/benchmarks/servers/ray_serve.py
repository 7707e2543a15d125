"""Ray Serve: its proxy and one replica process for each picture at a time, on a Ray of this machine alone."""

import sys
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tests.benchmarks.steps import Steps


@serve.deployment(num_replicas=int(sys.argv[2]), ray_actor_options={"num_cpus": 0})
class Poses:
    def __init__(self) -> None:
        self.steps = Steps()

    async def __call__(self, request: Request) -> Response:
        reply = self.steps.answer(await request.body(), request.query_params["boxes"])
        return Response(reply, media_type="application/json")


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Poses.bind(), route_prefix="/predict")
    while True:
        time.sleep(3600)
