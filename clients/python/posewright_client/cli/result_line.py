"""What a line of results says about the people in a frame."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from posewright_client._frames import StreamResult
from posewright_client._results import Pose
from posewright_client._skeleton import KEYPOINTS


def poses_of(result: StreamResult) -> dict[str, Any]:
    """Return the people, and names and edges of their keypoints if these are not COCO's."""
    return {**_skeleton(result), "poses": [_pose(pose) for pose in result.poses]}


def image_of(pixels: NDArray) -> dict[str, int]:
    """Return the size of a picture, as replies of the server have it.

    Args:
        pixels: (H, W, 3).
    """
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


def _skeleton(result: StreamResult) -> dict[str, Any]:
    for pose in result.poses[:1]:
        names = tuple(it.name for it in pose.keypoints)
        if names != KEYPOINTS:
            return {"keypoints": names, "edges": pose.edges}
    return {}


def _pose(pose: Pose) -> dict[str, Any]:
    keypoints = [[it.x, it.y, it.score] for it in pose.keypoints]
    return {"id": pose.id, "score": pose.score, "box": list(pose.box), "keypoints": keypoints}
