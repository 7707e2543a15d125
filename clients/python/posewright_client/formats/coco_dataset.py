"""``coco``: a COCO keypoints data set, for FiftyOne, CVAT, MMPose and ``posewright-train``.

Source: cocodataset.org/#format-data. The keys ``score``, ``track_id``, ``keypoint_scores`` and ``attributes`` (CVAT's)
of annotations and ``frame_id``, ``time_s``, ``upright`` of images are additions, which readers of COCO keep or ignore.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from posewright_client.formats.output import new_file
from posewright_client.formats.recording import RecordedFrame, RecordedPerson, Recording

AREA_SHARE = 0.53
"""Area of a person as a share of the box: the mean over COCO's people, whose areas are those of outlines."""
THRESHOLD = 0.35
CATEGORY_ID = 1


def write(recording: Recording, out: Path, *, threshold: float = THRESHOLD) -> None:
    """Write the data set; only one frame is in memory.

    Args:
        recording: The results.
        out: The JSON file.
        threshold: Keypoints with a lower score count as not labelled (0, 0, 0).

    Raises:
        ResultsError: The results cannot be read, or lack the sizes of pictures.
        OSError: A file cannot be read or written.
    """
    # Images and annotations are two lists, so the second one is collected in a file of its own.
    with new_file(out) as part, part.open("w+") as file, tempfile.TemporaryFile("w+", dir=out.parent) as people:
        file.write('{"info":{"description":"Predictions of posewright"},"licenses":[],"images":[')
        number = 0
        for i, frame in enumerate(recording.frames()):
            _item(file, i, _image(recording, frame))
            for person in frame.people:
                _item(people, number, _annotation(frame, person, number + 1, threshold))
                number += 1
        file.write('\n],"annotations":[')
        people.seek(0)
        shutil.copyfileobj(people, file)
        file.write('\n],"categories":' + json.dumps([_category(recording)]) + "}\n")


def _item(file: IO[str], index: int, item: dict[str, Any]) -> None:
    file.write((",\n" if index else "\n") + json.dumps(item, ensure_ascii=True, separators=(",", ":")))


def _image(recording: Recording, frame: RecordedFrame) -> dict[str, Any]:
    width, height = recording.size_of(frame)
    image: dict[str, Any] = {"id": frame.index + 1, "file_name": recording.picture_name(frame).replace("\\", "/")}
    image |= {"width": width, "height": height, "frame_id": frame.index}
    if frame.time_s is not None:
        image["time_s"] = frame.time_s
    return image | {"upright": True} if frame.turned else image


def _annotation(frame: RecordedFrame, person: RecordedPerson, number: int, threshold: float) -> dict[str, Any]:
    points = [(x, y, 2) if score >= threshold else (0, 0, 0) for x, y, score in person.keypoints]
    annotation = {
        "id": number,
        "image_id": frame.index + 1,
        "category_id": CATEGORY_ID,
        "iscrowd": 0,
        "segmentation": [],  # a pose has no outline, but CVAT requires the key
        "bbox": person.box,
        "area": round(AREA_SHARE * person.box[2] * person.box[3], 2),
        "keypoints": [it for point in points for it in point],
        "num_keypoints": sum(v > 0 for _, _, v in points),
        "score": person.score,
        "keypoint_scores": [score for _, _, score in person.keypoints],
    }
    track = {"track_id": person.track}
    return annotation if person.track is None else annotation | track | {"attributes": track}


def _category(recording: Recording) -> dict[str, Any]:
    skeleton = recording.skeleton
    edges = [(a + 1, b + 1) for a, b in skeleton.edges]  # COCO counts from 1
    return {
        "id": CATEGORY_ID,
        "name": "person",
        "supercategory": "person",
        "keypoints": skeleton.keypoints,
        "skeleton": edges,
    }
