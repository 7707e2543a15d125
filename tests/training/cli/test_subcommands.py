"""The command line: train, resume, export, evaluate, bench, as a user would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.pose import bundle
from tests.training.commands import run, toml
from tests.training.conftest import tiny_recipe
from training.__main__ import MODULES, SUBCOMMANDS, main
from training.cli import keys
from training.data import coco

ROOT = Path(__file__).parents[3]


def test_from_recipe_to_table(painted: coco.Source, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml(tiny_recipe()))
    train = ("train", tmp_path / "tiny.toml", "--data", data_root, "--out", tmp_path / "run")
    run(*train, "--until", 2)
    assert run(*train).stdout.strip() == str(tmp_path / "run" / "last.pt")
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


def test_a_process_ends_with_the_status_and_the_message_of_its_mistake(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "train", "none.toml", "--data", ".", "--out", str(tmp_path / "run")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == "posewright-train: none.toml: expected a recipe, got No such file or directory\n"


def test_the_list_of_subcommands_loads_none_of_them() -> None:
    script = (
        "import sys, contextlib, training.__main__\n"
        "with contextlib.suppress(SystemExit): training.__main__.main(['--help'])\n"
        "print('loaded:', sorted(set(sys.modules) & {'torch', 'numpy', 'cv2', 'training.cli'}))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("loaded: []\n")
    for name in SUBCOMMANDS:
        assert f"\n    {name} " in answer.stdout or f"\n    {name}\n" in answer.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: posewright-train {name} [-h] ")
    assert SUBCOMMANDS[name][1:20] in page


def test_every_module_of_a_subcommand_is_in_the_list() -> None:
    modules = {path.stem for path in (ROOT / "training" / "cli").glob("*.py") if "\ndef run(" in path.read_text()}
    assert modules == {MODULES.get(name, name) for name in SUBCOMMANDS}


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "run", lambda options: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["keys"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("render", "--out", "x", "--size", "640"), "--size: expected WIDTHxHEIGHT such as 640x480, got '640'"),
        (("render", "--out", "x", "--people", "1-"), "--people: expected A-B such as 1-4, or one number, got '1-'"),
        (("export", "x", "--out", "x", "--blend", "0"), "--blend: expected a share above 0 and at most 1, got 0.0"),
        (("export", "x", "--out", "x", "--padding", "2"), "--padding: expected a factor from 1 to 1.5, got 2.0"),
        (("bench", "x", "--every", "0"), "--every: expected 1 or more, got 0"),
        (("nothing",), "invalid choice: 'nothing'"),
    ],
    ids=lambda value: value[-2] if isinstance(value, tuple) and len(value) > 1 else None,
)
def test_a_wrong_value_of_an_option_is_named(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    assert message in capsys.readouterr().err
