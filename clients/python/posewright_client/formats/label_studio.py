"""``label-studio``: tasks with predictions, which annotators correct, and the labelling interface beside them.

Source: labelstud.io/guide/predictions. Keypoints are in percent of the picture; every keypoint is a child of its
person's box.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from posewright_client.formats.coco_dataset import THRESHOLD
from posewright_client.formats.output import new_file
from posewright_client.formats.recording import RecordedFrame, RecordedPerson, Recording, Size

KEYPOINTS, PEOPLE, PICTURE, PERSON = "keypoints", "people", "image", "person"
MODEL_VERSION = "posewright"
POINT_WIDTH = 0.5
"""Size of the points on the annotator's screen, percent of the picture's width."""
LOCAL_FILES = "/data/local-files/?d="


def write(recording: Recording, out: Path, *, threshold: float = THRESHOLD, root: str = LOCAL_FILES) -> None:
    """Write the tasks, and with the suffix ``.xml`` the labelling interface; only one frame is in memory.

    Args:
        recording: The results.
        out: The JSON file.
        threshold: Keypoints with a lower score are left out, as are those outside of the picture.
        root: What stands before the names of the pictures in their addresses.

    Raises:
        ResultsError: The results cannot be read, or lack the sizes of pictures.
        OSError: A file cannot be read or written.
    """
    with new_file(out) as part, part.open("w") as file:
        for i, frame in enumerate(recording.frames()):
            task = json.dumps(_task(recording, frame, threshold, root), separators=(",", ":"))
            file.write(("[\n" if i == 0 else ",\n") + task)
        file.write("\n]\n")
    with new_file(out.with_suffix(".xml")) as part:
        part.write_text(labelling_interface(recording.skeleton.keypoints), encoding="utf-8")


def labelling_interface(names: tuple[str, ...]) -> str:
    """Return the labelling interface that the predictions belong to, XML."""
    labels = "\n".join(f"    <Label value={quoteattr(it)}/>" for it in names)
    return (
        f'<View>\n  <Image name="{PICTURE}" value="${PICTURE}"/>\n'
        f'  <RectangleLabels name="{PEOPLE}" toName="{PICTURE}">\n    <Label value="{PERSON}"/>\n  </RectangleLabels>\n'
        f'  <KeyPointLabels name="{KEYPOINTS}" toName="{PICTURE}">\n{labels}\n  </KeyPointLabels>\n</View>\n'
    )


def _task(recording: Recording, frame: RecordedFrame, threshold: float, root: str) -> dict[str, Any]:
    size, names = recording.size_of(frame), recording.skeleton.keypoints
    regions = [it for i, person in enumerate(frame.people) for it in _regions(person, i, names, size, threshold)]
    score = sum(it.score for it in frame.people) / max(1, len(frame.people))
    data: dict[str, Any] = {PICTURE: root + recording.picture_name(frame), "frame": frame.index}
    if frame.time_s is not None:
        data["time_s"] = frame.time_s
    return {"data": data, "predictions": [{"model_version": MODEL_VERSION, "score": score, "result": regions}]}


def _regions(
    person: RecordedPerson, index: int, names: tuple[str, ...], size: Size, threshold: float
) -> list[dict[str, Any]]:
    width, height = size
    x, y, w, h = person.box
    left, top = max(0.0, min(x, width)), max(0.0, min(y, height))
    right, bottom = max(left, min(x + w, width)), max(top, min(y + h, height))
    corner = {"x": _percent(left, width), "y": _percent(top, height)}
    extent = {"width": _percent(right - left, width), "height": _percent(bottom - top, height), "rotation": 0}
    box = f"person{index}"
    found = [_region(box, PEOPLE, "rectanglelabels", PERSON, corner | extent, person.score, size)]
    if person.track is not None:
        found[0]["meta"] = {"text": [f"track {person.track}"]}
    for name, (px, py, score) in zip(names, person.keypoints, strict=True):
        if score >= threshold and 0 <= px <= width and 0 <= py <= height:
            place = {"x": _percent(px, width), "y": _percent(py, height), "width": POINT_WIDTH}
            region = _region(f"{box}-{name}", KEYPOINTS, "keypointlabels", name, place, score, size)
            found.append(region | {"parentID": box})
    return found


def _percent(length: float, whole: int) -> float:
    return round(100 * length / whole, 5)


def _region(name: str, control: str, kind: str, label: str, value: Any, score: float, size: Size) -> dict[str, Any]:
    return {
        "id": name,
        "from_name": control,
        "to_name": PICTURE,
        "type": kind,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "score": score,
        "value": value | {kind: [label]},
    }
