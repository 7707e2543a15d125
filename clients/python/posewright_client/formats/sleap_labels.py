"""``sleap``: labels of SLEAP (.slp) by sleap-io, which also writes DeepLabCut's, NWB's and other formats from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posewright_client._errors import MissingExtra
from posewright_client._parsing import ReplySkeleton
from posewright_client.formats.output import new_file
from posewright_client.formats.recording import RecordedFrame, RecordedPerson, Recording


def write(recording: Recording, out: Path, *, video: Path | None = None) -> None:
    """Write a .slp file. Unlike the other formats, sleap-io needs all frames in memory.

    Args:
        recording: The results.
        out: The .slp file.
        video: The video that the results are of, as the labels shall name it.

    Raises:
        MissingExtra: sleap-io is not installed.
        ResultsError: The results cannot be read.
        OSError: A file cannot be read or written.
    """
    built = labels(recording, video)
    with new_file(out) as part:
        slp = part.with_name(f"{part.name}.slp")  # sleap-io reads the format from the suffix
        try:
            built.save(str(slp), format="slp", embed=False, verbose=False)
            slp.replace(part)
        finally:
            slp.unlink(missing_ok=True)


def labels(recording: Recording, video: Path | None = None) -> Any:
    """Return `sleap_io.Labels` with predicted instances; frames without people are labelled frames without instances.

    Args:
        recording: The results.
        video: As in `write`.

    Raises:
        MissingExtra: sleap-io is not installed.
        ResultsError: The results cannot be read.
    """
    try:
        import sleap_io as sio  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtra("--to sleap needs sleap-io: pip install 'posewright-client[sleap]'") from error
    frames = list(recording.frames())
    skeleton = _skeleton(sio, recording.skeleton)
    tracks = {it.track: sio.Track(str(it.track)) for frame in frames for it in frame.people if it.track is not None}
    footage = _footage(sio, recording, frames, video)
    photos = frames[0].file is not None
    labelled = [
        sio.LabeledFrame(
            video=footage,
            frame_idx=i if photos else frame.index,
            instances=[_instance(sio, person, skeleton, tracks) for person in frame.people],
        )
        for i, frame in enumerate(frames)
    ]
    return sio.Labels(labelled, videos=[footage], skeletons=[skeleton], tracks=list(tracks.values()))


def _skeleton(sio: Any, skeleton: ReplySkeleton) -> Any:
    names = skeleton.keypoints
    pairs = [(name, other) for name in names if (other := name.replace("left", "right")) != name and other in names]
    return sio.Skeleton(nodes=list(names), edges=list(skeleton.edges), symmetries=pairs, name="person")


def _footage(sio: Any, recording: Recording, frames: list[RecordedFrame], video: Path | None) -> Any:
    """Return the video, or the list of photos; neither is opened, so it need not be on this machine.

    The metadata are those that sleap-io writes for a file that it has opened.
    """
    photos = [it.file for it in frames if it.file is not None]
    size = frames[0].size
    count = len(photos) or frames[-1].index + 1
    shape = None if size is None else (count, size[1], size[0], 3)
    if photos:
        metadata = {"type": "ImageVideo", "filename": photos[0], "filenames": photos, "grayscale": False}
        return sio.Video(filename=photos, open_backend=False, backend_metadata=metadata | {"shape": shape})
    name = str(video or f"{recording.name}.mp4")
    metadata = {"type": "MediaVideo", "filename": name, "grayscale": False, "bgr": True}
    metadata |= {"dataset": "", "input_format": "", "shape": shape}
    return sio.Video(filename=name, open_backend=False, backend_metadata=metadata)


def _instance(sio: Any, person: RecordedPerson, skeleton: Any, tracks: dict[int, Any]) -> Any:
    table = np.asarray(person.keypoints, np.float64)
    return sio.PredictedInstance.from_numpy(
        points_data=table[:, :2],
        point_scores=table[:, 2],
        score=person.score,
        skeleton=skeleton,
        track=None if person.track is None else tracks[person.track],
    )
