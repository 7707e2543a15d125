"""Imported networks label and teach with the crops that they were trained on: a tiny stand-in, imported and run."""

import json
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose import boxes as boxes_
from service.pose import bundle, crop
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle
from service.pose.estimator import PoseEstimator
from tests import spots
from tests.training.conftest import tiny_recipe, write_data_set
from training.__main__ import main
from training.data import coco, crop_cache, images
from training.distillation import teachers
from training.engine import checkpoint
from training.networks import registry
from training.networks.pose import heatmaps
from training.onnx import import_pose, probe
from training.onnx.import_pose import ThirdPartyModel
from training.onnx.wrap import NORMALISATIONS, Conventions
from training.recipe.errors import RecipeError


class PoseStandIn(nn.Module):
    """PP-TinyPose's interface: normalised RGB NCHW in, heatmaps whose cell x is pixel 4·x."""

    def __init__(self, gain: float = 3.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, normal: Tensor) -> Tensor:
        mean, std = (torch.tensor(it).view(1, 3, 1, 1) for it in NORMALISATIONS["imagenet"])
        rgb = normal * std + mean
        palette = torch.tensor(spots.COLORS, dtype=torch.float32).view(1, -1, 3, 1, 1)
        seen = (1 - ((rgb[:, None] - palette) ** 2).sum(dim=2) / spots.TOLERANCE**2).clamp_min(0)
        steps = torch.arange(-6, 7, dtype=torch.float32)
        along = torch.exp(-(steps**2) / (2 * 3.0**2))
        kernel = (along[:, None] * along[None] / along.sum() ** 2 * self.gain).expand(len(spots.COLORS), 1, 13, 13)
        return F.conv2d(seen, kernel, stride=4, padding=6, groups=len(spots.COLORS)).clamp(0, 1)


def save(module: nn.Module, shape: tuple[int, ...], path: Path, free: bool) -> Path:
    axes = {"x": {0: "n"}} if free else None
    with warnings.catch_warnings(action="ignore"):  # the exporter calls itself deprecated, in several ways
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def take(
    module: nn.Module,
    folder: Path,
    decoder: Literal["heatmap", "simcc"] = "heatmap",
    shift: float = -1.5,
    size: tuple[int, int] = (192, 256),
) -> Path:
    """Import a network that takes normalised crops of ``size`` (width, height); returns its bundle's folder."""
    file = save(module, (1, 3, size[1], size[0]), folder.with_suffix(".onnx"), free=True)
    model = import_pose.read(file)
    shape = probe.inspect(model, decoder, None)
    known = ThirdPartyModel(file, model, shape, decoder, folder.name, "1", "teacher", 1.25, "Apache-2.0", "a test")
    made = import_pose.make(known, Conventions(shift=(shift, shift)), {})
    return bundle.write(folder, made.manifest, made.onnx, made.card).path


