"""LitServe: a server process and one worker process for each picture at a time.

Its handlers get the body alone, so the boxes come from the environment. FastAPI reads the annotation of
`decode_request`.
"""

import sys
from typing import Annotated

import litserve
from fastapi import Body, Response

from tests.benchmarks.steps import Steps


class PoseAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.steps = Steps()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, content: bytes) -> bytes:
        return self.steps.answer(content)

    def encode_response(self, reply: bytes) -> Response:
        return Response(reply, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(PoseAPI(), accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
