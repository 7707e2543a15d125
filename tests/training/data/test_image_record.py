"""Training pictures are recorded by ids that their copies share; caches and tasks have such records."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import tiny_recipe
from training.data import coco, crop_cache, image_record
from training.data.image_record import PictureRecord
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseTask

CPU = torch.device("cpu")
numbers = st.lists(
    st.one_of(st.integers(0, 600_000), st.integers(image_record.OTHERS, 2 * image_record.OTHERS - 1)), max_size=300
)


@given(numbers, numbers)
def test_records_survive_json_and_have_unions(first: list[int], second: list[int]) -> None:
    one = PictureRecord.of(first) | PictureRecord(unrecorded=("a",))
    other = PictureRecord.of(second) | PictureRecord(unrecorded=("b", "a"))
    again = PictureRecord.unpacked(json.loads(json.dumps(one.packed())))
    np.testing.assert_array_equal(again.ids, one.ids)
    assert again.unrecorded == ("a",)
    both = one | other
    assert both.ids.tolist() == sorted({*first, *second})
    assert both.unrecorded == ("a", "b")


def test_a_record_of_all_of_coco_is_small() -> None:
    ids = np.random.default_rng(0).choice(581_929, 57_000, replace=False)
    assert len(json.dumps(PictureRecord.of(ids).packed())) < 64_000


def test_copies_share_an_id_and_equal_names_do_not(tmp_path: Path) -> None:
    """COCO's files by their names, however they are encoded; other files by their bytes, whatever their names."""
    named = ["000000000785.jpg", "000000000785.webp", "COCO_val2014_000000000785.jpg",
             "000000000785_jpg.rf.a81ebe83fa4a2fec5d2d2a0ce2c6ee0a.jpg"]  # fmt: skip
    assert {image_record.picture_id(tmp_path / name) for name in named} == {785}
    long = bytearray(3 * image_record.HASHED)
    contents = {"train/0001.jpg": b"a", "val/0001.jpg": b"b", "train/202401011230.jpg": b"c", "val/long.jpg": long}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = {image_record.picture_id(tmp_path / name) for name in contents}
    assert len(found) == 4
    assert min(found) >= image_record.OTHERS
    for place in (0, -1):
        long[place] += 1
        (tmp_path / "val" / "long.jpg").write_bytes(long)
        found.add(image_record.picture_id(tmp_path / "val" / "long.jpg"))
    assert len(found) == 6
    shutil.copy(tmp_path / "train" / "0001.jpg", tmp_path / "val" / "renamed.jpg")
    assert image_record.picture_id(tmp_path / "val" / "renamed.jpg") == image_record.picture_id(
        tmp_path / "train" / "0001.jpg"
    )


def test_caches_record_their_pictures_and_those_held_back(painted: coco.Source, tmp_path: Path) -> None:
    crop_cache.build(painted, tmp_path / "crops", skip=3)
    (cache,) = crop_cache.open_cache([tmp_path / "crops"])
    there = {i: image_record.picture_id(painted.images / f"{i}.png") for i in range(1, 7)}
    assert cache.pictures.tolist() == [there[i] for i in (1, 1, 2, 2, 4, 4, 5, 5)]
    assert set(cache.held_back.tolist()) == {there[3], there[6]}
    assert crop_cache.record([cache]).ids.tolist() == sorted(there[i] for i in (1, 2, 4, 5))


def test_a_picture_that_one_cache_holds_back_and_another_shows_gives_a_warning(
    painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, skip in (("a", 3), ("b", 3), ("c", 2)):
        crop_cache.build(painted, tmp_path / name, skip=skip)
    capsys.readouterr()
    crop_cache.record(crop_cache.open_cache([tmp_path / "a", tmp_path / "b"]))
    assert capsys.readouterr().err == ""
    crop_cache.record(crop_cache.open_cache([tmp_path / "a", tmp_path / "c"]))
    told = capsys.readouterr().err
    assert f"{tmp_path / 'a'}: 1 of 2 pictures that were held back here" in told
    assert f"{tmp_path / 'c'}: 2 of 3 pictures that were held back here" in told


def test_a_cache_of_an_older_version_is_refused(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "crops", tmp_path / "crops")
    with np.load(tmp_path / "crops" / "labels.npz") as stored:
        kept = {name: stored[name] for name in stored.files if name not in {"pictures", "held_back"}}
    np.savez(tmp_path / "crops" / "labels.npz", **kept)  # type: ignore[arg-type]  # the stub means other arguments
    with pytest.raises(coco.DatasetError, match="got an older one; run posewright-train crops"):
        crop_cache.open_cache([tmp_path / "crops"])


def test_both_tasks_record_their_pictures(painted: coco.Source, data_root: Path) -> None:
    expected = sorted(image_record.picture_id(it) for it in painted.images.iterdir())
    tasks = [task(tiny_recipe(kind), data_root, CPU, data_root / "run")
             for kind, task in (("pose", PoseTask), ("detector", DetectorTask))]  # fmt: skip
    for task in tasks:
        learned, teachers = task.origins()
        assert (learned.ids.tolist(), learned.unrecorded, teachers) == (expected, (), ())
