"""Networks are not measured on pictures that they were trained on, unless the user asks for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import service
from service.pose import bundle
from service.pose.bundle import Bundle, BundleError
from tests import spots
from tests.training.conftest import write_data_set
from training.__main__ import main
from training.data import coco, holdout, image_record
from training.data.holdout import Overlap, OverlapError
from training.data.image_record import PictureRecord


def with_record(path: Path, learned: PictureRecord) -> Bundle:
    """A bundle that records these pictures as its training data."""
    known = bundle.read(path)
    manifest = known.manifest.model_copy(update={"trained_by": {"pictures": learned.packed()}})
    return bundle.write(path, manifest, known.onnx, known.card)


@pytest.fixture
def many(tmp_path: Path) -> coco.Source:
    return write_data_set(tmp_path / "many", pictures=12)


@pytest.fixture
def student(many: coco.Source, tmp_path: Path) -> Bundle:
    """It was trained on pictures 1 and 3."""
    path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=2)
    return with_record(path, PictureRecord.of([image_record.picture_id(many.images / f"{i}.png") for i in (1, 3)]))


@pytest.fixture
def detector(many: coco.Source, tmp_path: Path) -> Bundle:
    """It was trained on picture 2."""
    path = spots.write_detector_bundle(tmp_path)
    return with_record(path, PictureRecord.of([image_record.picture_id(many.images / "2.png")]))


def subcommand(name: str, source: coco.Source, *more: object) -> int:
    where = ("--annotations", source.annotations, "--images", source.images)
    return main([name, *map(str, [*more, *where])])


def test_measuring_on_training_pictures_is_refused_and_others_do_not_count(many: coco.Source, student: Bundle) -> None:
    with pytest.raises(OverlapError, match=r"got 2 of 12 pictures that it learned from \(1.png, 3.png\).*--allow-seen"):
        holdout.of_bundles([student], many)
    assert holdout.of_bundles([student], many, every=2) == Overlap(0, ())
    assert holdout.of_bundles([student], many, allow=True) == Overlap(2, ())
    data = json.loads(many.annotations.read_text())
    data["images"][0]["official_complete"] = data["images"][2]["official_complete"] = False
    many.annotations.write_text(json.dumps(data))
    assert holdout.of_bundles([student], many, complete=True) == Overlap(0, ())


def test_evaluate_refuses_training_pictures(
    many: coco.Source, student: Bundle, detector: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subcommand("evaluate", many, student.path) == 1
    assert "got 2 of 12" in capsys.readouterr().err
    assert subcommand("evaluate", many, student.path, "--every", 2) == 0
    assert subcommand("evaluate", many, student.path, "--every", 2, "--detector", detector.path) == 1
    assert "detector 1 did not learn from, got 1 of 6" in capsys.readouterr().err
    assert subcommand("evaluate", many, student.path, "--allow-seen", "--record", "painted people") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["overlap"] == {"pictures": 2, "unchecked": []}
    assert told["ap_interval"][0] <= told["ap"] <= told["ap_interval"][1]
    recorded = bundle.read(student.path)
    assert set(recorded.manifest.metrics) == {f"{it}_ground_truth_boxes_seen" for it in ("ap", "ap50", "ap75")}
    assert "on painted people, of which 2 were learned from." in recorded.card


def test_calibrate_refuses_training_pictures(many: coco.Source, student: Bundle, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert subcommand("calibrate", many, student.path, *out) == 1
    assert not (tmp_path / "out").exists()
    assert subcommand("calibrate", many, student.path, *out, "--allow-seen") == 0
    found = bundle.read(tmp_path / "out").manifest.calibration
    assert found is not None
    assert found.measured_on == f"12 pictures of {many.annotations.stem}, of which 2 were learned from"


def test_bench_and_report_refuse_training_pictures(
    many: coco.Source, student: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subcommand("bench", many, student.path, "--rounds", 1) == 1
    assert subcommand("bench", many, student.path, "--rounds", 1, "--allow-seen") == 0
    assert "AP is of pictures, of which 2 were learned from" in capsys.readouterr().out
    assert subcommand("report", many, student.path, "--out", tmp_path / "report") == 1
    assert subcommand("report", many, student.path, "--out", tmp_path / "report", "--allow-seen") == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["overlap"] == {"pictures": 2, "unchecked": []}
    assert "It was trained on 2 of the pictures below" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("name", ["detector", "student-s", "student-t", "teacher"])
def test_shipped_bundles_record_their_training_pictures_or_that_these_are_unknown(
    name: str, many: coco.Source, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = bundle.read(Path(service.__file__).parent / "models" / name)
    shared = holdout.of_bundles([opened], many)
    assert shared.pictures == 0
    assert shared.unchecked  # they began with weights of others
    assert "overlap cannot be checked" in capsys.readouterr().err


def test_a_damaged_record_is_refused(many: coco.Source, student: Bundle) -> None:
    record = student.manifest.trained_by["pictures"]
    for damage in ({"ids": "AAAA"}, {"ids": "?"}, {"count": 3}, {"unrecorded": None}):
        made = student.manifest.model_copy(update={"trained_by": {"pictures": record | damage}})
        with pytest.raises(BundleError, match=r"student-s.*got a damaged one"):
            holdout.of_bundles([replace(student, manifest=made)], many)


def test_a_bundle_without_a_record_is_measured_with_a_warning(
    many: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spots.write_pose_bundle(tmp_path, "old", "student")
    assert subcommand("evaluate", many, path, "--every", 6) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["overlap"] == {"pictures": 0, "unchecked": ["old 1"]}
    assert (
        "old 1: overlap cannot be checked: nobody recorded the training pictures of old 1; some of these 2 may"
        in answer.err
    )
