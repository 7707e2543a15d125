"""Pictures that were learned from are known by number, wherever their copies lie, and nothing is measured on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.pose import bundle
from service.pose.bundle import Bundle
from tests import spots
from tests.training.conftest import tiny_recipe, write_data_set
from training import coco, crops, seen
from training.__main__ import main
from training.finder_task import FinderTask
from training.pose_task import PoseTask
from training.seen import Seen, SeenError

CPU = torch.device("cpu")
numbers = st.lists(st.one_of(st.integers(0, 600_000), st.integers(seen.OTHERS, 2 * seen.OTHERS - 1)), max_size=300)


def of(values: list[int], *unrecorded: str) -> Seen:
    return Seen(np.unique(np.array(values, np.int64)), unrecorded)


@given(numbers, numbers)
def test_a_record_survives_json_and_adds_up(first: list[int], second: list[int]) -> None:
    one, other = of(first, "a"), of(second, "b", "a")
    again = Seen.unpacked(json.loads(json.dumps(one.packed())))
    np.testing.assert_array_equal(again.numbers, one.numbers)
    assert again.unrecorded == ("a",)
    both = seen.joined([one, other])
    assert both.numbers.tolist() == sorted({*first, *second})
    assert both.unrecorded == ("a", "b")


def test_all_of_coco_is_small() -> None:
    ids = np.random.default_rng(0).choice(581_929, 57_000, replace=False)
    assert len(json.dumps(Seen(np.unique(ids)).packed())) < 64_000


def test_copies_share_a_number_and_namesakes_do_not(tmp_path: Path) -> None:
    """A file of COCO's however it was encoded again, others byte for byte, whatever they are called."""
    named = ["000000000785.jpg", "000000000785.webp", "COCO_val2014_000000000785.jpg"]
    assert {seen.number_of(tmp_path / name) for name in named} == {785}
    long = bytearray(3 * seen.LOOKED_AT)
    contents = {"train/0001.jpg": b"a", "val/0001.jpg": b"b", "train/202401011230.jpg": b"c", "val/long.jpg": long}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = {seen.number_of(tmp_path / name) for name in contents}
    assert len(found) == 4
    assert min(found) >= seen.OTHERS
    for place in (0, -1):
        long[place] += 1
        (tmp_path / "val" / "long.jpg").write_bytes(long)
        found.add(seen.number_of(tmp_path / "val" / "long.jpg"))
    assert len(found) == 6
    shutil.copy(tmp_path / "train" / "0001.jpg", tmp_path / "val" / "renamed.jpg")
    assert seen.number_of(tmp_path / "val" / "renamed.jpg") == seen.number_of(tmp_path / "train" / "0001.jpg")


def test_caches_say_whose_crops_they_hold_and_what_was_held_back(painted: coco.Source, tmp_path: Path) -> None:
    crops.build(painted, tmp_path / "crops", skip=3)
    (cache,) = crops.open_cache([tmp_path / "crops"])
    there = {i: seen.number_of(painted.images / f"{i}.png") for i in range(1, 7)}
    assert cache.pictures is not None
    assert cache.pictures.tolist() == [there[i] for i in (1, 1, 2, 2, 4, 4, 5, 5)]
    assert cache.held_back is not None
    assert set(cache.held_back.tolist()) == {there[3], there[6]}
    assert crops.seen_in([cache], ["painted"]).numbers.tolist() == sorted(there[i] for i in (1, 2, 4, 5))


def test_a_cache_of_a_version_before_is_opened_and_says_nothing(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "crops", tmp_path / "crops")
    with np.load(tmp_path / "crops" / "labels.npz") as stored:
        kept = {name: stored[name] for name in stored.files if name not in {"pictures", "held_back"}}
    np.savez(tmp_path / "crops" / "labels.npz", **kept)  # type: ignore[arg-type]  # the stub means other arguments
    task = PoseTask(tiny_recipe(), tmp_path, CPU, tmp_path / "run")
    learned, teachers = task.origins()
    assert (len(learned.numbers), learned.unrecorded, teachers) == (0, ("painted",), ())


def test_both_tasks_tell_what_they_learn_from(painted: coco.Source, data_root: Path) -> None:
    expected = sorted(seen.number_of(it) for it in painted.images.iterdir())
    tasks = [task(tiny_recipe(kind), data_root, CPU, data_root / "run")
             for kind, task in (("pose", PoseTask), ("finder", FinderTask))]  # fmt: skip
    for task in tasks:
        learned, teachers = task.origins()
        assert (learned.numbers.tolist(), learned.unrecorded, teachers) == (expected, (), ())


