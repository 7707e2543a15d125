"""The skeleton that the categories of a COCO file describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.pose.skeleton import Skeleton
from training.data.coco import DatasetError, same_name
from training.data.formats.labelled_set import infer_skeleton


def read_skeleton(
    path: Path, tree: dict[str, Any], named: Sequence[dict[str, Any]], wanted: Skeleton | None
) -> Skeleton:
    """Return the skeleton that a file labels: of its categories, or of its people's counts of keypoints.

    Args:
        path: The file, for messages.
        tree: Its content.
        named: The chosen categories that name keypoints.
        wanted: The skeleton that the caller expects; None accepts any.

    Raises:
        DatasetError: The file labels no keypoints, several skeletons, or another one than ``wanted``.
    """
    if len({tuple(map(same_name, it["keypoints"])) for it in named}) > 1:
        kinds = ", ".join(f"{it.get('name')!r} ({len(it['keypoints'])})" for it in named)
        raise DatasetError(
            f"{path}: categories: expected one skeleton, got {kinds}; give --class NAME, or put each "
            "kind into a file of its own"
        )
    lengths = Counter(len(it["keypoints"]) for it in tree["annotations"] if isinstance(it, dict) and _is_list(it))
    most = lengths.most_common(1)[0][0] // 3 if lengths else 0
    names = named[0]["keypoints"] if named else None
    count = len(names) if names else most
    if not count:
        raise DatasetError(f"{path}: expected people with keypoints, got none; label some, or give another file")
    if wanted is None:
        try:
            edges = edges_of(named[0]) if named else []
            return infer_skeleton(names, count, str(named[0].get("name")) if named else path.stem, edges)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path}: categories: {error}") from error
    if names and [same_name(it) for it in names] != [same_name(it) for it in wanted.keypoints]:
        raise DatasetError(
            f"{path}: categories: expected the keypoints of {wanted.name!r} ({', '.join(wanted.keypoints)}), "
            f"got {', '.join(map(str, names))}; give the skeleton that was labelled"
        )
    return wanted


def edges_of(category: dict[str, Any]) -> list[tuple[int, int]]:
    """Return pairs of keypoint indices. COCO counts from 1, some tools from 0."""
    pairs = [(a, b) for a, b in category.get("skeleton") or []]
    first = 0 if counts_from_0(category) else 1
    return [(a - first, b - first) for a, b in pairs]


def counts_from_0(category: dict[str, Any]) -> bool:
    """Return whether the edges of a category's skeleton are counted from 0."""
    return any(0 in pair for pair in category.get("skeleton") or [] if isinstance(pair, list))


def _is_list(annotation: dict[str, Any]) -> bool:
    return isinstance(annotation.get("keypoints"), list) and bool(annotation["keypoints"])
