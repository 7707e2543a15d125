"""A video that OpenCV opens without decoding a frame of it, as with a codec that it lacks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests import spots
from tests.cameras import av
from tests.client.cli.conftest import Run
from tests.conftest import Running


def test_it_is_no_success(run: Run, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All frames lie before the beginning of the edit list."""
    video = tmp_path / "clip.mp4"
    with av.open(str(video), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *spots.DETECTOR_SIZE, "yuv420p"
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(spots.paint(spots.SURE), format="rgb24")
            frame.pts, frame.time_base = i - 50, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for _ in range(2):
        assert run("video", video, "--url", server.url, "--quiet") == 1
        assert "expected a frame that OpenCV can decode, got none" in capsys.readouterr().err
