"""The bundles that ship, watching somebody who sways before a camera."""

import numpy as np
import pytest

from service.pose.boxes import iou
from service.prediction import Stopwatch, Wish
from service.settings import Settings
from service.shelf import Shelf, open_shelf
from service.watcher import Watcher
from tests.system.bench_stream import STEPS, camera, offset

PICTURES = camera()


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return open_shelf(Settings())


@pytest.mark.parametrize("fps", [30, 10, 5, 3])
def test_she_is_one_person_at_any_rate(shelf: Shelf, fps: int) -> None:
    wish = Wish(shelf.choose("auto"), None, 20, 0.15, 10**8)
    watching = Watcher(shelf, wish, track=True, smooth=True, find_every=10, most_misses=30)
    for i in range(25):
        step = i * 30 // fps % STEPS
        sight = watching.look(PICTURES[step], i / fps, Stopwatch())
        assert sight.ids == [1]
        x = offset(step)
        truth = np.array([[x + 30, 213, x + 480, 720]], np.float32)
        assert iou(sight.prediction.poses.boxes, truth)[0, 0] > 0.4
