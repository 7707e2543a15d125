"""One stream as a state machine, without I/O, clock or threads: WIRE.md's ``/stream`` as a client sees it.

A session outlives its connections: frames are numbered through, and what a broken connection owes is counted as lost
(``latest``) or sent again on the next one (``all``). The shell (`posewright_client._stream`) tells what happened and
when, and asks what to send.

Every frame offered ends up in exactly one of: answered, dropped (replaced by a newer one on the server), replaced (by a
newer one here, before it was sent), lost.
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
"""Version, flags, reserved, seq, capture time in µs: 16 bytes before every frame."""
VERSION = 1
SEQ_MASK, LAST_CAPTURE_US = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
WAITING = {"latest": 1, "all": 2}


@dataclass(frozen=True, slots=True)
class Offered:
    """A frame on its way: encoded, numbered, stamped."""

    seq: int
    content: bytes
    capture_us: int
    taken_s: float
    frame: object

    def message(self) -> bytes:
        """Write it as the wire wants it."""
        # A time of 0 tells the server that there is no clock; videos begin at 0.
        capture_us = min(max(1, self.capture_us), LAST_CAPTURE_US)
        return HEADER.pack(VERSION, 0, 0, self.seq & SEQ_MASK, capture_us) + self.content


class Session:
    """The state of one stream; times are seconds on a clock that only counts up."""

    def __init__(self, options: StreamOptions) -> None:
        self.options = options
        self.stats = StreamStats()
        self.goodbye = ""
        """The server's reason, of its ``bye``."""
        self.complaint: ProblemError | None = None
        """The last problem of the connection as a whole."""
        self._waiting: deque[Offered] = deque()
        self._in_flight: dict[int, tuple[Offered, float]] = {}  # by seq on the wire, in the order sent
        self._results: deque[StreamResult] = deque()
        self._control: deque[str] = deque()
        self._ready = self._leaving = self._finished = False
        self._skeleton = COCO
        self._id = ""
        self._max_bytes = sys.maxsize
        self._window = self._wanted_window = options.max_in_flight or IN_FLIGHT[options.policy]
        self._idle_s = self._opened_s = self._sent_s = self._left_s = self._answered_s = 0.0
        self._reported = StreamStats()

    # The source's side.

    @property
    def has_room(self) -> bool:
        """Whether the source may give another frame; always with ``latest``, which replaces."""
        return self.options.policy == "latest" or len(self._waiting) < WAITING["all"]

    def offer(self, content: bytes, capture_us: int, now_s: float, frame: object) -> None:
        """Take the next frame of the source; with ``latest`` it replaces one that still waits."""
        if self.options.policy == "latest":
            self.stats.replaced += len(self._waiting)
            self._waiting.clear()
        self._waiting.append(Offered(self.stats.offered, content, capture_us, now_s, frame))
        self.stats.offered += 1

    def finish(self) -> None:
        """Learn that the source has no more frames."""
        self._finished = True

    # The connection's side.

    @property
    def settled(self) -> bool:
        """Whether nothing is left to send or to hear; results may be left to take."""
        return self._finished and not self._waiting and not self._in_flight

    @property
    def eager(self) -> bool:
        """Whether a frame waits that may be sent, once there is a connection."""
        return bool(self._waiting) and len(self._in_flight) + len(self._results) < self._window

    def opened(self, now_s: float) -> None:
        """Start over on a new connection."""
        self._control.clear()
        self._control.append(self.options.hello())
        self._ready = self._leaving = False
        self._id, self._idle_s, self.goodbye, self.complaint = "", 0.0, "", None
        self._opened_s = self._sent_s = self._answered_s = now_s

    def broke(self) -> None:
        """Settle what the last connection owes: lost, or to be sent again first."""
        owed = [offered for offered, _ in self._in_flight.values()]
        self._in_flight.clear()
        if self.options.policy == "all":
            self._waiting.extendleft(reversed(owed))
        else:
            self.stats.lost += len(owed)

    def outgoing(self, now_s: float) -> str | bytes | None:
        """Return the next message to send, or None where there is nothing, or nothing may be sent now."""
        if self._control:
            self._sent_s = now_s
            return self._control.popleft()
        if not self._ready or self._leaving:
            return None
        if self.eager:
            offered = self._waiting.popleft()
            self._in_flight[offered.seq & SEQ_MASK] = offered, now_s
            self._sent_s = now_s
            return offered.message()
        if self._idle_s and now_s - self._sent_s >= self._idle_s / 3:
            self._sent_s = now_s
            return '{"type":"ping"}'
        return None

    def refuse(self, now_s: float) -> bool:
        """Answer the next frame with a problem where its size would end the stream; tells whether that was so."""
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
            "type": "urn:posewright:problem:image-too-large",
            "status": 413,
            "title": "The picture is too large",
            "detail": f"expected a message of at most {self._max_bytes} bytes, got {size}; make the picture smaller",
        }
        self._answer({"seq": seq}, now_s, (), None, ProblemError.from_document(problem))
        return True

    def next_check_s(self) -> float:
        """Return when `outgoing` or `check` may have news though nothing happened."""
        ping_s = self._sent_s + self._idle_s / 3 if self._ready and self._idle_s and not self._leaving else float("inf")
        return min(self._patience_s(), ping_s)

    def check(self, now_s: float) -> None:
        """Notice a server that has fallen silent.

        Raises:
            Timeout: It owes a ``ready``, an answer, or the close after its ``bye``, for too long.
        """
        if now_s >= self._patience_s():
            owed = "ready" if not self._ready else "close after its bye" if self._leaving else "answer to a frame"
            raise Timeout(f"/stream: no {owed} within {self.options.reply_timeout_s:g} s; see reply_timeout_s")

    def _patience_s(self) -> float:
        # One frame is worked on at a time: the oldest has waited for the ones before it, which were answered.
        since_s = next((max(sent_s, self._answered_s) for _, sent_s in self._in_flight.values()), None)
        if not self._ready:
            since_s = self._opened_s
        elif self._leaving and since_s is None:
            since_s = self._left_s
        return float("inf") if since_s is None else since_s + self.options.reply_timeout_s

    def receive(self, message: str | bytes, now_s: float) -> None:
        """Take a message of the server; unknown kinds are ignored.

        Raises:
            BadReply: It is not of the wire.
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
            # One is worked on and the rest waits: so the server's queue never fills, and it never stops reading.
            most = (event.get("limits") or {}).get("waiting_frames")
            self._window = min(self._wanted_window, max(1, int(most))) if most else self._wanted_window

    def _on_bye(self, event: Mapping[str, Any], now_s: float) -> None:
        self._leaving, self._left_s, self.goodbye = True, now_s, str(event.get("reason", ""))
        if event.get("problem"):
            self.complaint = ProblemError.from_document(event["problem"])

    def _on_result(self, event: Mapping[str, Any], now_s: float) -> None:
        if event["seq"] not in self._in_flight:
            return
        poses, age_ms = parse_poses(event["poses"], self._skeleton), float(event["age_ms"])
        self._answered_s = now_s
        # Frames are answered in the order sent: what was sent before this one will not be any more.
        while next(iter(self._in_flight)) != event["seq"]:
            del self._in_flight[next(iter(self._in_flight))]
            self.stats.dropped += 1
        self._answer(event, now_s, poses, age_ms, None)

    def _on_error(self, event: Mapping[str, Any], now_s: float) -> None:
        problem = ProblemError.from_document(event["problem"])
        if event.get("seq") in self._in_flight:
            # A bad frame may be refused while one sent before it is still worked on: that one is not dropped.
            self.stats.problems += 1
            self._answer(event, now_s, (), None, problem)
        else:
            self.complaint = problem

    def _answer(
        self,
        event: Mapping[str, Any],
        now_s: float,
        poses: tuple[Pose, ...],
        age_ms: float | None,
        problem: ProblemError | None,
    ) -> None:
        offered, sent_s = self._in_flight.pop(event["seq"])
        self.stats.answered += 1
        now, past = self.stats, self._reported
        self._results.append(
            StreamResult(
                offered.seq,
                offered.capture_us,
                poses,
                problem,
                age_ms,
                round_trip_ms=(now_s - sent_s) * 1000,
                latency_ms=(now_s - offered.taken_s) * 1000,
                dropped=int(event.get("dropped") or 0),
                replaced=now.replaced - past.replaced,
                lost=now.lost - past.lost,
                session=self._id,
                timings_ms=dict(event.get("timings_ms") or {}),
                frame=offered.frame,
            )
        )
        past.replaced, past.lost = now.replaced, now.lost

    # The reader's side.

    def take(self) -> StreamResult | None:
        """Return the next result, or None where there is none yet."""
        return self._results.popleft() if self._results else None
