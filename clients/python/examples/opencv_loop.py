"""Shows a webcam or a video with the skeletons of the people in it, live. Escape ends.

    python opencv_loop.py 0
    python opencv_loop.py walk.mp4
    python opencv_loop.py walk.mp4 --headless drawn.mp4     # writes a video, without a window

A window needs the package opencv-python in place of opencv-python-headless.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np

from posewright_client import Client, Frame, StreamResult, draw

ESCAPE = 27


def read_frames(capture: cv2.VideoCapture, *, live: bool) -> Iterator[Frame]:
    """Yield frames; the client reads them in a thread of its own, so the camera never waits for the window.

    Those of a video file have their times in it: people are followed by how far they move from one frame to the next.
    """
    while True:
        found, bgr = capture.read()
        if not found:
            return
        time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # OpenCV's pictures are BGR, posewright's RGB
        yield Frame(rgb) if live else Frame(rgb, round(time_ms * 1000))


def drawn(result: StreamResult) -> np.ndarray:
    """Return the frame of a result with its skeletons, BGR."""
    assert isinstance(result.frame, Frame)  # what read_frames yielded
    picture = cv2.cvtColor(draw(result.frame.picture, result), cv2.COLOR_RGB2BGR)
    text = f"{len(result)} people, {result.latency_ms:.0f} ms"
    cv2.putText(picture, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    return picture


def main(arguments: list[str] | None = None) -> int:
    """Run until the source ends or the user quits; returns the number of frames shown or written."""
    parser = argparse.ArgumentParser(description="Shows the skeletons of people, live.")
    parser.add_argument("source", help="a video file, or the number of a webcam")
    parser.add_argument("--headless", metavar="VIDEO", help="write a video instead of showing a window")
    parser.add_argument("--url", default="http://localhost:8000", help="address of the posewright server")
    args = parser.parse_args(arguments)

    live = args.source.isdigit()
    capture = cv2.VideoCapture(int(args.source) if live else args.source)
    if not capture.isOpened():
        raise SystemExit(f"OpenCV cannot open {args.source!r}")
    if not args.headless:
        try:
            cv2.namedWindow("posewright")
        except cv2.error:
            raise SystemExit(
                "OpenCV has no windows here: pip uninstall opencv-python-headless, then pip install opencv-python; "
                "or write a video with --headless drawn.mp4"
            ) from None
    writer, count = None, 0
    # A window shows the newest frame and leaves out those that would be late; a video needs all of them.
    with (
        Client(args.url) as client,
        client.stream(read_frames(capture, live=live), policy="all" if args.headless else "latest") as stream,
    ):
        for result in stream:
            if result.problem is not None:
                print(f"frame {result.seq}: {result.problem}")
                continue
            picture = drawn(result)
            count += 1
            if args.headless:
                if writer is None:
                    height, width, _ = picture.shape
                    fps = capture.get(cv2.CAP_PROP_FPS) or 25
                    writer = cv2.VideoWriter(args.headless, cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
                writer.write(picture)
            else:
                cv2.imshow("posewright", picture)
                if cv2.waitKey(1) == ESCAPE:
                    break
    if writer is not None:
        writer.release()
    capture.release()
    print(f"{count} frames")
    return count


if __name__ == "__main__":
    main()
