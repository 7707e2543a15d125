"""What every contender does for a request, without HTTP: decode, pose in the given boxes, write the reply's JSON.

The settings come from the same ``POSEWRIGHT_*`` variables as the server's, so that all contenders have the same models
and threads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from service import settings as settings_
from service.inference.image import decode
from service.inference.predict import Stopwatch, predict
from service.inference.registry import open_registry
from service.pose.boxes import to_xywh
from service.wire import documents
from service.wire.query import Options, resolve

BOXES = "BENCHMARK_BOXES"
"""Variable with the boxes of the picture, for contenders whose handlers get the body alone."""


class Steps:
    """The models, loaded and warm."""

    def __init__(self) -> None:
        self.settings = settings_.load(os.environ)
        self.registry = open_registry(self.settings)
        self.registry.warm_up()

    def answer(self, content: bytes, boxes: str | None = None) -> bytes:
        """Answer one picture.

        Args:
            content: The picture's file.
            boxes: As the query of /predict; None: those of the environment.

        Returns:
            JSON as of /predict.
        """
        options = Options(boxes=os.environ[BOXES] if boxes is None else boxes)
        query = resolve(options, self.registry, self.settings)
        watch = Stopwatch({"queue": 0.0})
        prediction = predict(self.registry, content, query.request, watch)
        reply, _ = documents.prediction_reply(prediction, query, "", 0, watch)
        return documents.to_json(reply)


def detected(picture: str) -> str:
    """Detect the person in a picture's file, and return the box as the query of /predict takes it."""
    steps = Steps()
    pixels = decode(Path(picture).read_bytes(), steps.settings.max_pixels).pixels
    boxes, _ = steps.registry.detector.detect(pixels, max_people=1)
    return json.dumps(to_xywh(boxes).round(1).tolist())
