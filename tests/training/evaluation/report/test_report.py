"""The report: a self-contained page, and the same figures as JSON."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from service.pose.bundle import BundleError
from tests import spots
from tests.training.conftest import tiny_recipe
from training.data import coco
from training.data.coco import DatasetError
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint
from training.evaluation.report import html_page, prediction_sheet, report
from training.evaluation.report.report import ReportError
from training.networks import registry


class Page(HTMLParser):
    """Collects the texts of a page and the addresses that it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[np.ndarray] = []
        self.headings: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object"}
        attributes = dict(attrs)
        assert "href" not in attributes
        if tag == "img":
            kind, _, data = (attributes["src"] or "").partition(";base64,")
            assert kind in {"data:image/png", "data:image/jpeg"}
            assert attributes["alt"]
            pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            self.images.append(pixels)
        if tag not in {"img", "meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder after a training."""
    plan = tiny_recipe(init_from="elsewhere/last.pt")  # an ancestor on another machine
    torch.manual_seed(0)
    weights = registry.build(plan, pretrained=False).state_dict()
    checkpoint.save(tmp_path / "run" / "last.pt", Checkpoint(3, weights, weights, {}, plan, "test"))
    (tmp_path / "run" / "log.csv").write_text("step,loss,dense,lr\n1,5,2,.001\n2,4,1.5,.0005\n3,3.5,,.0001\n")
    return tmp_path / "run"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=1)


def test_the_report_of_a_run_is_written_to_its_folder(run: Path, painted: coco.Source) -> None:
    written = report.write(run, source=painted)
    assert written == run / "report.html"
    assert sorted(path.name for path in run.iterdir()) == [
        "last.pt", "log.csv", "report.html", "report.json", "tensorboard"
    ]  # fmt: skip
    shown = Page(written)
    assert shown.headings == [
        "tiny", "Average precision", "Curves", "Mistakes", "What each mistake costs", "Left and right confused",
        "By keypoint", "Scores and people", "People", "Best by OKS", "Median by OKS", "Worst by OKS", "Facts",
    ]  # fmt: skip
    assert len(shown.images) == 4 + 3 * 4
    assert "3 of 3" in shown.text
    numbers = json.loads((run / "report.json").read_text())
    assert numbers["people"] == 12
    assert numbers["log"]["samples"] == [2, 4, 6]
    assert numbers["log"]["dense"] == [2, 1.5, None]
    for counted in numbers["mistakes"].values():
        assert sum(counted.values()) == 2 * counted["labelled"]
    assert numbers["mistakes"]["all keypoints"]["labelled"] == 12 * 17


def test_without_pictures_a_report_has_curves_only(run: Path, tmp_path: Path) -> None:
    written = report.write(run, tmp_path / "out")
    shown = Page(written)
    assert shown.headings == ["tiny", "Curves", "Facts"]
    assert len(shown.images) == 1
    assert shown.images[0].shape[1] > 1000


@pytest.mark.parametrize("log", [None, "step,loss\n"], ids=["no log", "no rows"])
def test_a_run_without_a_log_has_a_report(run: Path, log: str | None) -> None:
    (run / "log.csv").unlink()
    if log is not None:
        (run / "log.csv").write_text(log)
    assert not Page(report.write(run)).images
    assert not (run / "tensorboard").exists()


def test_the_report_of_a_bundle_is_written_to_another_folder(
    student: Path, painted: coco.Source, tmp_path: Path
) -> None:
    shown = Page(report.write(student, tmp_path / "out", painted, every=2))
    assert "bundle 1" in shown.text
    assert "Curves" not in shown.headings
    assert "OKS 0." in shown.text
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["pictures"] == 3
    assert 0 < numbers["figures"]["AP"] <= 1
    low, high = numbers["intervals"]["AP"]
    assert low <= numbers["figures"]["AP"] <= high
    assert f"AP {numbers['figures']['AP']:.3f} ({low:.3f} to {high:.3f}) over" in shown.text
    assert sorted(path.name for path in student.iterdir()) == ["MODEL_CARD.md", "manifest.json", "model.onnx"]


def test_the_report_of_a_detector_is_on_its_boxes(painted: coco.Source, tmp_path: Path) -> None:
    detector = spots.write_detector_bundle(tmp_path)
    shown = Page(report.write(detector, tmp_path / "out", painted))
    assert shown.headings == ["detector", "Average precision of the boxes", "Facts"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["figures"]["AP50"] > 0.9


def test_a_bundle_without_out_or_pictures_is_refused(student: Path, painted: coco.Source, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="--out"):
        report.write(student, None, painted)
    with pytest.raises(ReportError, match="--annotations"):
        report.write(student, tmp_path / "out")


def test_a_folder_that_is_neither_run_nor_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a folder with last.pt \(a run\) or manifest.json \(a bundle\)"):
        report.write(tmp_path)


def test_a_report_is_written_completely_or_not_at_all(run: Path, painted: coco.Source, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected a picture"):
        report.write(run, source=coco.Source("painted", painted.annotations, tmp_path))
    assert sorted(path.name for path in run.iterdir()) == ["last.pt", "log.csv"]


def test_a_tile_shows_prediction_and_label(student: Path, painted: coco.Source, tmp_path: Path) -> None:
    report.write(student, tmp_path, painted)
    tile = Page(tmp_path / "report.html").images[-1]
    assert tile.shape == (prediction_sheet.TILE_SIZE[1], prediction_sheet.TILE_SIZE[0], 3)
    assert (tile.min(axis=2) > 245).any(), "no white line of the truth"


@pytest.mark.parametrize(("people", "each"), [(100, 12), (12, 4), (3, 1), (1, 1)])
def test_nobody_is_chosen_twice(people: int, each: int) -> None:
    oks = np.random.default_rng(people).random(people).astype(np.float32)
    chosen = prediction_sheet.choose(oks, np.full(people, 17))
    assert [len(indices) for indices in chosen.values()] == [each] * 3
    if people >= 3:
        assert len(set(np.concatenate(list(chosen.values())).tolist())) == 3 * each
    assert oks[chosen["best"][0]] == oks.max()
    assert oks[chosen["worst"][0]] == oks.min()
    assert oks[chosen["best"]].min() >= oks[chosen["median"]].min() >= oks[chosen["worst"]].max() or people == 1


def test_people_with_few_labels_are_chosen_only_where_there_are_no_others() -> None:
    oks = np.linspace(0, 1, 10, dtype=np.float32)
    labelled = np.where(np.arange(10) % 2, 1, 17)
    assert all(labelled[indices].min() == 17 for indices in prediction_sheet.choose(oks, labelled).values())
    assert len(prediction_sheet.choose(oks, np.ones(10, int))["best"]) == 3


def test_names_are_escaped() -> None:
    written = html_page.document("<b>", [html_page.paragraph("a < b & c"), html_page.table(["<i>"], [["<u>"]])])
    assert "<b>" not in written
    assert "a &lt; b &amp; c" in written
    assert "<th>&lt;i&gt;</th>" in written
    assert "<td>&lt;u&gt;</td>" in written
