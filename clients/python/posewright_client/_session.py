"""One stream as a state machine, without I/O, clock or threads.

A session spans several connections: the numbers of frames continue, and frames that are unanswered when a connection
breaks are counted as lost (``latest``) or sent again (``all``). `posewright_client._stream` reports events with their
time, and asks what to send.

Every offered frame ends up in exactly one of: answered, dropped (the server replaced it by a newer one), replaced (by a
newer one before it was sent), lost.
"""

from __future__ import annotations

import json
import struct
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posewright_client._errors import ProblemError, Timeout
from posewright_client._frames import IN_FLIGHT, StreamOptions, StreamResult, StreamStats
from posewright_client._parsing import COCO, Reading, parse_poses, skeleton_of
from posewright_client._results import Pose

SUBPROTOCOL = "pose.v1.json"
HEADER = struct.Struct(">BBHIQ")
"""Header of every frame: version, flags, reserved, seq, capture time in µs; 16 bytes."""
VERSION = 1
SEQ_MASK, LAST_CAPTURE_US = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
WAITING = {"latest": 1, "all": 2}
"""Maximum number of frames that wait to be sent."""


@dataclass(frozen=True, slots=True)
class QueuedFrame:
    """A frame to be sent: encoded, with its number and times."""

    seq: int
    content: bytes
    capture_us: int
    taken_s: float
    frame: object

    def message(self) -> bytes:
        """Return the binary message: the header, and the picture."""
        # In the header, 0 means that there is no capture time, but the first frame of a video has the time 0.
        capture_us = min(max(1, self.capture_us), LAST_CAPTURE_US)
        return HEADER.pack(VERSION, 0, 0, self.seq & SEQ_MASK, capture_us) + self.content


