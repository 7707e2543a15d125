"""Video files that are not as cameras and editors usually write them."""

from __future__ import annotations

import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from service.video.allowed_urls import AllowedUrls
from service.video.errors import VideoUnreadable
from service.video.frames import Video, VideoInfo
from tests.cameras import av

SIZE = (96, 64)
MS = Fraction(1, 1000)
COUNT = 8


def picture(i: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Red left, green above blue right; the blue tells the frame."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 200, 30)
    pixels[height // 2 :, width // 2 :] = (30, 30, 80 + 20 * i)
    return pixels


def write(
    path: Path,
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    *,
    stamp: Callable[[int], int] | None = None,
    size: tuple[int, int] = SIZE,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    count: int = COUNT,
) -> Path:
    """Write a video; ``stamp`` gives the time of a frame in ms."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if stamp is not None:
            stream.time_base = stream.codec_context.time_base = MS
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i, size), format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, 25)) if stamp is None else (stamp(i), MS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[VideoInfo, list[tuple[float, np.ndarray]]]:
    """What the video says of itself, and its frames with their times."""
    allowed = AllowedUrls((f"file:{path.parent}",))
    video = Video(allowed.require(path.as_uri()), allowed)
    info = video.open()
    return info, [(it.time_s, it.pixels()) for it in video.frames()]


EVEN = [i * 0.04 for i in range(COUNT)]
LIVE = {"live": "1"}
KEEP = {"avoid_negative_ts": "disabled"}


@pytest.mark.parametrize(
    ("name", "given", "times"),
    [
        ("a.webm", {"codec": "libvpx", "muxer": LIVE}, EVEN),  # as browsers' MediaRecorder writes it
        ("a.h264", {"codec": "libx264"}, EVEN),
        ("a.mjpeg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, EVEN),
        ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}, EVEN),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "size": (95, 63)}, EVEN),
        ("b.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "size": (1, 1)}, EVEN),
        ("c.mkv", {"codec": "ffv1", "pix_fmt": "gray16le"}, EVEN),
        ("d.mkv", {"codec": "libx264", "pix_fmt": "yuv420p10le"}, EVEN),
        ("a.mov", {"codec": "qtrle", "pix_fmt": "argb"}, EVEN),
        ("e.mkv", {"stamp": lambda i: -2000 + 40 * i, "muxer": KEEP}, EVEN),
        ("f.mkv", {"stamp": lambda i: 10**12 + 40 * i}, EVEN),
        ("g.mkv", {"stamp": lambda i: 7 * i * i}, [0.007 * i * i for i in range(COUNT)]),
        ("b.mp4", {"codec": "libx264", "options": {"bf": "2"}}, EVEN),
        ("one.mp4", {"count": 1}, [0]),
        ("a.flv", {"codec": "libx264"}, EVEN),  # ends the process in PyAV before 17.1
    ],
    ids=[
        "WebM without a duration", "H.264 without a container", "JPEGs without a container", "GIF", "odd sides",
        "one pixel", "16 bits of grey", "10 bits", "alpha", "negative times", "huge times", "variable rate", "B-frames",
        "one frame", "FLV",
    ],
)  # fmt: skip
def test_a_file_has_its_frames_and_its_times(
    name: str, given: dict[str, Any], times: list[float], tmp_path: Path
) -> None:
    info, frames = read(write(tmp_path / name, **given))
    assert not info.live
    assert info.frame_count in {0, len(times)} or name in {"g.mkv", "a.flv"}  # where it is an estimate
    assert [it for it, _ in frames] == pytest.approx(times, abs=2e-3)
    size = given.get("size", SIZE)
    for i, (_, pixels) in enumerate(frames):
        assert (pixels.shape, pixels.dtype) == ((size[1], size[0], 3), np.uint8)
        if size != (1, 1) and "gray" not in given.get("pix_fmt", ""):
            assert np.median(np.abs(pixels.astype(int) - picture(i, size))) < 25


def test_frames_of_an_avi_with_b_frames_have_rising_times(tmp_path: Path) -> None:
    """AVI has no presentation times; FFmpeg guesses them, and in another order than it gives the frames."""
    _, frames = read(write(tmp_path / "a.avi", "libx264", options={"bf": "2"}))
    blues = [int(pixels[-5, -5, 2]) for _, pixels in frames]
    times = [it for it, _ in frames]
    assert blues == sorted(blues)
    assert times == sorted(set(times))
    assert times == pytest.approx(EVEN, abs=0.09)


def test_joined_recordings_of_different_sizes_are_one_video(tmp_path: Path) -> None:
    first = write(tmp_path / "a.ts", "libx264")
    second = write(tmp_path / "b.ts", "libx264", size=(64, 96))
    (tmp_path / "joined.ts").write_bytes(first.read_bytes() + second.read_bytes())
    _, frames = read(tmp_path / "joined.ts")
    assert [it for it, _ in frames] == pytest.approx([i * 0.04 for i in range(2 * COUNT)], abs=1e-3)
    assert [pixels.shape for _, pixels in frames] == [(64, 96, 3)] * COUNT + [(96, 64, 3)] * COUNT


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda it: it.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda it: np.rot90(it, 2).transpose(1, 0, 2)),
        ((0, 1, -1, 0), lambda it: np.rot90(it, -1)),
    ],
    ids=["mirrored", "upside down", "mirrored, a quarter left", "mirrored, a quarter right", "a quarter right"],
)
def test_a_mirrored_video_is_shown_as_players_show_it(
    matrix: tuple[int, int, int, int], shown: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    """The first row of ISO/IEC 14496-12's matrix is where x goes, the second one where y goes."""
    path = write(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (it << 16 for it in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    _, frames = read(path)
    expected = shown(picture(0))
    assert frames[0][1].shape == expected.shape
    assert np.abs(frames[0][1].astype(int) - expected).mean() < 10


def sound(path: Path, *, cover: bool) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        packets = []
        if cover:
            still = container.add_stream("mjpeg", rate=1)
            still.width, still.height, still.pix_fmt = *SIZE, "yuvj420p"
            still.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24")
            packets = [*still.encode(frame), *still.encode(None)]
        stream = container.add_stream("aac", rate=8000)
        for packet in packets:
            container.mux(packet)
        for i in range(5):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, 1024 * i
            container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_is_no_video_even_with_a_cover(cover: bool, tmp_path: Path) -> None:
    with pytest.raises(VideoUnreadable, match="without pictures"):
        read(sound(tmp_path / "a.m4a", cover=cover))


def test_a_format_that_is_not_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.y4m", "rawvideo")
    with pytest.raises(VideoUnreadable, match="does not read; it reads MP4, MOV"):
        read(path)


class Host(http.server.BaseHTTPRequestHandler):
    folder: Path
    says_length = True
    missing = 0
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        content = next(self.folder.iterdir()).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "video/webm")
        if self.says_length:
            self.send_header("Content-Length", str(len(content) + self.missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hosting(folder: Path, *, says_length: bool, missing: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Serve the one file of a folder; ``missing`` bytes that are announced do not come."""
    paths: list[str] = []
    handler = type("Of", (Host,), {"folder": folder, "says_length": says_length, "missing": missing, "paths": paths})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("says_length", [True, False])
def test_a_recording_of_unknown_duration_on_a_web_server_has_all_of_its_frames(
    says_length: bool, tmp_path: Path
) -> None:
    """With a length it is a file; without, it may be a camera, but its frames are all there."""
    write(tmp_path / "a.webm", "libvpx", muxer=LIVE)
    allowed = AllowedUrls(("127.0.0.1",))
    with hosting(tmp_path, says_length=says_length) as (url, _):
        video = Video(allowed.require(f"{url}/a.webm"), allowed)
        assert video.open().live != says_length
        assert len(list(video.frames())) == COUNT


@pytest.mark.parametrize("path", ["/vidéo/ä.webm?größe=1&x=%20", "/日本/歩.webm"])
def test_letters_of_all_languages_are_sent_as_web_servers_expect_them(path: str, tmp_path: Path) -> None:
    write(tmp_path / "a.webm", "libvpx")
    allowed = AllowedUrls(("127.0.0.1",))
    with hosting(tmp_path, says_length=True) as (url, paths):
        video = Video(allowed.require(url + path), allowed)
        video.open()
        assert len(list(video.frames())) == COUNT
    assert paths == [quote(path, safe="/?=&%")]


def test_a_connection_that_breaks_is_no_end(tmp_path: Path) -> None:
    write(tmp_path / "a.webm", "libvpx", muxer=LIVE)
    allowed = AllowedUrls(("127.0.0.1",))
    with hosting(tmp_path, says_length=True, missing=1000) as (url, _):
        video = Video(allowed.require(f"{url}/a.webm"), allowed)

        def read_to_the_end() -> None:
            video.open()  # reads a short file to its end already
            list(video.frames())

        with pytest.raises(VideoUnreadable, match="Connection reset"):
            read_to_the_end()
