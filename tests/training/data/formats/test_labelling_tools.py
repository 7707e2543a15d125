"""The peculiarities of labelling tools: their files are read as they are meant, and the user is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose.skeleton import COCO17
from tests.training import stick_people
from training.__main__ import main
from training.data import coco, images, known_skeletons
from training.data.coco import DatasetError
from training.data.formats import convert, layouts, yolo
from training.data.formats.labelled_set import LabelledSet
from training.data.formats.layouts import SetLocation
from training.recipe import skeletons


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return path


def same_people(found: LabelledSet, folder: Path) -> None:
    """Require the same people as in an unchanged copy of the same figures."""
    stick_people.write_coco(folder)
    expected = layouts.read(SetLocation(folder))
    assert not found.faults
    assert len(found.pictures) == len(expected.pictures)
    for person, other in zip(found.people, expected.people, strict=True):
        np.testing.assert_allclose(person.joints, other.joints, atol=0.01)
        picture, shown = found.pictures[person.picture], expected.pictures[other.picture]
        assert picture.file is not None
        assert shown.file is not None
        assert picture.file.sha256 == shown.file.sha256


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    path = stick_people.write_coco(tmp_path / "coco")
    path.write_text(path.read_text(), encoding=encoding)
    same_people(layouts.read(SetLocation(tmp_path / "coco")), tmp_path / "plain")
    assert len(coco.load(path).anns) == 6
    (tmp_path / "stick.toml").write_text(stick_people.TOML, encoding=encoding)
    assert skeletons.load(tmp_path / "stick.toml").name == "stick12"
    data = stick_people.write_yolo(tmp_path / "yolo")
    data.write_text(data.read_text().replace("images/val", "list.txt"), encoding=encoding)
    (data.parent / "list.txt").write_text("./images/val/005.png\n./images/val/006.png\n", encoding=encoding)
    for rows in (data.parent / "labels").rglob("*.txt"):
        rows.write_text(rows.read_text(), encoding="utf-8-sig")
    same_people(layouts.read(SetLocation(data)), tmp_path / "plain2")


def test_back_slashes_in_a_json(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path / "set")

    def to_windows(tree: dict[str, Any]) -> None:
        for image in tree["images"]:
            image["file_name"] = f"train\\{image['file_name']}"

    edit(path, to_windows)
    found = layouts.read(SetLocation(path))
    same_people(found, tmp_path / "plain")
    assert next(iter(found.pictures.values())).file_name == "train/001.png"
    for info in coco.load(path).imgs.values():
        assert images.read_labelled(found.images, info).shape == (200, 160, 3)


def test_a_back_slash_that_is_part_of_a_name(tmp_path: Path) -> None:
    """Unpacking an archive of Windows on Linux makes such names."""
    path = stick_people.write_coco(tmp_path)
    (tmp_path / "train" / "001.png").rename(tmp_path / "train" / "a\\001.png")
    edit(path, lambda tree: tree["images"][0].update(file_name="a\\001.png"))
    found = layouts.read(SetLocation(path))
    assert not found.faults
    assert found.pictures[1].file_name == "a\\001.png"


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_back_slashes_in_a_data_yaml(tmp_path: Path, quote: str) -> None:
    data = stick_people.write_yolo(tmp_path / "set")
    text = data.read_text().replace("path: .", f"path: {quote}D:\\new\\users{quote}")
    text = text.replace("images/train", f"{quote}images\\train{quote}").replace("images/val", "list.txt")
    data.write_text(text)
    (data.parent / "list.txt").write_text("images\\val\\005.png\r\n.\\images\\val\\006.png\r\n")
    same_people(layouts.read(SetLocation(data)), tmp_path / "plain")


UNKNOWN = st.sampled_from([float("nan"), float("inf"), None, -1, 0, 1e9])


@given(x=UNKNOWN, y=UNKNOWN, k=st.integers(0, 11))
def test_coordinates_mean_nothing_where_nothing_is_labelled(
    tmp_path_factory: pytest.TempPathFactory, x: float | None, y: float | None, k: int
) -> None:
    folder = tmp_path_factory.mktemp("unlabelled")
    path = stick_people.write_coco(folder, 1)
    edit(path, lambda tree: tree["annotations"][0]["keypoints"].__setitem__(slice(3 * k, 3 * k + 3), [x, y, 0]))
    edit(path, lambda tree: tree["annotations"][0].update(num_keypoints=11))
    found = layouts.read(SetLocation(path))
    assert not found.faults
    assert found.people[0].joints[k, 2] == 0
    convert.write(found, folder / "out.json")
    (person,) = coco.load(path).anns.values()
    assert np.isfinite(np.array(person["keypoints"], float)).all()
    row = yolo.LabelRow("x", ["0", "0.5", "0.5", "1", "1", str(x or "nan"), str(y or "nan"), "0"], 1, 3, 1)
    assert row.fault is None
    assert row.in_px((9, 9))[1].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("v", [1, 2])
def test_a_labelled_keypoint_needs_its_place(tmp_path: Path, v: int) -> None:
    path = stick_people.write_coco(tmp_path)
    edit(path, lambda tree: tree["annotations"][0]["keypoints"].__setitem__(slice(0, 3), [None, 5, v]))
    (fault,) = layouts.read(SetLocation(path)).faults
    assert "expected a finite number, got nothing" in str(fault)


IDS: dict[str, Callable[[int], Any]] = {
    "text": lambda i: f"picture-{i}",
    "digits": str,
    "floats": float,
    "fractions": lambda i: i + 0.5,
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_that_are_no_whole_numbers(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = stick_people.write_coco(tmp_path / "set")

    def rename(tree: dict[str, Any]) -> None:
        for entry in (*tree["images"], *tree["annotations"]):
            entry["id"] = IDS[kind](entry["id"])
        for person in tree["annotations"]:
            person["image_id"] = IDS[kind](person["image_id"])

    edit(path, rename)
    same_people(layouts.read(SetLocation(path)), tmp_path / "plain")
    with pytest.raises(DatasetError, match="convert renumbers them"):
        coco.load(path)
    assert main(["convert", str(path), "--out", str(tmp_path / "out.json")]) == 0
    told = capsys.readouterr().out
    assert told.count("note: ids renumbered") == 1
    assert "2 x" in told
    tree = json.loads((tmp_path / "out.json").read_text())
    assert {it["image_id"] for it in tree["annotations"]} == {it["id"] for it in tree["images"]} == set(range(1, 7))


def test_a_reference_of_another_type(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path / "set")
    edit(path, lambda tree: [it.update(image_id=str(it["image_id"])) for it in tree["annotations"]])
    same_people(layouts.read(SetLocation(path)), tmp_path / "plain")


def test_edges_counted_from_0(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path)
    plain = layouts.read(SetLocation(path))
    edit(path, lambda tree: tree["categories"][0].update(skeleton=[list(it) for it in stick_people.EDGES]))
    found = layouts.read(SetLocation(path))
    assert found.skeleton == plain.skeleton
    assert [note.kind for note in found.notes] == ["edges counted from 0"]
    assert convert.tree(found)["categories"] == convert.tree(plain)["categories"]


def two_classes(folder: Path, names: str) -> Path:
    data = stick_people.write_yolo(folder)
    data.write_text(data.read_text().replace("{0: stick}", names))
    for name in ("001", "002"):
        rows = folder / "labels" / "train" / f"{name}.txt"
        rows.write_text("1" + rows.read_text()[1:])
    return data


@pytest.mark.parametrize(
    ("names", "given", "people", "told"),
    [
        ("{0: person, 1: dog}", [], 4, "2 of dog left out"),
        ("[Person, dog]", ["--class", "DOG"], 2, "4 of Person left out"),
        ("{0: person, 1: dog}", ["--class", "person", "--class", "1"], 6, "4 of person, 2 of dog are all read as"),
        ("{0: woman, 1: man}", [], 6, "4 of woman, 2 of man are all read as people"),
    ],
)
def test_classes_of_yolo(
    tmp_path: Path, names: str, given: list[str], people: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_classes(tmp_path, names)
    for command in (["check", str(data)], ["convert", str(data), "--out", str(tmp_path / "out.json")]):
        assert main([*command, *given]) == 0
        assert told in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out.json").read_text())["annotations"]) == people


def test_categories_of_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stick_people.write_coco(tmp_path)

    def with_dogs(tree: dict[str, Any]) -> None:
        tree["categories"][0]["name"] = "person"
        tree["categories"].append({"id": 2, "name": "dog", "keypoints": ["tail"]})
        tree["annotations"][0].update(category_id=2, keypoints=[1, 2, 2], num_keypoints=1)

    edit(path, with_dogs)
    found = layouts.read(SetLocation(path))
    assert (len(found.people), [note.kind for note in found.notes]) == (5, ["other classes"])
    dogs = layouts.read(SetLocation(path, classes=["dog"]))
    assert (len(dogs.people), dogs.skeleton.keypoints) == (1, ("tail",))
    assert main(["check", str(path), "--class", "cat"]) == 1
    assert "--class: expected one of person (1), dog (2), got 'cat'" in capsys.readouterr().err


def test_labelled_pictures_of_another_format_are_told_by_name(tmp_path: Path) -> None:
    data = stick_people.write_yolo(tmp_path)
    folder = tmp_path / "images" / "train"
    (folder / "001.png").rename(folder / "001.jpe")
    (folder / "002.png").unlink()
    (folder / "002.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "003.json").write_text("{}")  # a tool's own file beside a picture
    found = layouts.read(SetLocation(data))
    assert not found.faults
    assert {it.file_name for it in found.pictures.values()} == {
        "images/train/001.jpe", "images/train/003.png", "images/train/004.png",
        "images/val/005.png", "images/val/006.png",
    }  # fmt: skip
    (note,) = found.notes
    assert "1 labelled files are left out: 002.heic" in note.what


def roboflow(folder: Path) -> Path:
    """``train``, ``valid`` and ``test``, each with its json among its pictures, and a category without keypoints."""
    for split, seed in (("train", 0), ("valid", 1), ("test", 2)):
        path = stick_people.write_coco(folder / "made" / split, 2, seed)
        shutil.move(folder / "made" / split / "train", folder / split)
        edit(path, lambda tree: tree["categories"].insert(0, {"id": 0, "name": "people", "supercategory": "none"}))
        path.rename(folder / split / "_annotations.coco.json")
    shutil.rmtree(folder / "made")
    (folder / "README.roboflow.txt").write_text("text")
    return folder


def fiftyone(folder: Path) -> Path:
    """``train`` and ``validation``, each with ``labels.json`` and its pictures in ``data``."""
    for split, seed in (("train", 0), ("validation", 1)):
        path = stick_people.write_coco(folder / "made" / split, 3, seed)
        shutil.move(folder / "made" / split / "train", folder / split / "data")
        path.rename(folder / split / "labels.json")
    shutil.rmtree(folder / "made")
    (folder / "info.json").write_text("{}")
    return folder


@pytest.mark.parametrize(("make", "counts"), [(roboflow, [2, 2, 2, 6]), (fiftyone, [3, 3, None, 6])])
def test_exports_are_found(tmp_path: Path, make: Callable[[Path], Path], counts: list[int | None]) -> None:
    folder = make(tmp_path / "export")
    for split, count in zip(("train", "val", "test", None), counts, strict=True):
        if count is None:
            with pytest.raises(DatasetError, match=r"expected a split test, got train, val"):
                layouts.read(SetLocation(folder, split=split))
            continue
        found = layouts.read(SetLocation(folder, split=split))
        assert not found.faults
        assert len(found.people) == len({it.id for it in found.people}) == count
        convert.write(found, tmp_path / "out.json")
        again = layouts.read(SetLocation(tmp_path / "out.json", found.images))
        assert not again.faults
        assert [again.pictures[it.picture].file_name for it in again.people] == [
            found.pictures[it.picture].file_name for it in found.people
        ]
    one = layouts.read(SetLocation(folder / "train"))
    assert len(one.people) == counts[0]


def test_fiftyones_export_without_splits(tmp_path: Path) -> None:
    path = stick_people.write_coco(tmp_path / "set")
    shutil.move(tmp_path / "set" / "train", tmp_path / "set" / "data")
    shutil.move(path, tmp_path / "set" / "labels.json")
    (tmp_path / "set" / "info.json").write_text("{}")
    same_people(layouts.read(SetLocation(tmp_path / "set")), tmp_path / "plain")


def test_splits_of_other_skeletons_are_not_joined(tmp_path: Path) -> None:
    folder = roboflow(tmp_path)
    edit(
        folder / "valid" / "_annotations.coco.json",
        lambda tree: tree["categories"][1]["keypoints"].__setitem__(0, "hat"),
    )
    with pytest.raises(DatasetError, match=r"valid.*expected the keypoints of .*train.* read one with --split"):
        layouts.read(SetLocation(folder))


def test_roboflows_yolo_export_names_a_test_set_that_is_not_there(tmp_path: Path) -> None:
    data = stick_people.write_yolo(tmp_path)
    for split, theirs in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (tmp_path / theirs).mkdir(exist_ok=True)
            shutil.move(tmp_path / kind / split, tmp_path / theirs / kind)
    text = data.read_text().replace("path: .\n", "").replace("images/train", "../train/images")
    data.write_text(text.replace("images/val", "../valid/images") + "test: ../test/images\n")
    assert len(layouts.read(SetLocation(tmp_path)).people) == 6


def test_skeletons_by_name(tmp_path: Path) -> None:
    wrist_to_tip = [f"right_{it}" for it in ("hand_root", "thumb1", "thumb2", "thumb3", "thumb4", "forefinger1")]
    for name, count, pair, at, names, sigmas in (
        ("halpe26", 26, ("left_big_toe", "right_big_toe"), 17, ["head", "neck", "hip"], [0.08] * 3 + [0.089] * 6),
        ("coco-wholebody133", 133, ("face-36", "face-45"), 112, wrist_to_tip, [0.029, 0.022, 0.035, 0.037, 0.047]),
    ):
        made = known_skeletons.find(Path(name))
        assert made.keypoints[at : at + len(names)] == tuple(names)
        assert made.sigmas[at : at + len(sigmas)] == tuple(sigmas)  # as the two projects evaluate
        assert (len(made), made.keypoints[:17], made.sigmas[:17]) == (count, COCO17.keypoints, COCO17.sigmas)
        first, second = (made.keypoints.index(it) for it in pair)
        assert made.flip[first] == second
        (tmp_path / "own.toml").write_text(skeletons.to_toml(made))
        assert skeletons.load(tmp_path / "own.toml") == made
        for a, b in made.edges:  # a mirrored drawing is a drawing
            mirrored = (made.flip[a], made.flip[b])
            assert mirrored in made.edges or mirrored[::-1] in made.edges
