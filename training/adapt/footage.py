"""Footage of a camera, a folder of pictures or a video, as frames in the order of time.

Frames are kept as upright JPEG files in one folder, so that an interrupted run continues even if the source changed.
The last part is held out for measuring. A gap before it is not used, since neighbouring frames are nearly equal.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose import orientation
from training import files
from training.data import images as pictures

INTERVAL_S = 0.2
"""Minimum distance of a video's frames."""
CHANGE = 10.0
"""A frame counts as changed if the mean of one of 32 x 32 blocks changed by this many of 255 grey levels."""
GAP_S = 5.0
GAP_SHARE = 0.05
"""The gap before the held-out part: `GAP_S` of a video but at most this share, or this share of a folder's pictures."""
LONGEST_SIDE = 1920
"""Maximum side of a kept picture, px."""
JPEG_QUALITY = 97


class FootageError(ValueError):
    """The footage cannot be read, or is too short; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class FootageFrame:
    """One picture.

    Attributes:
        file: Its name in the folder of frames.
        time_s: Seconds from the start of a video; the position in a folder.
        part: ``train``, ``gap`` or ``held out``.
    """

    file: str
    time_s: float
    part: str


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames in the order of time.

    Attributes:
        name: Name of the folder or file.
        images: Folder of the frames.
        frames: In order.
        is_video: Whether it is a video, so that consecutive frames show the same people.
        unreadable: Names of files in the folder that are not pictures.
    """

    name: str
    images: Path
    frames: tuple[FootageFrame, ...]
    is_video: bool
    unreadable: tuple[str, ...] = ()

    def part(self, name: str) -> list[int]:
        """Return the indices of a part's frames."""
        return [i for i, frame in enumerate(self.frames) if frame.part == name]


def describe(source: Path) -> str:
    """Return a hash of the footage's names, sizes and times of change, which does not read the content.

    Raises:
        FootageError: There is nothing.
    """
    stats = [(str(it.relative_to(source)), it.stat()) for it in _pictures(source)] if source.is_dir() else []
    if not source.is_dir():
        if not source.is_file():
            raise FootageError(f"{source}: expected a video file or a folder of pictures, got nothing there")
        stats = [(source.name, source.stat())]
    return hashlib.sha256(json.dumps([(name, it.st_size, it.st_mtime_ns) for name, it in stats]).encode()).hexdigest()


