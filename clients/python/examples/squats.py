"""Counts squats in a video or in front of a webcam, by the angle of the knees.

    python squats.py training.mp4
    python squats.py 0                 # the first webcam

The camera should see the person from the side: knees that bend towards the camera look straight.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator

import cv2

from posewright_client import Client, Frame, Pose

DOWN_BELOW, UP_ABOVE = 110.0, 150.0
"""Knee angles in degrees. Between the two nothing changes, so that a trembling knee counts once."""
SURE = 0.4
"""Keypoints with a lower score are ignored."""


def knee_angle(pose: Pose) -> float | None:
    """Return the mean angle of the knees that are seen: 180 degrees is a straight leg. None if no knee is seen."""
    angles = []
    for side in ("left", "right"):
        hip, knee, ankle = (pose[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        if min(hip.score, knee.score, ankle.score) >= SURE:
            thigh, shank = (hip.x - knee.x, hip.y - knee.y), (ankle.x - knee.x, ankle.y - knee.y)
            cross = thigh[0] * shank[1] - thigh[1] * shank[0]
            dot = thigh[0] * shank[0] + thigh[1] * shank[1]
            angles.append(abs(math.degrees(math.atan2(cross, dot))))
    return sum(angles) / len(angles) if angles else None


class SquatCounter:
    """Counts the squats of one person: each time the knees were bent and are straight again."""

    def __init__(self) -> None:
        self.count = 0
        self._down = False

    def update(self, angle: float | None) -> bool:
        """Take the knee angle of the next frame; returns whether a squat was completed."""
        if angle is not None and angle < DOWN_BELOW:
            self._down = True
        completed = self._down and angle is not None and angle > UP_ABOVE
        if completed:
            self._down = False
            self.count += 1
        return completed


def read_frames(capture: cv2.VideoCapture, *, live: bool) -> Iterator[Frame]:
    """Yield the frames of a video file, with their times, or those of a webcam, as they come."""
    while True:
        found, bgr = capture.read()
        if not found:
            return
        time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # OpenCV's pictures are BGR, posewright's RGB
        yield Frame(rgb) if live else Frame(rgb, round(time_ms * 1000))


def main(arguments: list[str] | None = None) -> int:
    """Count until the video ends; returns the number of squats of all people."""
    parser = argparse.ArgumentParser(description="Counts squats.")
    parser.add_argument("source", help="a video file, or the number of a webcam")
    parser.add_argument("--url", default="http://localhost:8000", help="address of the posewright server")
    args = parser.parse_args(arguments)
    live = args.source.isdigit()
    capture = cv2.VideoCapture(int(args.source) if live else args.source)
    if not capture.isOpened():
        raise SystemExit(f"OpenCV cannot open {args.source!r}")

    counters: dict[tuple[str, str | None], SquatCounter] = defaultdict(SquatCounter)
    with (
        Client(args.url) as client,
        client.stream(
            read_frames(capture, live=live),
            policy="latest" if live else "all",  # of a file, every frame matters
        ) as stream,
    ):
        for result in stream:
            for pose in result:
                counter = counters[result.session, pose.id]  # ids belong to one session
                if counter.update(knee_angle(pose)):
                    print(f"{result.capture_us / 1e6:.1f} s: person {pose.id}, squat {counter.count}", flush=True)
    total = sum(counter.count for counter in counters.values())
    print(f"{total} squats")
    return total


if __name__ == "__main__":
    main()
