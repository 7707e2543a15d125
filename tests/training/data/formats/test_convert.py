"""Every layout becomes the same COCO JSON."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy.io import savemat
from skimage import data

from service.pose.skeleton import COCO17
from tests import spots
from tests.training import stick_people
from tests.training.stick_people import NAMES, SIZE
from training.__main__ import main
from training.data import coco, images
from training.data.coco import DatasetError
from training.data.formats import convert, image_file, layouts, lsp
from training.data.formats.layouts import SetLocation
from training.recipe import skeletons


def joints_of(path: Path) -> np.ndarray:
    """Keypoints of all people in the order of their pictures, (N, K, 3)."""
    people = sorted(json.loads(path.read_text())["annotations"], key=lambda it: it["image_id"])
    return np.array([it["keypoints"] for it in people], float).reshape(len(people), -1, 3)


def test_yolo_and_coco_give_the_same_set(tmp_path: Path) -> None:
    stick_people.write_coco(tmp_path / "coco")
    stick_people.write_yolo(tmp_path / "yolo")
    (tmp_path / "stick.toml").write_text(stick_people.TOML)
    for kind in ("coco", "yolo"):
        command = [
            "convert",
            tmp_path / kind,
            "--out",
            tmp_path / f"{kind}.json",
            "--skeleton",
            tmp_path / "stick.toml",
        ]
        assert main([str(it) for it in command]) == 0
    first, second = joints_of(tmp_path / "coco.json"), joints_of(tmp_path / "yolo.json")
    assert first.shape == (6, 12, 3)
    np.testing.assert_allclose(first, second, atol=0.01)
    boxes = [json.loads((tmp_path / f"{it}.json").read_text())["annotations"] for it in ("coco", "yolo")]
    np.testing.assert_allclose([it["bbox"] for it in boxes[0]], [it["bbox"] for it in boxes[1]], atol=0.01)
    assert json.loads((tmp_path / "yolo.json").read_text())["categories"][0]["keypoints"] == list(NAMES)


def test_converting_twice_changes_nothing(tmp_path: Path) -> None:
    found = layouts.read(SetLocation(stick_people.write_yolo(tmp_path)))
    convert.write(found, tmp_path / "once.json")
    convert.write(layouts.read(SetLocation(tmp_path / "once.json", found.images)), tmp_path / "twice.json")
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()


def test_one_split_or_all_splits_of_yolo_are_read(tmp_path: Path) -> None:
    data = stick_people.write_yolo(tmp_path)
    assert [len(layouts.read(SetLocation(data, split=it)).people) for it in ("train", "val", None)] == [4, 2, 6]
    with pytest.raises(DatasetError, match=r"expected test, got train, val"):
        layouts.read(SetLocation(data, split="test"))


def test_keypoints_without_visibility_and_lists_of_pictures_are_read(tmp_path: Path) -> None:
    data = stick_people.write_yolo(tmp_path)
    labels = tmp_path / "labels" / "train" / "001.txt"
    columns = labels.read_text().split()
    pairs = [number for i in range(12) for number in columns[5 + 3 * i : 7 + 3 * i]]
    pairs[4:6] = ["0", "0"]
    labels.write_text(" ".join([*columns[:5], *pairs]))
    (tmp_path / "list.txt").write_text("./images/train/001.png\n\n")
    data.write_text("path: /nowhere/on/this/machine\ntrain: list.txt\nkpt_shape: [12, 2]\nnames: [stick]\n")
    (person,) = layouts.read(SetLocation(data)).people
    assert person.joints[:, 2].tolist() == [2, 2, 0, *[2] * 9]
    assert (person.joints[2] == 0).all()


def test_a_picture_with_exif_orientation_is_read_in_the_frame_of_its_labels(tmp_path: Path) -> None:
    """YOLO's labels refer to the upright picture."""
    data = stick_people.write_yolo(tmp_path)
    path = tmp_path / "images" / "train" / "001.png"
    upright = cv2.imread(str(path))[..., ::-1]
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = PillowImage.fromarray(np.ascontiguousarray(np.rot90(upright)))
    path.unlink()
    turned.save(path.with_suffix(".jpg"), exif=exif, quality=98, subsampling=0)
    seen = image_file.read_image_file(path.with_suffix(".jpg"))
    assert (seen.orientation, seen.size, seen.upright_size) == (6, SIZE[::-1], SIZE)
    found = layouts.read(SetLocation(data))
    assert not found.faults
    convert.write(found, tmp_path / "out.json")
    (info,) = [it for it in json.loads((tmp_path / "out.json").read_text())["images"] if it.get("upright")]
    assert (info["width"], info["height"]) == SIZE
    shown = images.read_labelled(found.images, info)
    assert np.abs(shown.astype(int) - upright).mean() < 4
    without = {**info, "upright": False}  # the size alone tells it, too
    assert np.array_equal(images.read_labelled(found.images, without), shown)
    with pytest.raises(DatasetError, match=r"expected 100 x 100 px as its labels say, got 200 x 160"):
        images.read_labelled(found.images, {**info, "upright": False, "width": 100, "height": 100})


def write_lsp(folder: Path, count: int, extended: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.uniform(20, 140, (count, 14, 2)), rng.integers(0, 2, (count, 14, 1))], axis=2)
    for i in range(1, count + 1):
        stick_people.save(folder / "images" / f"im{i:04}.jpg", stick_people.draw(rng).image)
    savemat(folder / "joints.mat", {"joints": table.transpose(1, 2, 0) if extended else table.transpose(2, 1, 0)})
    return table


