"""Bootstrap intervals equal those of pycocotools' figures on resampled pictures."""

import copy
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from training.evaluation import bootstrap, coco_ap
from training.evaluation.bootstrap import MatchedDetections
from training.evaluation.coco_ap import Evaluation


def made_up(pictures: int, seed: int, kind: str) -> tuple[COCO, list[dict]]:
    """Labels and predictions of made-up pictures: people predicted well, badly, twice or not at all, and crowds."""
    rng = np.random.default_rng(seed)
    truth = COCO()
    images = [{"id": 7 * i + 1, "file_name": f"{i}.png", "width": 640, "height": 480} for i in range(pictures)]
    people: list[dict] = []
    results = []
    for image in images:
        before = len(results)
        for _ in range(rng.integers(0, 4)):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(20, 200, 2)]
            joints = np.column_stack([rng.uniform(0, 1, (17, 2)) * box[2:] + box[:2], rng.integers(0, 3, 17)])
            crowd = int(rng.random() < 0.1)
            people.append(
                {
                    "id": len(people) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": crowd, "bbox": box,
                    "area": 0.5 * box[2] * box[3], "keypoints": joints.ravel().tolist(),
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                }
            )  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                off = rng.normal(0, rng.choice([1, 10, 50]), 2)
                moved = np.column_stack([joints[:, :2] + off, np.ones(17)])
                # Equal scores too, but not on one picture: of those the order would be chance.
                score = float(rng.choice([0.1, 0.5, rng.random()])) + 1e-6 * (len(results) - before)
                result = {"image_id": image["id"], "category_id": 1, "score": score}
                given = moved.ravel().tolist() if kind == "keypoints" else [*(box[:2] + off), *box[2:]]
                results.append(result | {kind: given})
    truth.dataset = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    truth.createIndex()
    return truth, results


def compare(truth: COCO, results: list[dict], ids: list[int], kind: str) -> Evaluation:
    return coco_ap.coco_eval(truth, copy.deepcopy(results), ids, kind)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["keypoints", "bbox"]))
@settings(max_examples=25)
def test_counting_every_picture_once_gives_pycocotools_figures(seed: int, kind: str) -> None:
    truth, results = made_up(12, seed, kind)
    found = compare(truth, results, sorted(truth.imgs), kind)
    if found.made_by is None:
        return
    at = {"keypoints": (0, 3, 4), "bbox": (0, 4, 5)}[kind]
    for size, place in zip(("all", "medium", "large"), at, strict=True):
        precisions = MatchedDetections.of(found.made_by, size).precisions()
        expected = found.stats[place]
        assert precisions.mean() == pytest.approx(expected, abs=1e-9) or (np.isnan(precisions).all() and expected == -1)
    precisions = MatchedDetections.of(found.made_by).precisions()
    assert found.stats[[1, 2]] == pytest.approx(np.nan_to_num(precisions[[0, 5]], nan=-1), abs=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_a_draw_equals_pycocotools_on_the_drawn_pictures(seed: int) -> None:
    """Pictures that were drawn twice are copied with a new id."""
    truth, results = made_up(8, seed, "bbox")
    ids = sorted(truth.imgs)
    found = compare(truth, results, ids, "bbox")
    if found.made_by is None:
        return
    counts = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8))
    drawn, answers = COCO(), []
    images: list[dict] = []
    people: list[dict] = []
    for picture, count in zip(ids, counts, strict=True):
        for copy_ in range(count):
            number = 1000 * picture + copy_
            images.append({**truth.imgs[picture], "id": number})
            for person in truth.imgToAnns[picture]:
                people.append({**person, "id": len(people) + 1, "image_id": number})
            answers += [{**it, "image_id": number} for it in results if it["image_id"] == picture]
    drawn.dataset = {"images": images, "annotations": people, "categories": truth.dataset["categories"]}
    drawn.createIndex()
    expected = compare(drawn, answers, sorted(drawn.imgs), "bbox").stats[0]
    assert (
        MatchedDetections.of(found.made_by).precisions(counts).mean() == pytest.approx(expected, abs=1e-9)
        or expected <= 0
    )


def test_the_interval_contains_the_figure_and_shrinks_with_more_pictures() -> None:
    widths = []
    for count in (20, 320):
        truth, results = made_up(count, 3, "keypoints")
        found = compare(truth, results, sorted(truth.imgs), "keypoints")
        began = time.process_time()
        ap, ap50, ap75 = found.intervals()
        assert time.process_time() - began < 30
        assert found.intervals() == (ap, ap50, ap75)
        for interval, figure in zip((ap, ap50, ap75), found.stats[:3], strict=True):
            assert interval is not None
            assert interval[0] < figure < interval[1]
        assert ap is not None
        widths.append(ap[1] - ap[0])
    assert 2 < widths[0] / widths[1] < 8  # as the square root of the count, four times


def test_without_people_there_is_no_interval() -> None:
    truth, results = made_up(12, 0, "keypoints")
    assert compare(truth, [], sorted(truth.imgs), "keypoints").intervals() == (None, None, None)
    assert bootstrap.interval(np.full(5, np.nan)) is None
    assert bootstrap.interval(np.array([np.nan, 0.5])) == (0.5, 0.5)
    crowds = {number: person | {"iscrowd": 1} for number, person in truth.anns.items()}
    truth.dataset["annotations"] = list(crowds.values())
    truth.createIndex()
    assert compare(truth, results, sorted(truth.imgs), "keypoints").intervals() == (None, None, None)
