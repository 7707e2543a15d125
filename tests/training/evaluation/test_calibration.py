"""Calibration corrects networks that are too sure or not sure enough."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import BundleError
from service.pose.detector import PersonDetector
from tests import spots
from tests.training.conftest import write_data_set
from training.__main__ import main
from training.data import coco
from training.evaluation import calibration
from training.evaluation.calibration import ScoreSamples
from training.export.model_card import SCORES


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> coco.Source:
    return write_data_set(tmp_path_factory.mktemp("many"), pictures=12)


def opened(path: Path) -> bundle.Bundle:
    return bundle.read(path)


def make_detector(path: Path) -> PersonDetector:
    known = bundle.read(path)
    return PersonDetector(known, OnnxRunner(known.onnx, threads=1))


@pytest.mark.parametrize(("shift_cells", "gain"), [(3, 4.0), (0, 0.15)], ids=["too sure", "too shy"])
def test_calibration_corrects_a_biased_network(
    many: coco.Source, tmp_path: Path, shift_cells: int, gain: float
) -> None:
    path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=shift_cells, gain=gain)
    measured = calibration.measure(opened(path), many)
    found = measured.calibration
    assert found.error_before > 0.1
    assert found.error < 0.3 * found.error_before
    assert (found.meaning, found.pictures, found.samples) == ("expected_oks", 12, 24 * 17)
    assert measured.after.error == pytest.approx(found.error, abs=1e-4)


def test_mirror_partners_share_a_curve(many: coco.Source, tmp_path: Path) -> None:
    path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=2)
    offsets = np.array(calibration.measure(opened(path), many).calibration.offsets)
    skeleton = bundle.read(path).manifest.known_skeleton
    assert skeleton is not None
    np.testing.assert_array_equal(offsets, offsets[list(skeleton.flip)])
    assert len(np.unique(offsets)) > 1  # joints of other sigmas are worth another similarity


@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 400),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)), truths=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
@settings(max_examples=40)
def test_curves_are_finite_and_rise_for_any_samples(
    seed: int, count: int, ends: tuple[float, float], truths: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    samples = ScoreSamples(
        rng.uniform(min(ends), max(ends), count).astype(np.float32),
        rng.uniform(min(truths), max(truths), count).astype(np.float32),
        rng.integers(0, 3, count),
        rng.integers(0, 5, count),
        np.array([0, 1, 1]),
    )
    curves = calibration.fit(samples)
    assert np.isfinite(curves).all()
    assert (curves[:, 1] >= calibration.MIN_SLOPE).all()
    np.testing.assert_array_equal(curves[1], curves[2])
    scores = calibration.held_out(samples)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_few_samples_change_the_curves_little() -> None:
    lone = ScoreSamples(
        np.full(1, 0.9, np.float32), np.zeros(1, np.float32), np.zeros(1, int), np.zeros(1, int), np.array([0])
    )
    assert 0.4 < calibration.apply(calibration.fit(lone), lone)[0] < 0.9


def test_a_detectors_scores_become_probabilities_of_people(many: coco.Source, tmp_path: Path) -> None:
    """Half of the markers belong to no person, so half of the boxes are right."""
    data = json.loads(many.annotations.read_text())
    data["annotations"] = data["annotations"][::2]
    (tmp_path / "half.json").write_text(json.dumps(data))
    source = coco.Source("half", tmp_path / "half.json", many.images)
    path = spots.write_detector_bundle(tmp_path)
    with pytest.raises(coco.DatasetError, match="expected at least 50 boxes on 2 pictures to calibrate on, got 24 on"):
        calibration.measure(opened(path), source)
    images, people = data["images"], data["annotations"]
    data["images"] = [it | {"id": it["id"] + 100 * n} for n in range(3) for it in images]
    data["annotations"] = [
        it | {"id": it["id"] + 100 * n, "image_id": it["image_id"] + 100 * n} for n in range(3) for it in people
    ]
    (tmp_path / "half.json").write_text(json.dumps(data))
    found = calibration.measure(opened(path), source).calibration
    assert (found.meaning, found.samples) == ("probability_of_person", 72)
    assert found.calibrate(np.ones(1, np.float32))[0] == pytest.approx(0.5, abs=0.1)


class TestSubcommand:
    """Bundle in, bundle out."""

    def calibrate(self, path: Path, source: coco.Source, *more: str) -> int:
        told = ["--annotations", str(source.annotations), "--images", str(source.images)]
        return main(["calibrate", str(path), *told, *more])

    def test_the_card_says_what_scores_mean_once(
        self, many: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=2)
        before = bundle.read(path)
        card = f"# student-s\n\n{SCORES}\n\nNot calibrated.\n\n## Limits\n\n- Some.\n"
        bundle.write(path, before.manifest, before.onnx, card)
        assert self.calibrate(path, many, "--out", str(path), "--measured-on", "painted people") == 0
        assert "408 labelled keypoints on 12 pictures; expected calibration error" in capsys.readouterr().out
        once = bundle.read(path)
        assert self.calibrate(path, many, "--out", str(path), "--measured-on", "painted people") == 0
        again = bundle.read(path)
        assert (again.onnx, again.card, again.manifest) == (once.onnx, once.card, once.manifest)
        assert once.onnx == before.onnx
        assert once.card.count(SCORES) == 1
        assert "Not calibrated" not in once.card
        assert "painted people: 408 samples on 12 pictures" in once.card
        assert once.card.index("| score | similarity | count |") < once.card.index("## Limits\n\n- Some.\n")

    def test_a_card_without_the_section_gets_it(self, many: coco.Source, tmp_path: Path) -> None:
        path = spots.write_pose_bundle(tmp_path, "student-s", "student")
        assert self.calibrate(path, many, "--out", str(tmp_path / "told")) == 0
        assert bundle.read(tmp_path / "told").card.startswith(f"# student-s\n\n{SCORES}\n")
        assert bundle.read(path).manifest.calibration is None

    def test_only_some_pictures(self, many: coco.Source, tmp_path: Path) -> None:
        path = spots.write_pose_bundle(tmp_path, "student-s", "student")
        assert self.calibrate(path, many, "--every", "3", "--out", str(tmp_path / "told")) == 0
        found = bundle.read(tmp_path / "told").manifest.calibration
        assert found is not None
        assert found.pictures == 4

    def test_a_detectors_word_is_weighed_against_the_pose(
        self, many: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path, detector = (
            spots.write_pose_bundle(tmp_path, "student-s", "student"),
            spots.write_detector_bundle(tmp_path),
        )
        options = ("--detector", str(detector), "--out", str(tmp_path / "told"))
        assert self.calibrate(path, many, *options) == 1
        assert "expected a calibrated detector" in capsys.readouterr().err
        known = bundle.read(detector)
        found = calibration.Calibration(
            meaning="probability_of_person", offsets=(0.0,), slopes=(1.0,), measured_on="", pictures=1, samples=1,
            error_before=0, error=0,
        )  # fmt: skip
        bundle.write(detector, known.manifest.model_copy(update={"calibration": found}), known.onnx, known.card)
        assert self.calibrate(path, many, *options) == 0
        told = bundle.read(tmp_path / "told").manifest.calibration
        assert told is not None
        assert told.presence is not None
        assert make_detector(detector).manifest.calibration == found

    def test_a_missing_bundle_is_refused(self) -> None:
        with pytest.raises(BundleError):
            bundle.read(Path("nowhere"))
