"""Every fault of a data set has its own message; everything else is a note."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from tests.training import stick_people
from training.__main__ import main
from training.data.formats import check, contact_sheet, duplicates, layouts, left_right
from training.data.formats.labelled_set import LabelFault
from training.data.formats.layouts import SetLocation

Break = Callable[[Path], object]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same six pictures as a COCO set and as a YOLO set."""
    folder = tmp_path_factory.mktemp("sound")
    stick_people.write_coco(folder / "coco")
    stick_people.write_yolo(folder / "yolo")
    return folder


def edited(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change a COCO file."""

    def apply(folder: Path) -> None:
        path = folder / "annotations" / "stick_keypoints_train.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return apply


def person(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change the third person of a COCO file, id 103."""
    return edited(lambda tree: change(tree["annotations"][2]))


def row(change: Callable[[list[str]], list[str]]) -> Break:
    """Change the row of a YOLO set's second picture."""

    def apply(folder: Path) -> None:
        path = folder / "labels" / "train" / "002.txt"
        path.write_text("\n" + " ".join(change(path.read_text().split())) + "\n")

    return apply


def text(old: str, new: str, name: str = "data.yaml") -> Break:
    def apply(folder: Path) -> None:
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return apply


def cut_off(folder: Path) -> None:
    path = folder / "train" / "004.png"
    path.write_bytes(path.read_bytes()[:-200])


def put(key: str, index: int, value: object) -> Break:
    return person(lambda it: it[key].__setitem__(index, value))


JSON = "annotations/stick_keypoints_train.json"
BROKEN_COCO: dict[str, tuple[Break, str]] = {
    "no json": (text('"images"', "'images'", JSON), ":1:2: not valid JSON: Expecting property name"),
    "a list": (lambda it: (it / JSON).write_text("[]"), "expected an object with images and annotations, got a list"),
    "no annotations": (edited(lambda it: it.pop("annotations")), "annotations: expected a list, got images, "),
    "missing key": (person(lambda it: it.pop("bbox")), "annotations[2] (id 103).bbox: expected [x, y, width, height]"),
    "no file name": (edited(lambda it: it["images"][1].pop("file_name")), "images[1] (id 2).file_name: expected a"),
    "no id": (person(lambda it: it.update(id=None)), "annotations[2].id: expected an integer, got nothing"),
    "same id as text": (person(lambda it: it.update(id="101")), "expected a unique id, got that of annotations[0]"),
    "unknown picture": (person(lambda it: it.update(image_id=99)), "image_id: expected the id of an image, got 99"),
    "duplicate id": (person(lambda it: it.update(id=101)), "expected a unique id, got that of annotations[0]"),
    "duplicate picture": (edited(lambda it: it["images"][3].update(id=1)), "images[3] (id 1): expected a unique id"),
    "too few numbers": (person(lambda it: it["keypoints"].pop()), "expected 36 numbers, x, y, v for each of"),
    "wrong v": (put("keypoints", 5, 3), "keypoints[5] (neck): expected v 0 (not labelled), 1 (hidden) or 2 (visible)"),
    "not finite": (put("keypoints", 6, float("nan")), "keypoints[6] (left_hand): expected a finite number, got NaN"),
    "text as number": (put("keypoints", 0, "12"), 'keypoints[0] (head): expected a finite number, got "12"'),
    "infinite box": (put("bbox", 0, float("inf")), "(id 103).bbox: expected four finite numbers, got [Infinity"),
    "negative box": (put("bbox", 2, -4), "(id 103).bbox: expected a width and height of 0 or more"),
    "missing picture": (lambda it: (it / "train/004.png").unlink(), "004.png: expected a picture, got No such file"),
    "picture cut off": (cut_off, "004.png: expected a complete picture, got the first"),
    "no picture": (lambda it: (it / "train/004.png").write_text("x"), "004.png: expected a picture that OpenCV can"),
    "size differs": (edited(lambda it: it["images"][3].update(width=80)), "expected 160 x 200 px as"),
    "nobody": (edited(lambda it: it["annotations"].clear()), "annotations: expected people, got none"),
    "two skeletons": (
        edited(lambda it: it["categories"].append({"id": 2, "name": "dog", "keypoints": ["tail"]})),
        "categories: expected one skeleton, got 'stick' (12), 'dog' (1)",
    ),
    "a name twice": (edited(lambda it: it["categories"][0]["keypoints"].__setitem__(0, "neck")), "of different names"),
}  # fmt: skip

BROKEN_YOLO: dict[str, tuple[Break, str]] = {
    "no yaml": (text("path: .", "path: ["), "data.yaml:3: not valid YAML"),
    "no kpt_shape": (text("kpt_shape: [12, 3]", ""), "kpt_shape: expected [keypoints, 2 or 3], got None"),
    "wrong kpt_shape": (text("[12, 3]", "[12, 4]"), "kpt_shape: expected [keypoints, 2 or 3], got [12, 4]"),
    "other kpt_shape": (text("[12, 3]", "[11, 3]"), "flip_idx"),
    "no pictures": (text("images/val", "images/none"), "expected pictures at"),
    "wrong flip_idx": (text("[0, 1, 3", "[0, 3, 3"), "flip partners must be mutual"),
    "columns": (row(lambda it: it[:-1]), "002.txt:2: expected 41 columns, 5 and 12 x 3 as kpt_shape says, got 40"),
    "px instead of shares": (row(lambda it: [*it[:8], "83.5", *it[9:]]), "002.txt:2: column 9: expected a share of"),
    "negative": (row(lambda it: [it[0], "-0.5", *it[2:]]), "002.txt:2: column 2: expected a share of"),
    "not finite": (row(lambda it: [*it[:5], "nan", *it[6:]]), "002.txt:2: column 6: expected a finite number, got nan"),
    "text": (row(lambda it: [*it[:5], "x", *it[6:]]), "002.txt:2: expected numbers, got"),
    "wrong v": (row(lambda it: [*it[:7], "5", *it[8:]]), "002.txt:2: column 8: expected v 0, 1 or 2, got 5"),
    "unknown class": (row(lambda it: ["3", *it[1:]]), "002.txt:2: expected a class 0 to 0 of names, got 3"),
    "no labels": (lambda it: shutil.rmtree(it / "labels"), "expected people, got none in 6 pictures"),
    "picture cut off": (
        lambda it: (it / "images/val/005.png").write_bytes((it / "images/val/005.png").read_bytes()[:900]),
        "005.png: expected a complete picture",
    ),
}  # fmt: skip


def run(*arguments: object) -> int:
    return main([str(it) for it in arguments])


@pytest.mark.parametrize(
    ("layout", "name"), [("coco", it) for it in BROKEN_COCO] + [("yolo", it) for it in BROKEN_YOLO]
)
def test_faults_are_named_and_refused(
    layout: str, name: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By check and by convert, which writes no file."""
    spoil, message = (BROKEN_COCO if layout == "coco" else BROKEN_YOLO)[name]
    shutil.copytree(sound / layout, tmp_path / "set")
    spoil(tmp_path / "set")
    out = tmp_path / "out"
    out.mkdir()
    for command in (("check", "--sheet", out / "sheet.jpg"), ("convert", "--out", out / "out.json")):
        assert run(*command, tmp_path / "set") == 1
        message_text = capsys.readouterr().err.replace("\r", "\n")
        assert message in message_text
        assert str(tmp_path / "set") in message_text
    assert not list(out.iterdir())


def test_lsp_without_joints_or_with_too_few_pictures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for content, message in (
        ({"people": np.zeros(3)}, "expected a variable 'joints', got people"),
        ({"joints": np.zeros((2, 14, 5))}, "joints: expected 3 x 14 x people, or 14 x 3 x people, got (2, 14, 5)"),
        ({"joints": np.zeros((3, 14, 5))}, "expected 5 pictures, one for each person of joints.mat, got 0"),
    ):
        savemat(tmp_path / "joints.mat", content)
        assert run("check", tmp_path) == 1
        assert message in capsys.readouterr().err
    (tmp_path / "joints.mat").write_text("no MATLAB file, but long enough to have a header" * 10)
    assert run("check", tmp_path) == 1
    assert "not a MATLAB file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "got none of them"),
        (("a.json", "b.json"), "expected one file of labels"),
        (("a.txt",), "got none of them"),
    ],
)
def test_a_folder_of_an_unknown_layout_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert run("check", tmp_path) == 1
    assert message in capsys.readouterr().err
    assert run("check", tmp_path / "nothing") == 1
    assert "got nothing there" in capsys.readouterr().err


def test_many_faults_of_a_kind_are_counted(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(sound / "coco", tmp_path / "set")
    edited(lambda tree: [it.pop("bbox") for it in tree["annotations"]])(tmp_path / "set")
    put("keypoints", 2, 9)(tmp_path / "set")
    assert run("check", tmp_path / "set") == 1
    message_text = capsys.readouterr().err
    assert message_text.count(".bbox: expected") == 5
    assert "1 more like the last one (missing key)" in message_text
    assert "expected v 0" in message_text


def test_a_set_without_faults_is_described(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stick.toml").write_text(stick_people.TOML)
    for layout in ("coco", "yolo"):
        code = run("check", sound / layout, "--skeleton", tmp_path / "stick.toml", "--sheet", tmp_path / "s.jpg")
        message_text = capsys.readouterr().out
        assert code == 0
        for line in (
            "skeleton stick12: 12 keypoints",
            "pictures  6, of them 0 without anybody",
            "people    6, of them 6 with joints; 0 crowds",
            "joints    72, 12.0 a person that has any",
            "to train  6 people are 40 px high and have 4 joints",
            "left_hand              100%     100%",
            "sound, 0 notes",
        ):
            assert line in message_text
        drawn = cv2.imread(str(tmp_path / "s.jpg"))
        assert drawn.shape == (contact_sheet.TILE[1], contact_sheet.COLUMNS * contact_sheet.TILE[0], 3)
        assert drawn.std() > 20


def kinds(notes: list[LabelFault]) -> dict[str, int]:
    return {kind: sum(note.kind == kind for note in notes) for kind in {note.kind for note in notes}}


def test_unusual_labels_are_notes_and_no_faults(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "coco", tmp_path / "set")

    def spoil(tree: dict[str, Any]) -> None:
        people = tree["annotations"]
        people[0]["bbox"] = [500, 10, 40, 50]
        people[1]["bbox"] = [10, 10, 0.2, 50]
        people[2]["bbox"][2] = 400
        people[3]["keypoints"][:2] = [170, 20]
        people[4]["num_keypoints"] = 3
        people[5]["keypoints"] = [80, 90, 2] * 12
        for person in people:
            person["keypoints"][33:36] = [0, 0, 0]
            person["num_keypoints"] = person["num_keypoints"] - 1

    edited(spoil)(tmp_path / "set")
    found = layouts.read(SetLocation(tmp_path / "set"))
    assert not found.faults
    assert kinds(check.notes_of(found)) == {
        "box outside": 1,
        "empty box": 1,
        "box beyond the edge": 1,
        "keypoint outside": 1,
        "keypoint far from its box": 2,
        "wrong num_keypoints": 1,
        "joints in one place": 1,
        "keypoint without labels": 1,
    }


def test_duplicate_pictures_and_leaks_between_sets_are_noted(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exact copies, and copies in another size and quality; nothing else."""
    shutil.copytree(sound / "yolo", tmp_path / "set")
    first = tmp_path / "set" / "images" / "train" / "001.png"
    shutil.copy(first, tmp_path / "set" / "images" / "val" / "again.png")
    smaller = cv2.resize(cv2.imread(str(first)), (100, 125), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(first.with_name("smaller.jpg")), smaller, [cv2.IMWRITE_JPEG_QUALITY, 60])
    whole = layouts.read(SetLocation(tmp_path / "set"))
    assert [(a.file_name, b.file_name) for a, b in duplicates.same_files(whole)] == [
        ("images/train/001.png", "images/val/again.png")
    ]
    (near,) = duplicates.alike(whole)
    assert {it.file_name for it in near} == {"images/train/001.png", "images/train/smaller.jpg"}
    train, val = (layouts.read(SetLocation(tmp_path / "set", split=it)) for it in ("train", "val"))
    assert len(duplicates.same_files(train, val)) == len(duplicates.alike(train, val)) == 1
    data = tmp_path / "set"
    assert run("check", data, "--split", "train", "--against", data, "--against-split", "val") == 0
    message_text = capsys.readouterr().out
    assert "LEAK: the same picture in both sets, 1 x" in message_text
    assert "LEAK: nearly the same picture in both sets, 1 x" in message_text
    untouched = layouts.read(SetLocation(sound / "yolo"))
    assert not duplicates.same_files(untouched)
    assert not duplicates.alike(untouched)


def test_swapped_left_and_right_are_noted(tmp_path: Path) -> None:
    """Figures with eyes, shoulders and hips by COCO's names; every fifth has its shoulders exchanged."""
    names = ("left_eye", "right_eye", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
    rng = np.random.default_rng(0)
    body = np.array([(6, 20), (-6, 20), (20, 50), (-20, 50), (12, 100), (-12, 100)], float)
    for swapped in (False, True):
        tree = stick_people.coco_tree(stick_people.figures(50), names)
        for i, it in enumerate(tree["annotations"]):
            angle = rng.uniform(-3, 3)  # however they lie
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            points = (body - [0, 60] + rng.normal(0, 0.5, body.shape)) @ turn.T + [80, 100]
            if swapped and i % 5 == 0:
                points[[2, 3]] = points[[3, 2]]
            it["keypoints"] = [number for x, y in points.tolist() for number in (x, y, 2)]
            it["num_keypoints"] = 6
        folder = tmp_path / str(swapped)
        path = stick_people.write_coco(folder, 50)
        path.write_text(json.dumps({**tree, "categories": [{"id": 1, "name": "body", "keypoints": list(names)}]}))
        judged = left_right.judge(layouts.read(SetLocation(path)))
        assert [it.people for it in judged] == [50, 50]
        assert [len(it.ids) for it in judged] == ([10, 10] if swapped else [0, 0])
        assert [it.is_suspect for it in judged] == [swapped, swapped]
        assert judged[0].ids == (tuple(range(101, 151, 5)) if swapped else ())
