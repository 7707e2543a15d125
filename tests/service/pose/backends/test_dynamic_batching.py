"""Dynamic batching: everyone gets their own answer, from fewer runs, and nobody waits for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose.backends.dynamic_batching import BatchingRunner, DynamicBatching
from service.pose.backends.runner import OnnxRunner
from tests import spots
from tests.streaming import eventually

PATIENCE_S = 60.0
BUSY_S = 0.1
"""Seconds of each run: well above the time that a loaded CPU takes to compute a batch."""


class Accelerator:
    """The real network on the CPU, behind what makes a device slow: a fixed time for each run, one run at a time.

    ``gate`` holds runs up while it is cleared.
    """

    backend = "accelerator"

    def __init__(self, busy_s: float = 0.0, batch_size: int = 8) -> None:
        self.preferred_batch_size = batch_size
        self.batches: list[int] = []
        self.fails: Callable[[np.ndarray], bool] = lambda _: False
        self.gate = threading.Event()
        self.gate.set()
        self._runner = OnnxRunner(spots.detector_network(), threads=1, batch_size=batch_size)
        self._busy_s = busy_s
        self._device = threading.Lock()

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        with self._device:
            self.batches.append(len(pixels))
            assert self.gate.wait(PATIENCE_S)
            time.sleep(self._busy_s)
            if self.fails(pixels):
                raise RuntimeError(f"out of memory at {len(pixels)} images, first pixel {pixels[0, 0, 0, 0]}")
            return self._runner.run(pixels)


def picture(number: int, width: int = 64) -> np.ndarray:
    """uint8 (1, 64, width, 3): its own place of a marker, and its number in the first pixel."""
    image = spots.paint(spots.Person((12 + 8 * (number % 6), 12 + 8 * (number // 6 % 6)), 6), size=(width, 64))
    image[0, 0] = number % 256
    return image[None]


def together(tasks: list[Callable[[], object]]) -> list[object]:
    """Run each task on a thread of its own, begun at once; return what they return or raise."""
    start, found = threading.Barrier(len(tasks)), [None] * len(tasks)

    def work(i: int) -> None:
        start.wait(PATIENCE_S)
        try:
            found[i] = tasks[i]()
        except Exception as error:  # noqa: BLE001
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return found


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    callers=st.lists(
        st.lists(st.tuples(st.integers(0, 35), st.sampled_from([64, 96]), st.integers(1, 3)), min_size=1, max_size=4),
        min_size=1,
        max_size=16,
    ),
    size=st.integers(2, 9),
    window_ms=st.sampled_from([0.0, 1.0]),
    knows_callers=st.booleans(),
)
def test_each_caller_gets_its_own_answers(
    callers: list[list[tuple[int, int, int]]], size: int, window_ms: float, knows_callers: bool
) -> None:
    device, sizes = Accelerator(0.001), []
    active = (lambda: len(callers)) if knows_callers else None
    shared = BatchingRunner(device, DynamicBatching(size, window_ms / 1e3, active, sizes.append))

    def ask(calls: list[tuple[int, int, int]]) -> list[list[np.ndarray]]:
        return [shared.run(np.concatenate([picture(n + i, width) for i in range(count)])) for n, width, count in calls]

    found = together([lambda calls=calls: ask(calls) for calls in callers])

    for calls, answers in zip(callers, found, strict=True):
        for (n, width, count), answer in zip(calls, answers, strict=True):
            alone = [OUTPUTS[width][(n + i) % 36] for i in range(count)]
            assert_same(answer, [np.concatenate(parts) for parts in zip(*alone, strict=True)])
    assert sizes == device.batches
    assert sum(sizes) == sum(count for calls in callers for _, _, count in calls)
    assert max(sizes) <= max(size, 3)


_REFERENCE = OnnxRunner(spots.detector_network(), threads=1)
OUTPUTS = {width: [_REFERENCE.run(picture(n, width)) for n in range(36)] for width in (64, 96)}


def test_the_pictures_differ() -> None:
    """Else a swapped answer would not be seen."""
    for outputs in OUTPUTS.values():
        assert len({answer[0].tobytes() for answer in outputs}) == 36


@pytest.mark.serial
def test_eight_callers_get_more_than_three_times_the_answers() -> None:
    def seconds(shared: BatchingRunner | Accelerator) -> float:
        started_s = time.perf_counter()
        together([lambda i=i: [shared.run(picture(i)) for _ in range(3)] for i in range(8)])
        return time.perf_counter() - started_s

    alone = Accelerator(BUSY_S)
    gathered = Accelerator(BUSY_S)
    unbatched_s = seconds(alone)
    batched_s = seconds(BatchingRunner(gathered, DynamicBatching(8, 0.005, lambda: 8)))
    assert len(alone.batches) == 24
    assert len(gathered.batches) < 24 / 3
    assert unbatched_s / batched_s > 3


@pytest.mark.serial
def test_a_single_caller_does_not_wait_for_others() -> None:
    device = Accelerator()
    for active in (lambda: 1, None):
        shared = BatchingRunner(device, DynamicBatching(8, PATIENCE_S, active))
        started_s = time.perf_counter()
        for i in range(20):
            assert_same(shared.run(picture(i)), OUTPUTS[64][i])
        assert time.perf_counter() - started_s < PATIENCE_S / 10
    assert device.batches == [1] * 40


def arrive(shared: BatchingRunner, device: Accelerator, pictures: list[np.ndarray]) -> None:
    """Ask for each picture on a thread of its own, one after another, while the device is held up; then let it run."""
    device.gate.clear()
    threads = [threading.Thread(target=shared.run, args=(it,), daemon=True) for it in pictures]
    for i, thread in enumerate(threads):
        thread.start()
        while len(shared._waiting) + sum(device.batches) <= i:
            time.sleep(0.001)
    device.gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_those_who_come_while_the_network_is_busy_run_together() -> None:
    device = Accelerator()
    arrive(BatchingRunner(device, DynamicBatching(8)), device, [picture(i) for i in range(6)])
    assert device.batches == [1, 5]


def test_images_of_different_sizes_are_not_mixed_and_who_waits_longest_is_served_first() -> None:
    device, widths = Accelerator(), []
    device.fails = lambda pixels: bool(widths.append(pixels.shape[2]))
    arrive(
        BatchingRunner(device, DynamicBatching(8)),
        device,
        [picture(i, width) for i, width in enumerate((64, 96, 64, 96, 64))],
    )
    assert (device.batches, widths) == ([1, 2, 2], [64, 96, 64])


def test_a_batch_is_no_larger_than_allowed_and_keeps_the_order() -> None:
    device, numbers = Accelerator(), []
    device.fails = lambda pixels: bool(numbers.extend(pixels[:, 0, 0, 0]))
    pairs = [np.concatenate([picture(2 * i), picture(2 * i + 1)]) for i in range(5)]
    arrive(BatchingRunner(device, DynamicBatching(5)), device, pairs)
    assert (device.batches, numbers) == ([2, 4, 4], list(range(10)))


@pytest.mark.parametrize("window_s", [0.0, 0.002])
def test_sixteen_threads_that_never_pause(window_s: float) -> None:
    device = Accelerator(0.0005)
    shared = BatchingRunner(device, DynamicBatching(8, window_s, lambda: 16))

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            number, width = int(rng.integers(36)), int(rng.choice([64, 96]))
            assert_same(shared.run(picture(number, width)), OUTPUTS[width][number])

    assert together([lambda seed=seed: ask(seed) for seed in range(16)]) == [None] * 16
    assert sum(device.batches) == 16 * 30
    assert max(device.batches) <= 8


@pytest.mark.parametrize(("size", "active"), [(4, 9), (8, 4)])
def test_the_window_ends_when_the_batch_is_full_or_nobody_else_is_active(size: int, active: int) -> None:
    device = Accelerator()
    shared = BatchingRunner(device, DynamicBatching(size, PATIENCE_S, lambda: active))
    together([lambda i=i: shared.run(picture(i)) for i in range(4)])
    assert device.batches == [4]


def test_the_window_ends_in_time_when_an_active_caller_does_not_come() -> None:
    device = Accelerator()
    shared = BatchingRunner(device, DynamicBatching(8, 0.01, lambda: 3))
    assert_same(shared.run(picture(5)), OUTPUTS[64][5])


def test_a_failing_batch_fails_only_those_who_fail_alone() -> None:
    device = Accelerator()
    device.fails = lambda pixels: bool((pixels[:, 0, 0, 0] == 3).any())
    shared = BatchingRunner(device, DynamicBatching(8, PATIENCE_S, lambda: 6))
    found = together([lambda i=i: shared.run(picture(i)) for i in range(6)])
    assert device.batches == [6, 1, 1, 1, 1, 1, 1]
    for i, answer in enumerate(found):
        if i == 3:
            assert isinstance(answer, RuntimeError)
            assert str(answer) == "out of memory at 1 images, first pixel 3"
        else:
            assert_same(answer, OUTPUTS[64][i])
    # The next call finds the runner as it was.
    alone = BatchingRunner(device, DynamicBatching(8))
    assert_same(alone.run(picture(2)), OUTPUTS[64][2])
    assert_same(together([lambda: shared.run(picture(4))] * 6)[5], OUTPUTS[64][4])


def test_each_of_those_who_fail_has_an_error_of_its_own() -> None:
    device = Accelerator()
    device.fails = lambda _: True
    shared = BatchingRunner(device, DynamicBatching(8, PATIENCE_S, lambda: 4))
    found = together([lambda i=i: shared.run(picture(i)) for i in range(4)])
    assert [str(error)[-1] for error in found] == ["0", "1", "2", "3"]
    assert len({id(error) for error in found}) == 4


def test_a_graph_that_mixes_the_images_of_a_batch_up_is_run_one_by_one() -> None:
    class Summing(Accelerator):
        def run(self, pixels: np.ndarray) -> list[np.ndarray]:
            return [it.sum(axis=0, keepdims=True) for it in super().run(pixels)]

    device = Summing()
    shared = BatchingRunner(device, DynamicBatching(8, PATIENCE_S, lambda: 3))
    for i, answer in enumerate(together([lambda i=i: shared.run(picture(i)) for i in range(3)])):
        assert_same(answer, OUTPUTS[64][i])


def test_a_caller_with_more_images_than_a_batch_takes_is_answered() -> None:
    device = Accelerator()
    shared = BatchingRunner(device, DynamicBatching(2))
    found = shared.run(np.concatenate([picture(i) for i in range(5)]))
    assert_same(found, [np.concatenate(parts) for parts in zip(*OUTPUTS[64][:5], strict=True)])


def test_nothing_is_wrapped_where_batches_are_off() -> None:
    device = Accelerator()
    assert DynamicBatching(1).wrap(device) is device
    assert DynamicBatching(2).wrap(device).preferred_batch_size == device.preferred_batch_size


def test_a_run_that_hangs_is_given_up_and_the_others_go_on() -> None:
    """Also when the thread that hung returns after all: it must not run the batch of another leader."""
    device = Accelerator()
    batching = DynamicBatching(2, PATIENCE_S, lambda: 2)
    shared = batching.wrap(device)
    device.gate.clear()
    found: dict[int, object] = {}

    def ask(i: int) -> None:
        try:
            found[i] = shared.run(picture(i))
        except RuntimeError as error:
            found[i] = error

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(4)]
    for thread in threads[:2]:
        thread.start()
    eventually(lambda: device.batches == [2])
    for thread in threads[2:]:
        thread.start()
    eventually(lambda: len(shared._waiting) == 2)
    device._device = threading.Lock()  # this device runs another batch while one hangs
    leader = next(thread for thread in threads[:2] if thread is shared._leader.thread)
    (mate,) = (thread for thread in threads[:2] if thread is not leader)

    batching.give_up(mate)  # it only waits: nothing changes
    assert shared._leader.thread is leader
    batching.give_up(leader)
    mate.join(PATIENCE_S)
    assert "has not returned from a batch of 2 calls" in str(found[threads.index(mate)])
    eventually(lambda: device.batches == [2, 2])
    device.gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    for i in (2, 3):
        assert_same(found[i], OUTPUTS[64][i])
    batching.active_callers = lambda: 1  # nobody to wait for
    assert_same(shared.run(picture(7)), OUTPUTS[64][7])
