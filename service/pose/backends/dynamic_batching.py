"""Dynamic batching: gathers the images of several callers into one call of a network.

On an accelerator a call costs nearly the same for one image as for several, and one call runs after another. Those who
ask meanwhile therefore wait together, and run together. One of the waiting callers does the work for all of them, so
that there is no thread to start or to stop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from service.pose.backends.runner import Runner

Outputs = list[NDArray[np.float32]]


@dataclass(slots=True)
class DynamicBatching:
    """How images are gathered.

    Attributes:
        size: Most images in a batch, except where one caller has more; 1: nothing is gathered.
        window_s: Seconds that an idle network waits for more images, at most.
        active_callers: Number of threads that may call any network soon, including those that wait in one. A network
            never waits for more callers than that. None: it does not wait, but gathers who came while it was busy.
        on_batch: Is told the number of images of each run.
    """

    size: int
    window_s: float = 0.0
    active_callers: Callable[[], int] | None = None
    on_batch: Callable[[int], None] | None = None
    _runners: WeakSet[BatchingRunner] = field(default_factory=WeakSet)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrap(self, runner: Runner) -> Runner:
        """Return a runner that gathers; the same one where nothing is gathered."""
        if self.size == 1:
            return runner
        shared = BatchingRunner(runner, self)
        with self._lock:
            self._runners.add(shared)
        return shared

    def give_up(self, thread: threading.Thread) -> None:
        """Let nobody wait any longer for a batch that ``thread`` runs: it hangs."""
        with self._lock:
            runners = list(self._runners)
        for runner in runners:
            runner.give_up(thread)


@dataclass(slots=True, eq=False)
class _Call:
    """One caller's images. ``wake`` is set when ``outputs`` or ``error`` is there, or when it becomes the leader."""

    pixels: NDArray[np.uint8]
    thread: threading.Thread = field(default_factory=threading.current_thread)
    wake: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    outputs: Outputs | None = None
    error: BaseException | None = None


class BatchingRunner:
    """Runs the images of several callers together, first come, first served; images of different sizes are not mixed.

    The caller that finds the network idle leads: it waits for others, runs their images with its own, and hands over to
    the caller that has waited longest. If a batch fails, its calls run again one by one, so that each caller gets its
    own outputs or its own error. If the network never returns from a batch, whoever notices says so by `give_up`.
    """

    def __init__(self, runner: Runner, batching: DynamicBatching) -> None:
        self.backend = runner.backend
        self.preferred_batch_size = runner.preferred_batch_size
        self._runner = runner
        self._batching = batching
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # only the leader waits for it
        self._waiting: deque[_Call] = deque()
        self._leader: _Call | None = None
        self._batch: list[_Call] = []  # what the leader runs, its own call included

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """See `Runner.run`."""
        call = _Call(pixels)
        with self._lock:
            self._waiting.append(call)
            if self._leader is None:
                self._leader, call.leads = call, True
            self._arrived.notify()
        if not call.leads:
            call.wake.wait()
        if call.leads:
            self._lead(call)
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _lead(self, leader: _Call) -> None:
        """Run one batch, which includes the leader's call: it is always the one that has waited longest."""
        with self._lock:
            batch = self._batch = self._gather()
        self._infer(batch)
        with self._lock:
            if self._leader is leader:  # it was not given up meanwhile
                self._hand_over()
        for call in batch:
            if call is not leader:
                call.wake.set()

    def _hand_over(self) -> None:
        """Let the caller that has waited longest lead, if there is one; the lock must be held."""
        self._batch = []
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is not None:
            self._leader.leads = True
            self._leader.wake.set()

    def give_up(self, thread: threading.Thread) -> None:
        """Go on without the leader if it is ``thread`` and its run hangs; those in its batch get an error."""
        with self._lock:
            leader, batch = self._leader, self._batch
            if leader is None or leader.thread is not thread or not batch:
                return
            self._hand_over()
        for call in batch:
            if call is not leader:
                call.error = RuntimeError(f"the network has not returned from a batch of {len(batch)} calls")
                call.wake.set()

    def _gather(self) -> list[_Call]:
        """Wait until the batch is full, nobody else can come, or the window has passed; then take it."""
        batching = self._batching
        ends_s = time.monotonic() + batching.window_s
        while batching.active_callers is not None:
            left_s = ends_s - time.monotonic()
            is_full = sum(len(call.pixels) for call in self._waiting) >= batching.size
            if is_full or left_s <= 0 or len(self._waiting) >= batching.active_callers():
                break
            self._arrived.wait(left_s)
        batch = list(self._fitting())
        for call in batch:
            self._waiting.remove(call)
        return batch

    def _fitting(self) -> Iterator[_Call]:
        """Find the calls that run with the first one: in order, of its image size, until the batch is full."""
        first = self._waiting[0]
        total = len(first.pixels)
        yield first
        for call in islice(self._waiting, 1, None):
            if call.pixels.shape[1:] != first.pixels.shape[1:]:
                continue
            total += len(call.pixels)
            if total > self._batching.size:
                return
            yield call

    def _infer(self, batch: list[_Call]) -> None:
        """Give each call its outputs or its error; never raises, as other threads wait."""
        try:
            parts = self._run_together([call.pixels for call in batch])
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for it
            if len(batch) == 1:
                batch[0].error = error
                return
            for call in batch:
                self._infer([call])
        else:
            for call, outputs in zip(batch, parts, strict=True):
                call.outputs = outputs

    def _run_together(self, images: list[NDArray[np.uint8]]) -> list[Outputs]:
        """Run the network once; return the outputs of each caller's images.

        Raises:
            ValueError: The graph's outputs are not those of its images one by one.
            Exception: Whatever the runner raises.
        """
        pixels = images[0] if len(images) == 1 else np.concatenate(images)
        outputs = self._runner.run(pixels)
        if self._batching.on_batch is not None:
            self._batching.on_batch(len(pixels))
        if len(images) == 1:
            return [outputs]
        if any(len(output) != len(pixels) for output in outputs):
            raise ValueError(f"expected outputs for {len(pixels)} images, got {[len(output) for output in outputs]}")
        ends = np.cumsum([len(it) for it in images])[:-1]
        return [list(own) for own in zip(*(np.split(output, ends) for output in outputs), strict=True)]
