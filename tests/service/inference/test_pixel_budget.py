"""The pixels that are worked on at the same time are limited."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference import image
from service.inference.pixel_budget import PixelBudget
from service.inference.predict import Stopwatch
from tests import spots

LIMIT = 100
PATIENCE_S = 60.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3 * LIMIT), max_size=30))
def test_the_limit_is_never_exceeded_and_every_image_is_admitted(counts: list[int]) -> None:
    budget, lock, inside, most = PixelBudget(LIMIT), threading.Lock(), 0, 0

    def work(count: int) -> None:
        nonlocal inside, most
        taken = min(count, LIMIT)  # a larger image is admitted alone
        with budget.reserve(count, Stopwatch()):
            with lock:
                inside += taken
                most = max(most, inside)
            with lock:
                inside -= taken

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, counts, timeout=PATIENCE_S))
    assert most <= LIMIT


def test_the_pixels_of_a_thread_that_hangs_can_be_released() -> None:
    budget, entered, leave = PixelBudget(LIMIT), threading.Event(), threading.Event()

    def hang() -> None:
        with budget.reserve(LIMIT, Stopwatch()):
            entered.set()
            assert leave.wait(PATIENCE_S)

    thread = threading.Thread(target=hang)
    thread.start()
    assert entered.wait(PATIENCE_S)
    budget.release(thread)
    with budget.reserve(LIMIT, Stopwatch()):
        leave.set()
        thread.join(PATIENCE_S)  # it releases nothing again
        assert budget._taken == LIMIT
    assert budget._taken == 0


def test_small_images_are_admitted_together_and_a_large_one_waits() -> None:
    budget, inside, leave = PixelBudget(LIMIT), threading.Barrier(5), threading.Event()
    entered, watch = threading.Event(), Stopwatch({"queue": 5.0})

    def small() -> None:
        with budget.reserve(LIMIT // 4, Stopwatch()):
            inside.wait(PATIENCE_S)
            assert leave.wait(PATIENCE_S)

    def large() -> None:
        with budget.reserve(LIMIT, watch):
            entered.set()

    with ThreadPoolExecutor(5) as pool:
        four = [pool.submit(small) for _ in range(4)]
        inside.wait(PATIENCE_S)
        alone = pool.submit(large)
        assert not entered.wait(0.1)
        leave.set()
        for work in [*four, alone]:
            work.result(PATIENCE_S)
    assert entered.is_set()
    assert watch.laps_ms["queue"] > 5 + 50  # the wait is counted as `queue`


def test_pixels_are_freed_after_an_error() -> None:
    budget = PixelBudget(LIMIT)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.reserve(LIMIT, Stopwatch()):
            raise ZeroDivisionError


def test_pixels_are_counted_from_the_header() -> None:
    assert image.pixel_count(spots.encode(np.zeros((30, 40, 3), np.uint8), "JPEG", orientation=6)) == 30 * 40
    assert image.pixel_count(spots.png_bomb()) == 12_000 * 12_000
    assert image.pixel_count(b"no picture") == 0
