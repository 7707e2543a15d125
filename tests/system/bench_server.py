"""Benchmark: overhead of HTTP. Compares /predict with the same steps called in this process, in alternation.

python -m tests.system.bench_server [photo.jpg] [--rounds N]

The server runs in its own process, with as many ONNX Runtime threads as the in-process side. The client keeps its
connection open.

Prints the number of people found by both, the median times, and their ratio.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import cv2
import skimage.data

from service import settings as settings_
from service.inference import image
from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.settings import Settings
from tests.system.processes import run_server

SIZE = (1280, 720)
WARM_UP = 20


def portrait() -> bytes:
    """A 1280 x 720 JPEG with one person: the astronaut before a blurred enlargement of herself."""
    photo = skimage.data.astronaut()[..., ::-1]
    canvas = cv2.GaussianBlur(cv2.resize(photo, SIZE), (0, 0), 40)
    canvas[208:, 384:896] = photo
    return bytes(cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def in_process(settings: Settings, content: bytes) -> Callable[[], int]:
    """Make a function that decodes, detects and poses without a server, and returns the number of people."""
    opened = {name: bundle.read(settings.models_dir / name) for name in (settings.detector, settings.student)}
    runners = {name: OnnxRunner(it.onnx, settings.runtime_thread_count) for name, it in opened.items()}
    detector = PersonDetector(opened[settings.detector], runners[settings.detector])
    estimator = PoseEstimator(opened[settings.student], runners[settings.student])

    def call() -> int:
        picture = image.decode(content, settings.max_pixels)
        boxes, scores = detector.detect(picture.pixels, settings.max_people, settings.min_score)
        poses = estimator.estimate_detections(picture.pixels, boxes, scores)
        return int((poses.person_scores >= settings.min_score).sum())

    return call


def ask(client: HTTPConnection, method: str, path: str, content: bytes | None = None) -> tuple[int, bytes]:
    """Send a request; returns the status and the body."""
    client.request(method, path, content, {"Content-Type": "image/jpeg"})
    reply = client.getresponse()
    return reply.status, reply.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    content = options.photo.read_bytes() if options.photo else portrait()
    direct = in_process(settings_.load(os.environ), content)
    with run_server() as server:
        # The standard library's client has the least overhead of its own.
        client = HTTPConnection(server.host, server.port, timeout=60)
        times: dict[str, list[float]] = {"in-process": [], "/predict": []}
        for turn in range(options.rounds + WARM_UP):
            start = time.perf_counter()
            people = direct()
            middle = time.perf_counter()
            status, reply = ask(client, "POST", "/predict", content)
            end = time.perf_counter()
            assert status == 200, reply
            if turn >= WARM_UP:
                times["in-process"].append(1000 * (middle - start))
                times["/predict"].append(1000 * (end - middle))
    medians = {name: statistics.median(values) for name, values in times.items()}
    found = len(json.loads(reply)["poses"])
    print(f"{people} people in-process, {found} in the reply, {options.rounds} rounds")
    for name, value in medians.items():
        print(f"{name:12s} median {value:.2f} ms")
    print(f"ratio        {medians['/predict'] / medians['in-process']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