def opened(path: Path) -> tuple[Bundle, OnnxRunner]:
    read = bundle.read(path)
    return read, OnnxRunner(read.onnx, threads=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    spots.write_detector_bundle(folder)
    take(PoseStandIn(gain=1.5), folder / "pose")
    return folder


def test_an_imported_network_labels_where_the_spots_are(models: Path) -> None:
    people = [spots.Person((140, 180)), spots.Person((420, 200))]
    poses = PoseEstimator(*opened(models / "pose")).estimate(
        spots.paint(*people), boxes_.from_xywh([p.box_xywh for p in people])
    )
    for person, found in zip(people, poses.keypoints, strict=True):
        np.testing.assert_allclose(found, person.keypoints, atol=1.0)
    assert poses.scores.min() > 0.5


def test_joint_weights_are_a_ramp_of_the_score() -> None:
    np.testing.assert_allclose(
        crop_cache.joint_weights(np.array([0.0, 0.4, 0.6, 0.8, 1.0], np.float32)), [0, 0, 0.5, 1, 1], atol=1e-6
    )


def test_labelling_completes_what_is_missing_and_keeps_what_is_there(tmp_path: Path, models: Path) -> None:
    source = write_data_set(tmp_path / "set", pictures=3)
    tree = json.loads(source.annotations.read_text())
    expected = {(a["image_id"], round(a["bbox"][0])): dict(a) for a in tree["annotations"]}
    for image in tree["images"]:
        image["official_complete"] = False
    # The second person of each picture has no box, the first one no joints.
    tree["annotations"] = tree["annotations"][::2]
    for person in tree["annotations"]:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    source.annotations.write_text(json.dumps(tree))

    out = tmp_path / "labelled.json"
    where = ("--annotations", str(source.annotations), "--images", str(source.images), "--out", str(out))
    guided = ("--pose-teacher", str(models / "pose"), "--box-teacher", str(models / "detector"))
    assert main(["label", *where, *guided]) == 0
    labelled = json.loads(out.read_text())["annotations"]
    assert len(labelled) == 6
    assert sum("box_score" in person for person in labelled) == 3
    for person in labelled:
        key = min(expected, key=lambda k: (k[0] != person["image_id"], abs(k[1] - person["bbox"][0])))
        truth = np.array(expected[key]["keypoints"]).reshape(17, 3)[:, :2]
        np.testing.assert_allclose(np.array(person["teacher_keypoints"]).reshape(17, 3)[:, :2], truth, atol=1.5)

    crop_cache.build(coco.Source("labelled", out, source.images), tmp_path / "crops")
    (cache,) = crop_cache.open_cache([tmp_path / "crops"])
    assert len(cache) == 6
    for i in range(6):  # the cached targets lie on their colours
        x, y = np.round(cache.keypoints[i]).astype(int).T
        np.testing.assert_allclose(cache.pixels[i][y, x], spots.COLORS, atol=70)


def test_a_file_is_refused_with_the_import_command(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = models / "pose.onnx", tmp_path / "labelled.json"
    where = ("--annotations", "a.json", "--images", "a", "--out", str(out))
    assert main(["label", *where, "--pose-teacher", str(file)]) == 1
    assert main(["bench", str(models / "pose"), "--rivals", str(file)]) == 1
    with pytest.raises(coco.DatasetError, match="posewright-train import"):
        teachers.BundleTeacher(file)
    with pytest.raises(RecipeError, match=r"losses.teachers.0.kind: .*posewright-train import"):
        tiny_recipe(losses={"dense": 1, "teachers": [{"name": "t", "kind": "tinypose", "path": "t.onnx"}]})
    assert capsys.readouterr().err.count(f"posewright-train import {file} --decoder heatmap") == 2


def test_a_sure_teacher_overrules_a_wrong_label(tmp_path: Path) -> None:
    source = write_data_set(tmp_path / "set", pictures=1)
    tree = json.loads(source.annotations.read_text())
    for person in tree["annotations"]:
        joints = np.array(person["keypoints"]).reshape(17, 3)
        person["teacher_keypoints"] = np.concatenate([joints[:, :2], np.full((17, 1), 0.95)], axis=1).ravel().tolist()
        joints[9, :2] += 80  # a wrist at the wrong place
        person["keypoints"] = joints.ravel().tolist()
    source.annotations.write_text(json.dumps(tree))
    crop_cache.build(source, tmp_path / "crops")
    (cache,) = crop_cache.open_cache([tmp_path / "crops"])
    assert (cache.weights[:, 9] == 0).all()
    assert (np.delete(cache.weights, 9, axis=1) == 1).all()


@pytest.mark.parametrize("squared", [True, False], ids=["squared errors", "cross-entropy"])
def test_a_checkpoint_gives_heatmaps_in_the_form_in_which_it_was_trained(tmp_path: Path, squared: bool) -> None:
    """Outputs trained by squared errors are heatmaps; logits become heatmaps by a softmax."""
    network = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128], "temperature": 10}
    losses = {"regression": 1.0, "classification": 0.0} if squared else {}
    plan = tiny_recipe(network=network, losses=losses)
    torch.manual_seed(0)
    learned = registry.build(plan, pretrained=False).eval()
    weights = learned.state_dict()
    checkpoint.save(tmp_path / "last.pt", checkpoint.Checkpoint(1, weights, weights, {}, plan, "test"))
    pixels = torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        outputs = learned(pixels)
    wanted = outputs.clamp_min(0) if squared else heatmaps(10 * outputs, plan.network.sigma_cells)
    torch.testing.assert_close(teachers.NetworkTeacher(tmp_path / "last.pt", torch.device("cpu")).maps(pixels), wanted)


def test_held_out_pictures_are_not_cut(painted: coco.Source, tmp_path: Path) -> None:
    crop_cache.build(painted, tmp_path / "crops", skip=3)
    (cache,) = crop_cache.open_cache([tmp_path / "crops"])
    assert len(cache) == 8  # of six pictures, numbers 3 and 6 are held out


@pytest.mark.parametrize("padding", [1.0, 1.25, 1.5])
@pytest.mark.parametrize("size", [(96, 96), (96, 128), (160, 224), (176, 240), (192, 256), (128, 96)])
def test_canvases_that_do_not_fit_are_reported_with_a_size_that_fits(size: tuple[int, int], padding: float) -> None:
    shapes = {(width, height) for height in (96, 192, 288, 384) for width in (height * 3 // 4, height, height * 4 // 3)}
    for canvas in shapes:
        if message := crop_cache.misfit(canvas, size, padding):
            words = message.split()
            width, height = (int(words[words.index(side) + 1]) for side in ("--width", "--height"))
            assert not crop_cache.misfit((width, height), size, padding)
            continue
        for box in ((40, 100), (75, 100), (100, 100), (200, 100)):
            person = np.array([[0, 0, *box]], np.float32)
            to_canvas = crop.invert(
                crop.crop_to_image(person, canvas, crop_cache.BOX_PADDING * crop_cache.CANVAS_ZOOM)
            )[0]
            corners = np.array([[0, 0], [size[0] - 1, size[1] - 1]], np.float32)
            seen = crop.transform(corners[None], crop.crop_to_image(person, size, padding))
            (left, top), (right, bottom) = crop.transform(seen, to_canvas[None])[0]
            assert min(left, top) > -1
            assert right < canvas[0]
            assert bottom < canvas[1]
            assert size[0] - 1 <= 1.06 * (right - left), "enlarged without a warning"


@pytest.mark.parametrize(
    ("text", "message"), [(None, "got nothing there"), ("[", "expected COCO JSON"), ("[]", "expected COCO JSON")]
)
def test_a_missing_or_broken_annotation_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "annotations.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(coco.DatasetError, match=message):
        coco.load(path)


def test_a_missing_or_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in ("broken.jpg", "missing.jpg"):
        with pytest.raises(coco.DatasetError, match=name):
            images.read(tmp_path / name)
    with pytest.raises(coco.DatasetError, match="run posewright-train crops"):
        crop_cache.open_cache([tmp_path])