@pytest.mark.parametrize("extended", [False, True], ids=["lsp", "extended"])
def test_the_third_row_of_lsp_means_hidden_or_visible(tmp_path: Path, extended: bool) -> None:
    table = write_lsp(tmp_path, 5, extended)
    found = layouts.read(SetLocation(tmp_path))
    assert found.skeleton == COCO17
    ones = table[:, lsp.JOINTS.index("left_wrist"), 2] == 1
    wrists = np.stack([person.joints[COCO17.keypoints.index("left_wrist")] for person in found.people])
    assert wrists[ones, 2].tolist() == [2 if extended else 1] * int(ones.sum())
    assert wrists[~ones, 2].tolist() == [0 if extended else 2] * int((~ones).sum())
    assert np.allclose(wrists[ones, :2], table[ones, lsp.JOINTS.index("left_wrist"), :2])
    assert all((person.joints[:5] == 0).all() for person in found.people), "LSP has no face"
    swapped = layouts.read(SetLocation(tmp_path, third="hidden" if extended else "visible"))
    assert (swapped.layout, found.layout) in {("LSP", "LSP extended"), ("LSP extended", "LSP")}


@pytest.mark.parametrize("extended", [False, True], ids=["lsp", "extended"])
def test_lsp_coordinates_without_a_label_are_ignored(tmp_path: Path, extended: bool) -> None:
    table = write_lsp(tmp_path, 5, extended)
    table[2, 0] = (np.nan, np.nan, 0)
    savemat(tmp_path / "joints.mat", {"joints": table.transpose(1, 2, 0) if extended else table.transpose(2, 1, 0)})
    assert len(layouts.read(SetLocation(tmp_path)).faults) == (0 if extended else 1)


def test_a_set_without_a_skeleton_gets_one_to_start_from(tmp_path: Path) -> None:
    stick_people.write_coco(tmp_path)
    command = ["convert", tmp_path, "--out", tmp_path / "out.json", "--toml", tmp_path / "own.toml"]
    assert main([str(it) for it in command]) == 0
    made = skeletons.load(tmp_path / "own.toml")
    assert (made.keypoints, made.edges) == (NAMES, stick_people.EDGES)
    assert made.flip == (0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10)


def test_a_toml_file_names_the_keypoints_of_a_set_without_names(tmp_path: Path) -> None:
    """YOLO's keypoints have placeholder names until the user completes the TOML file."""
    stick_people.write_yolo(tmp_path)
    command = ["convert", tmp_path, "--out", tmp_path / "out.json", "--toml", tmp_path / "own.toml"]
    assert main([str(it) for it in command]) == 0
    assert skeletons.load(tmp_path / "own.toml").keypoints[11] == "keypoint_11"
    (tmp_path / "own.toml").write_text(stick_people.TOML)
    named = skeletons.load(tmp_path / "own.toml")
    assert layouts.read(SetLocation(tmp_path / "out.json", tmp_path), named).skeleton == named
    coco.require_skeleton(coco.load(tmp_path / "out.json"), tmp_path / "out.json", named)


def test_a_converted_set_can_be_evaluated(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path)
    tree = json.loads(path.read_text())
    for person in tree["annotations"]:
        person["category_id"] = 7
        for key in ("area", "iscrowd", "num_keypoints"):
            del person[key]
        person["note"] = "kept"
    tree["categories"][0]["id"] = 7
    tree["categories"].append({"id": 8, "name": "dog"})
    tree["annotations"].append({"id": 1, "image_id": 1, "category_id": 8, "bbox": [1, 2, 30, 40]})
    path.write_text(json.dumps(tree))
    found = layouts.read(SetLocation(tmp_path))
    assert {note.kind for note in found.notes} == {"other categories", "other category_id"}
    convert.write(found, tmp_path / "out.json")
    people = list(coco.load(tmp_path / "out.json").anns.values())
    assert len(people) == 6
    for person in people:
        assert (person["category_id"], person["iscrowd"], person["num_keypoints"]) == (1, 0, 12)
        assert person["area"] == pytest.approx(0.53 * person["bbox"][2] * person["bbox"][3], abs=1e-3)
        assert person["note"] == "kept"


def test_missing_fields_are_filled_in_when_a_file_is_loaded(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path)
    tree = json.loads(path.read_text())
    for person in tree["annotations"]:
        for key in ("area", "iscrowd", "num_keypoints"):
            del person[key]
    del tree["categories"]
    path.write_text(json.dumps(tree))
    data = coco.load(path)
    assert all(it["num_keypoints"] == 12 and it["iscrowd"] == 0 and it["area"] > 0 for it in data.anns.values())
    assert list(data.cats) == [1]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", "HI")
def test_training_and_service_turn_pictures_equally(tmp_path: Path, order: str, value: str) -> None:
    """For every type of number of the orientation."""
    shown = cv2.resize(data.astronaut(), (96, 64), interpolation=cv2.INTER_AREA)
    for orientation in range(1, 9):
        stored = spots.stored_as(shown, orientation)
        content = spots.with_exif(spots.encode(stored, "JPEG"), spots.exif(orientation, order, value))
        (tmp_path / "p.jpg").write_bytes(content)
        upright = images.read(tmp_path / "p.jpg", upright=True)
        assert np.abs(upright.astype(int) - shown).mean() < 4
        assert images.read(tmp_path / "p.jpg").shape == stored.shape
        assert image_file.read_image_file(tmp_path / "p.jpg").orientation == orientation
