"""Reader of Leeds Sports Pose: ``joints.mat`` beside ``images/``, one person a picture, 14 joints.

LSP (Johnson and Everingham, BMVC 2010) stores 3 x 14 x 2000, LSP extended (CVPR 2011) 14 x 3 x 10000. Both call their
third number visibility, with opposite meanings: in LSP 1 marks a hidden joint, which is labelled nevertheless; in LSP
extended 1 marks a visible joint, and 0 a joint without a label. Copies of the extended set with axes in LSP's order are
recognised by their 10,000 people. For parts of either set, the caller has to say which it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose.skeleton import COCO17, Skeleton
from training.data.coco import DatasetError
from training.data.formats.image_file import ImageFileError, read_image_file
from training.data.formats.labelled_set import LabelFault, LabelledImage, LabelledPerson, LabelledSet
from training.data.images import SUFFIXES

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
"""Joints in the file's order."""
MARGIN = 0.1
"""Margin of a person's box around its joints, as a share of the longer side; the files have no boxes."""

Third = Literal["hidden", "visible"]
"""Meaning of a 1 in the third row."""


def read(path: Path, images: Path, skeleton: Skeleton | None = None, third: Third | None = None) -> LabelledSet:
    """Read a set and check its pictures.

    Args:
        path: The ``joints.mat``.
        images: Folder of its pictures, numbered in its order.
        skeleton: Skeleton of the result, matched by joint names; None: COCO's, whose face is then not labelled.
        third: Meaning of the third row; None: by the table's shape.

    Raises:
        DatasetError: scipy is missing, the file is not MATLAB's or has no joints, or pictures are missing.
    """
    table, extended = _table(path)
    hidden_is_one = third == "hidden" if third else not extended
    chosen = skeleton or COCO17
    columns = [JOINTS.index(name) if name in JOINTS else None for name in chosen.keypoints]
    if all(column is None for column in columns):
        raise DatasetError(f"{path}: expected a skeleton with joints of {', '.join(JOINTS)}, got {chosen.name!r}")
    files = sorted(it for it in images.glob("*") if it.suffix.lower() in SUFFIXES) if images.is_dir() else []
    if len(files) != len(table):
        raise DatasetError(
            f"{images}: expected {len(table)} pictures, one for each person of {path.name}, got {len(files)}"
        )
    pictures: dict[int, LabelledImage] = {}
    people: list[LabelledPerson] = []
    faults: list[LabelFault] = []
    for i, (file, rows) in enumerate(zip(tqdm(files, desc="check LSP", unit="picture"), table, strict=True), start=1):
        where = f"{path}: joints(:, :, {i})"
        try:
            seen = read_image_file(file)
        except ImageFileError as error:
            faults.append(LabelFault("unreadable picture", str(file), str(error)))
            continue
        known = np.ones(len(JOINTS), bool) if hidden_is_one else rows[:, 2] == 1
        if not np.isfinite(rows[known]).all() or not np.isin(rows[:, 2], (0, 1)).all():
            faults.append(
                LabelFault("number that is none", where, "expected finite x and y, and 0 or 1 in the third row")
            )
            continue
        pictures[i] = LabelledImage(i, file.name, seen.size, upright=False, where=str(file), file=seen)
        if known.sum() < 2:
            continue
        visible = np.where(known, np.where(hidden_is_one & (rows[:, 2] == 1), 1, 2), 0)
        joints = np.zeros((len(chosen), 3))
        for k, column in enumerate(columns):
            if column is not None and visible[column]:
                joints[k] = *rows[column, :2], visible[column]
        box = _box(rows[known, :2], seen.size)
        people.append(LabelledPerson(i, i, box, joints, crowd=False, area=None, where=where))
    return LabelledSet(path, "LSP" if hidden_is_one else "LSP extended", images, chosen, pictures, people, faults)


def _table(path: Path) -> tuple[NDArray[np.float64], bool]:
    """Return joints float64 (N, 14, 3), and whether the file looks like LSP extended."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415 - an extra: LSP alone needs it
    except ImportError as error:
        raise DatasetError(f"{path}: MATLAB files need scipy: pip install '.[lsp]' in posewright's folder") from error
    try:
        content = loadmat(path)
    except OSError as error:
        raise DatasetError(f"{path}: expected a joints.mat, got {error.strerror or error}") from error
    except Exception as error:  # scipy raises many kinds
        raise DatasetError(f"{path}: not a MATLAB file: {error}") from error
    joints = content.get("joints")
    if joints is None:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise DatasetError(f"{path}: expected a variable 'joints', got {names or 'none'}")
    shape = np.shape(joints)
    if shape[:2] not in {(3, 14), (14, 3)} or len(shape) != 3 or not shape[2]:
        raise DatasetError(f"{path}: joints: expected 3 x 14 x people, or 14 x 3 x people, got {shape}")
    order = (2, 1, 0) if shape[:2] == (3, 14) else (2, 0, 1)
    return np.asarray(joints, np.float64).transpose(order), shape[:2] == (14, 3) or shape[2] == 10_000


def _box(points: NDArray[np.float64], size: tuple[int, int]) -> tuple[float, float, float, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * (high - low).max()
    low, high = np.clip(low - margin, 0, size), np.clip(high + margin, 0, size)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
