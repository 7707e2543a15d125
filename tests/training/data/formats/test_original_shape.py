"""Squashed copies of COCO's pictures get their original shape back."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.data.coco import DatasetError
from training.data.formats import original_shape

SIZES = [(640, 480), (427, 640), (640, 361), (500, 375), (480, 640)]


def people(size: tuple[int, int], seed: int, count: int = 2) -> np.ndarray:
    """Joints on whole pixels as YOLO pose rows: relative to the size, six decimals; some are not labelled."""
    rng = np.random.default_rng(seed)
    joints = np.concatenate([rng.integers(0, size, (count, 17, 2)) / size, rng.integers(0, 3, (count, 17, 1))], axis=2)
    joints[:, :6, 2] = 2
    joints[joints[..., 2] == 0] = 0
    return joints.round(6)


def write_copy(folder: Path, number: int, size: tuple[int, int], copy: tuple[int, int], joints: np.ndarray) -> None:
    """A picture with a white disc at the first joint, resized to ``copy``, and its label file."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    cv2.circle(picture, tuple(int(it) for it in np.round(joints[0, 0, :2] * size)), 12, (255, 255, 255), -1)
    (folder / "copies").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    name = f"COCO_val2014_{number:012d}.jpg"
    cv2.imwrite(str(folder / "copies" / name), cv2.resize(picture, copy, interpolation=cv2.INTER_AREA))
    rows = [" ".join(["0", "0.5", "0.5", "0.4", "0.6", *(f"{it:.6f}" for it in person.ravel())]) for person in joints]
    (folder / "labels" / f"{number:012d}.txt").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(10))
def test_joints_on_whole_pixels_reveal_the_size(size: tuple[int, int], seed: int) -> None:
    assert original_shape.true_size(people(size, seed)) == size


def test_too_few_joints_reveal_no_size() -> None:
    joints = people((640, 480), 0, count=1)
    joints[:, 2:, 2] = 0
    assert original_shape.true_size(joints) is None


def test_a_square_copy_is_restored_with_its_labels(tmp_path: Path) -> None:
    for number, size in enumerate(SIZES):
        joints = people(size, number)
        joints[0, 0, :2] = np.round(np.array(size) * [0.6, 0.4]) / size
        write_copy(tmp_path, number, size, (256, 256), joints.round(6))
    found = original_shape.restore(tmp_path / "copies", tmp_path / "labels", tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(tree["images"]) == len(found.pictures) == len(SIZES)
    for info, size in zip(tree["images"], SIZES, strict=True):
        assert info["width"] / info["height"] == pytest.approx(size[0] / size[1], rel=0.01)
        assert info["width"] * info["height"] == pytest.approx(256 * 256, rel=0.01)
        assert info["official_complete"] is False
        picture = cv2.imread(str(tmp_path / "out" / "images" / info["file_name"]), cv2.IMREAD_GRAYSCALE)
        assert picture.shape == (info["height"], info["width"])
        first = next(it for it in tree["annotations"] if it["image_id"] == info["id"])
        rows, columns = np.nonzero(picture > 128)
        np.testing.assert_allclose((columns.mean(), rows.mean()), first["keypoints"][:2], atol=0.8)
        assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=1.5)  # a disc is round again


def test_an_undistorted_copy_is_not_changed_and_others_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(3):
        write_copy(tmp_path, number, (640, 480), (320, 240), people((640, 480), number))
    few = people((640, 480), 3, count=1)
    few[:, 2:, 2] = 0
    write_copy(tmp_path, 3, (640, 480), (320, 240), few)
    (tmp_path / "known.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}))
    asked = ["restore", tmp_path / "copies", "--labels", tmp_path / "labels", "--out", tmp_path / "out"]
    assert main([str(it) for it in [*asked, "--without", tmp_path / "known.json"]]) == 0
    assert "2 pictures, 4 people; 1 copies left out" in capsys.readouterr().out
    for number in (0, 2):
        copy = tmp_path / "copies" / f"COCO_val2014_{number:012d}.jpg"
        assert (tmp_path / "out" / "images" / f"{number:012d}.jpg").read_bytes() == copy.read_bytes()
    made, cut = tmp_path / "out", tmp_path / "crops"
    asked = ["crops", "--annotations", made / "annotations.json", "--images", made / "images", "--out", cut]
    assert main([str(it) for it in asked]) == 0


def test_copies_of_an_unreadable_format_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (7, 8):
        write_copy(tmp_path, number, (640, 480), (256, 256), people((640, 480), number))
    (copy,) = (tmp_path / "copies").glob("*_000000000008.*")
    copy.rename(copy.with_suffix(".heic"))
    asked = ["restore", tmp_path / "copies", "--labels", tmp_path / "labels", "--out", tmp_path / "out"]
    assert main([str(it) for it in asked]) == 0
    printed = capsys.readouterr().out
    assert "1 pictures" in printed
    assert f"format that cannot be read, 1 x, the first: {copy.with_suffix('.heic')}" in printed


def test_missing_and_broken_labels_are_reported(tmp_path: Path) -> None:
    write_copy(tmp_path, 7, (640, 480), (256, 256), people((640, 480), 7))
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="twelve digits"):
        original_shape.restore(tmp_path / "copies", tmp_path / "none", tmp_path / "out")
    (tmp_path / "labels" / "000000000007.txt").write_text("0 0.5 0.5 1 1 0.1 0.2 2\n")
    with pytest.raises(DatasetError, match=r"000000000007\.txt:1: expected 56 columns"):
        original_shape.restore(tmp_path / "copies", tmp_path / "labels", tmp_path / "out")
    assert not (tmp_path / "out").exists()