def with_record(path: Path, learned: Seen) -> Bundle:
    """A bundle as if its training had learned from these pictures."""
    known = bundle.read(path)
    manifest = known.manifest.model_copy(update={"trained_by": {"pictures": learned.packed()}})
    return bundle.write(path, manifest, known.onnx, known.card)


class TestRefusal:
    """What was learned from is not measured on, unless somebody asks for it."""

    @pytest.fixture
    def many(self, tmp_path: Path) -> coco.Source:
        return write_data_set(tmp_path / "many", pictures=12)

    @pytest.fixture
    def student(self, many: coco.Source, tmp_path: Path) -> Bundle:
        """It learned from pictures 1 and 3."""
        path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=2)
        return with_record(path, of([seen.number_of(many.images / f"{i}.png") for i in (1, 3)]))

    @pytest.fixture
    def finder(self, many: coco.Source, tmp_path: Path) -> Bundle:
        """It learned from picture 2."""
        path = spots.write_finder_bundle(tmp_path)
        return with_record(path, of([seen.number_of(many.images / "2.png")]))

    def verb(self, name: str, source: coco.Source, *more: object) -> int:
        where = ("--annotations", source.annotations, "--images", source.images)
        return main([name, *map(str, [*more, *where])])

    def test_only_the_pictures_that_are_measured_count(self, many: coco.Source, student: Bundle) -> None:
        with pytest.raises(SeenError, match=r"got 2 of 12 that it has \(1.png, 3.png\).*--seen-too"):
            seen.require_unseen(student, many)
        assert seen.require_unseen(student, many, every=2) == 0
        assert seen.require_unseen(student, many, seen_too=True) == 2
        data = json.loads(many.annotations.read_text())
        data["images"][0]["official_complete"] = data["images"][2]["official_complete"] = False
        many.annotations.write_text(json.dumps(data))
        assert seen.require_unseen(student, many, complete=True) == 0

    def test_evaluate(
        self, many: coco.Source, student: Bundle, finder: Bundle, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.verb("evaluate", many, student.path) == 1
        assert "got 2 of 12" in capsys.readouterr().err
        assert self.verb("evaluate", many, student.path, "--every", 2) == 0
        assert self.verb("evaluate", many, student.path, "--every", 2, "--finder", finder.path) == 1
        assert "finder 1 has not learned from, got 1 of 6" in capsys.readouterr().err
        assert self.verb("evaluate", many, student.path, "--seen-too", "--record", "painted people") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["seen_pictures"] == 2
        assert told["ap_interval"][0] <= told["ap"] <= told["ap_interval"][1]
        recorded = bundle.read(student.path)
        assert set(recorded.manifest.metrics) == {f"{it}_ground_truth_boxes_seen" for it in ("ap", "ap50", "ap75")}
        assert "on painted people, of which 2 were learned from." in recorded.card

    def test_calibrate(self, many: coco.Source, student: Bundle, tmp_path: Path) -> None:
        out = ("--out", tmp_path / "out")
        assert self.verb("calibrate", many, student.path, *out) == 1
        assert not (tmp_path / "out").exists()
        assert self.verb("calibrate", many, student.path, *out, "--seen-too") == 0
        found = bundle.read(tmp_path / "out").manifest.calibration
        assert found is not None
        assert found.measured_on == f"pictures of {many.annotations.stem}, of which 2 were learned from"

    def test_bench_and_report(
        self, many: coco.Source, student: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.verb("bench", many, student.path, "--rounds", 1) == 1
        assert self.verb("bench", many, student.path, "--rounds", 1, "--seen-too") == 0
        assert "AP of pictures, of which 2 were learned from" in capsys.readouterr().out
        assert self.verb("report", many, student.path, "--out", tmp_path / "report") == 1
        assert self.verb("report", many, student.path, "--out", tmp_path / "report", "--seen-too") == 0
        assert json.loads((tmp_path / "report" / "report.json").read_text())["seen_pictures"] == 2
        assert "2 of the pictures below were learned from" in (tmp_path / "report" / "report.html").read_text()

    def test_a_bundle_without_a_record_is_measured_with_a_note(
        self, many: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = spots.write_pose_bundle(tmp_path, "old", "student")
        assert self.verb("evaluate", many, path, "--every", 6) == 0
        answer = capsys.readouterr()
        assert json.loads(answer.out)["seen_pictures"] == 0
        assert "nobody wrote down which pictures old 1 learned from" in answer.err
