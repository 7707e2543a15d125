"""The command line: train, resume, export, evaluate, bench, in a second process as a user would."""

import json
from pathlib import Path

import pytest

from service.pose import bundle
from tests.training.commands import run, toml
from tests.training.conftest import tiny_recipe
from training.data import coco


def test_from_recipe_to_table(painted: coco.Source, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml(tiny_recipe()))
    train = ("train", tmp_path / "tiny.toml", "--data", data_root, "--out", tmp_path / "run")
    run(*train, "--until", 2)
    run(*train)
    exported = run("export", tmp_path / "run" / "last.pt", "--out", tmp_path / "bundles" / "tiny")
    opened = bundle.read(tmp_path / "bundles" / "tiny")
    assert opened.manifest.files["model.onnx"] in exported.stdout
    assert opened.manifest.trained_by["steps"] == 3
    where = ("--annotations", painted.annotations, "--images", painted.images)
    assert "that it learned from (1.png, 2.png, 3.png, ...)" in run("evaluate", opened.path, *where, fails=True).stderr
    where = (*where, "--allow-seen")
    score = json.loads(run("evaluate", opened.path, *where).stdout)
    assert score["predictions"] == 12
    assert 0 <= score["ap"] <= 1
    assert bundle.read(opened.path) == opened
    run("evaluate", opened.path, *where, "--record", "people once painted")
    older = opened.manifest.model_copy(update={"metrics": {"ap_whole_picture": 0.5}})
    once = bundle.read(opened.path)
    bundle.write(opened.path, older, once.onnx, once.card)
    run("evaluate", opened.path, *where, "--record", "people once painted")
    assert bundle.read(opened.path).manifest.metrics["ap_whole_picture"] == 0.5
    run("evaluate", opened.path, *where, "--record", "painted people")
    recorded = bundle.read(opened.path)
    assert "ap_whole_picture" not in recorded.manifest.metrics  # it was of other pictures
    assert recorded.manifest.metrics["ap_ground_truth_boxes_seen"] == pytest.approx(score["ap"], abs=5e-5)
    assert "on painted people, of which 6 were learned from.\n\n| figure | value |" in recorded.card
    assert f"| ap75_ground_truth_boxes_seen | {score['ap75']:.3f} |" in recorded.card
    assert opened.card.partition("None measured.\n")[::2] == (
        recorded.card.partition("COCO AP")[0], "\n## " + recorded.card.partition("| ap75_")[2].partition("\n## ")[2]
    )  # fmt: skip
    assert recorded.manifest.trained_by == opened.manifest.trained_by
    table = run("bench", opened.path, "--rounds", 3).stdout
    assert "| tiny |" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "none.toml", "--data", ".", "--out", "run"), "none.toml: expected a recipe"),
        (("export", "none.pt", "--out", "bundle"), "none.pt: expected a checkpoint"),
        (("evaluate", "none", "--annotations", "a.json", "--images", "."), "expected a folder with manifest.json"),
        (("crops", "--annotations", "a.json", "--images", ".", "--out", "crops"), "a.json: expected a COCO annotation"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    answer = run(*arguments, fails=True)
    assert message in answer.stderr
    assert answer.stderr.startswith("posewright-train: ")
    assert len(answer.stderr.strip().splitlines()) == 1
