"""BentoML: one worker process with a thread for each picture at a time. Its handler gets the body alone."""

import os
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from tests.benchmarks.steps import Steps

SLOTS = int(os.environ["POSEWRIGHT_INFERENCE_THREADS"])


@bentoml.service(workers=1, threads=SLOTS, metrics={"enabled": True})
class Poses:
    def __init__(self) -> None:
        self.steps = Steps()

    @bentoml.api
    def predict(
        self, image: Annotated[bytes, ContentType("image/jpeg")], /
    ) -> Annotated[bytes, ContentType("application/json")]:
        return self.steps.answer(image)