class StreamSession:
    """The state of one stream; times are seconds on a monotonic clock."""

    def __init__(self, options: StreamOptions) -> None:
        self.options = options
        self.stats = StreamStats()
        self.close_reason = ""
        """The reason in the server's ``bye`` message."""
        self.connection_problem: ProblemError | None = None
        """The last problem that concerns the connection and not a frame."""
        self._waiting: deque[QueuedFrame] = deque()
        self._in_flight: dict[int, tuple[QueuedFrame, float]] = {}  # by seq on the wire, in the order sent
        self._results: deque[StreamResult] = deque()
        self._control: deque[str] = deque()
        self._ready = self._closing = self._finished = False
        self._skeleton = COCO
        self._id = ""
        self._max_bytes = sys.maxsize
        self._window = self._wanted_window = options.max_in_flight or IN_FLIGHT[options.policy]
        self._idle_s = self._opened_s = self._sent_s = self._bye_s = self._answered_s = 0.0
        self._reported = StreamStats()

    # Called for the source.

    @property
    def has_room(self) -> bool:
        """Whether the source may offer another frame; always true with ``latest``, which replaces waiting frames."""
        return self.options.policy == "latest" or len(self._waiting) < WAITING["all"]

    def offer(self, content: bytes, capture_us: int, now_s: float, frame: object) -> None:
        """Queue the next frame of the source; with ``latest`` it replaces the waiting one."""
        if self.options.policy == "latest":
            self.stats.replaced += len(self._waiting)
            self._waiting.clear()
        self._waiting.append(QueuedFrame(self.stats.offered, content, capture_us, now_s, frame))
        self.stats.offered += 1

    def finish(self) -> None:
        """Note that the source has ended."""
        self._finished = True

    # Called for the connection.

    @property
    def settled(self) -> bool:
        """Whether all frames have been sent and answered; results may remain to be read."""
        return self._finished and not self._waiting and not self._in_flight

    @property
    def can_send(self) -> bool:
        """Whether a frame waits that may be sent on an open connection."""
        return bool(self._waiting) and len(self._in_flight) + len(self._results) < self._window

    def opened(self, now_s: float) -> None:
        """Note that a new connection is open."""
        self._control.clear()
        self._control.append(self.options.hello())
        self._ready = self._closing = False
        self._id, self._idle_s, self.close_reason, self.connection_problem = "", 0.0, "", None
        self._opened_s = self._sent_s = self._answered_s = now_s

    def broke(self) -> None:
        """Note that the connection broke: unanswered frames are lost, or sent again first."""
        unanswered = [offered for offered, _ in self._in_flight.values()]
        self._in_flight.clear()
        if self.options.policy == "all":
            self._waiting.extendleft(reversed(unanswered))
        else:
            self.stats.lost += len(unanswered)

    def outgoing(self, now_s: float) -> str | bytes | None:
        """Return the next message to send, or None if nothing can be sent now."""
        if self._control:
            self._sent_s = now_s
            return self._control.popleft()
        if not self._ready or self._closing:
            return None
        if self.can_send:
            offered = self._waiting.popleft()
            self._in_flight[offered.seq & SEQ_MASK] = offered, now_s
            self._sent_s = now_s
            return offered.message()
        if self._idle_s and now_s - self._sent_s >= self._idle_s / 3:
            self._sent_s = now_s
            return '{"type":"ping"}'
        return None

    def refuse(self, now_s: float) -> bool:
        """If the next frame is too large for the server, answer it with a problem, and return True."""
        if not self._ready or not self._waiting or len(self._results) >= self._window:
            return False
        size = HEADER.size + len(self._waiting[0].content)
        if size <= self._max_bytes:
            return False
        offered = self._waiting.popleft()
        seq = offered.seq & SEQ_MASK
        self._in_flight[seq] = offered, now_s
        self.stats.problems += 1
        problem = {
            "type": "/problems/image-too-large",
            "status": 413,
            "title": "The picture is too large",
            "detail": f"expected a message of at most {self._max_bytes} bytes, got {size}; make the picture smaller",
        }
        self._answer({"seq": seq}, now_s, (), None, ProblemError.from_document(problem))
        return True

    def next_check_s(self) -> float:
        """Return the time at which `outgoing` or `check` must be called again if no event comes before."""
        ping_s = self._sent_s + self._idle_s / 3 if self._ready and self._idle_s and not self._closing else float("inf")
        return min(self._deadline_s(), ping_s)

    def check(self, now_s: float) -> None:
        """Check whether the server has been silent for too long.

        Raises:
            Timeout: The ``ready`` message, a result, or the close after ``bye`` is overdue.
        """
        if now_s >= self._deadline_s():
            missing = (
                "ready message" if not self._ready else "close after bye" if self._closing else "answer to a frame"
            )
            raise Timeout(f"/stream: no {missing} within {self.options.reply_timeout_s:g} s; see reply_timeout_s")

    def _deadline_s(self) -> float:
        # The server processes one frame at a time, so the oldest one counts from the last answer.
        since_s = next((max(sent_s, self._answered_s) for _, sent_s in self._in_flight.values()), None)
        if not self._ready:
            since_s = self._opened_s
        elif self._closing and since_s is None:
            since_s = self._bye_s
        return float("inf") if since_s is None else since_s + self.options.reply_timeout_s

    def receive(self, message: str | bytes, now_s: float) -> None:
        """Process a message of the server; unknown types are ignored.

        Raises:
            BadReply: The message does not follow the wire format.
        """
        with Reading("/stream"):
            event = json.loads(message)
            match event.get("type"):
                case "ready":
                    self._on_ready(event)
                case "result":
                    self._on_result(event, now_s)
                case "error":
                    self._on_error(event, now_s)
                case "bye":
                    self._on_bye(event, now_s)
                case "ping":
                    self._control.append('{"type":"pong"}')

    def _on_ready(self, event: Mapping[str, Any]) -> None:
        self._ready, self._id = True, str(event.get("session", ""))
        self._skeleton = skeleton_of(event)
        self._max_bytes = int((event.get("limits") or {}).get("max_frame_bytes") or sys.maxsize)
        self._idle_s = float(event.get("idle_timeout_s") or 0)
        if self.options.policy == "all":
            # The server's queue then never fills up, and the server never stops reading.
            most = (event.get("limits") or {}).get("waiting_frames")
            self._window = min(self._wanted_window, max(1, int(most))) if most else self._wanted_window

    def _on_bye(self, event: Mapping[str, Any], now_s: float) -> None:
        self._closing, self._bye_s, self.close_reason = True, now_s, str(event.get("reason", ""))
        if event.get("problem"):
            self.connection_problem = ProblemError.from_document(event["problem"])

    def _on_result(self, event: Mapping[str, Any], now_s: float) -> None:
        if event["seq"] not in self._in_flight:
            return
        poses, age_ms = parse_poses(event["poses"], self._skeleton), float(event["age_ms"])
        self._answered_s = now_s
        # Frames are answered in the order of sending, so earlier ones will not be answered any more.
        while next(iter(self._in_flight)) != event["seq"]:
            del self._in_flight[next(iter(self._in_flight))]
            self.stats.dropped += 1
        self._answer(event, now_s, poses, age_ms, None)

    def _on_error(self, event: Mapping[str, Any], now_s: float) -> None:
        problem = ProblemError.from_document(event["problem"])
        if event.get("seq") in self._in_flight:
            # A bad frame may be refused while an earlier one is still processed, so earlier ones are not dropped.
            self.stats.problems += 1
            self._answer(event, now_s, (), None, problem)
        else:
            self.connection_problem = problem

    def _answer(
        self,
        event: Mapping[str, Any],
        now_s: float,
        poses: tuple[Pose, ...],
        age_ms: float | None,
        problem: ProblemError | None,
    ) -> None:
        frame, sent_s = self._in_flight.pop(event["seq"])
        self.stats.answered += 1
        now, before = self.stats, self._reported
        self._results.append(
            StreamResult(
                frame.seq,
                frame.capture_us,
                poses,
                problem,
                age_ms,
                round_trip_ms=(now_s - sent_s) * 1000,
                latency_ms=(now_s - frame.taken_s) * 1000,
                dropped=int(event.get("dropped") or 0),
                replaced=now.replaced - before.replaced,
                lost=now.lost - before.lost,
                session=self._id,
                timings_ms=dict(event.get("timings_ms") or {}),
                frame=frame.frame,
            )
        )
        before.replaced, before.lost = now.replaced, now.lost

    # Called for the reader of the results.

    def take(self) -> StreamResult | None:
        """Return the next result, or None if there is none yet."""
        return self._results.popleft() if self._results else None