def count(source: Path, limit: int) -> int:
    """Return the maximum count of frames that `collect` will keep; it drops a video's unchanged ones."""
    if source.is_dir():
        return min(limit, len(_pictures(source)))
    capture, stride = _open(source, limit)
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return min(limit, total // stride) if total > 0 else limit


def collect(source: Path, images: Path, limit: int, hold_out: float) -> Footage:
    """Keep frames of a folder or a video. After an interruption, a later call continues.

    Of a video, every k-th frame is read, so that frames are at least `INTERVAL_S` apart and at most ``limit``; it is
    kept if it changed since the last one kept (`CHANGE`). Of a folder, evenly spread pictures are kept in the order of
    their names.

    Args:
        source: A folder of pictures, subfolders included, or a video file that OpenCV reads.
        images: Folder for the frames; ``frames.json`` beside it lists them once it is complete.
        limit: Maximum count of frames.
        hold_out: Share of the time, at the end, that is held out.

    Raises:
        FootageError: There is nothing, nothing is readable, or there are too few frames to split.
    """
    listing = images.with_suffix(".json")
    if listing.is_file():
        tree = json.loads(listing.read_text())
        frames = tuple(FootageFrame(**it) for it in tree["frames"])
        return Footage(tree["name"], images, frames, tree["is_video"], tuple(tree["unreadable"]))
    images.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    if source.is_dir():
        kept = list(_from_folder(source, images, limit, unreadable))
    else:
        kept = list(_from_video(source, images, limit))
    if len(kept) < 4:
        bad = f"; {len(unreadable)} files are not pictures, such as {unreadable[0]}" if unreadable else ""
        raise FootageError(f"{source}: expected at least 4 pictures that differ, got {len(kept)}{bad}")
    is_video = not source.is_dir()
    parts = split([time for _, time in kept], hold_out, GAP_S if is_video else np.inf)
    frames = tuple(FootageFrame(file, time, part) for (file, time), part in zip(kept, parts, strict=True))
    footage = Footage(source.name, images, frames, is_video, tuple(unreadable))
    tree = {
        "name": footage.name,
        "is_video": is_video,
        "unreadable": unreadable,
        "frames": [asdict(it) for it in frames],
    }
    files.write(listing, json.dumps(tree).encode())
    return footage


def split(times: list[float], hold_out: float, longest_gap: float) -> list[str]:
    """Return each frame's part: ``held out`` for the last share of the time, ``gap`` before it, else ``train``."""
    span = times[-1] - times[0]
    begin = times[-1] - hold_out * span
    gap = min(longest_gap, GAP_SHARE * span)
    return ["held out" if t > begin else "gap" if t > begin - gap else "train" for t in times]


def originals(footage: Footage, source: Path, part: str) -> list[Path]:
    """Return the pictures of the folder ``source`` that became the frames of a part; none for a video."""
    if footage.is_video:
        return []
    found = _pictures(source)
    return [found[int(Path(footage.frames[i].file).stem)] for i in footage.part(part)]


def _pictures(folder: Path) -> list[Path]:
    return sorted(it for it in folder.rglob("*") if it.suffix.lower() in pictures.SUFFIXES and it.is_file())


def _from_folder(folder: Path, images: Path, limit: int, unreadable: list[str]) -> Iterator[tuple[str, float]]:
    found = _pictures(folder)
    if not found:
        raise FootageError(
            f"{folder}: expected pictures ({', '.join(sorted(pictures.SUFFIXES))}), got none in this folder"
        )
    chosen = np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)).tolist()
    for i in tqdm(chosen, desc="read pictures", unit="picture"):
        name = f"{i:06d}.jpg"
        if not (images / name).exists() and not _keep_picture(found[i], images / name):
            unreadable.append(str(found[i].relative_to(folder)))
            continue
        yield name, float(i)


def _keep_picture(path: Path, out: Path) -> bool:
    """Copy a picture, turned by its EXIF orientation; returns whether it could be read."""
    as_stored, turned = pictures.load(path, cv2.IMREAD_COLOR)
    if as_stored is None:
        return False
    small = max(as_stored.shape[:2]) <= LONGEST_SIDE
    if small and turned == 1 and path.suffix.lower() in {".jpg", ".jpeg"}:
        partial = out.with_suffix(".partial")
        shutil.copyfile(path, partial)
        partial.replace(out)
    else:
        _write(out, orientation.upright(as_stored, turned))
    return True


def _write(out: Path, bgr: NDArray[np.uint8]) -> None:
    scale = LONGEST_SIDE / max(bgr.shape[:2])
    if scale < 1:
        bgr = np.asarray(cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    files.write(out, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _open(source: Path, limit: int) -> tuple[cv2.VideoCapture, int]:
    """Open a video; returns it and the stride of the frames to read."""
    if not source.is_file():
        raise FootageError(f"{source}: expected a video file or a folder of pictures, got nothing there")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise FootageError(f"{source}: expected a video that OpenCV reads, got another file; convert it to mp4 or avi")
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    total = max(0.0, capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return capture, max(1, round(INTERVAL_S * rate), int(np.ceil(total / limit)))


def _from_video(source: Path, images: Path, limit: int) -> Iterator[tuple[str, float]]:
    capture, stride = _open(source, limit)
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    last: NDArray[np.float32] | None = None
    index = kept = 0
    with tqdm(total=total if total > 0 else None, desc="read video", unit="frame") as progress:
        while kept < limit and capture.grab():
            if index % stride == 0:
                readable, bgr = capture.retrieve()
                if readable:
                    blocks = _blocks(np.asarray(bgr, np.uint8))
                    if last is None or np.abs(blocks - last).max() > CHANGE:
                        last, kept, name = blocks, kept + 1, f"{index:06d}.jpg"
                        if not (images / name).exists():
                            _write(images / name, np.asarray(bgr, np.uint8))
                        yield name, index / rate
            index += 1
            progress.update()
    capture.release()


def _blocks(bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean grey of 32 x 32 blocks of a picture, float32 (32, 32)."""
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), np.float32)
