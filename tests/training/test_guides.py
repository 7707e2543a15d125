"""Imported guides are fed and read as they were trained: tiny stand-ins of the same interface, run for real."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose import boxes as boxes_
from tests import spots
from tests.training.conftest import tiny_recipe, write_data_set
from training import checkpoint, coco, crops, guides, labelling, networks, pictures
from training.guides import RtmDetGuide, TinyPoseGuide
from training.networks.pose import heatmaps


class PoseStandIn(nn.Module):
    """PP-TinyPose's interface: normalised RGB NCHW in, heatmaps whose cell x is pixel 4·x."""

    def __init__(self, gain: float = 3.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, normal: Tensor) -> Tensor:
        std, mean = torch.tensor(guides.IMAGENET_STD), torch.tensor(guides.IMAGENET_MEAN)
        rgb = (normal * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)) * 255
        palette = torch.tensor(spots.COLORS, dtype=torch.float32).view(1, -1, 3, 1, 1)
        seen = (1 - ((rgb[:, None] - palette) ** 2).sum(dim=2) / spots.TOLERANCE**2).clamp_min(0)
        steps = torch.arange(-6, 7, dtype=torch.float32)
        along = torch.exp(-(steps**2) / (2 * 3.0**2))
        kernel = (along[:, None] * along[None] / along.sum() ** 2 * self.gain).expand(len(spots.COLORS), 1, 13, 13)
        return F.conv2d(seen, kernel, stride=4, padding=6, groups=len(spots.COLORS)).clamp(0, 1)


class BoxStandIn(nn.Module):
    """RTMDet's interface: normalised BGR NCHW in, logits and distances at strides 8, 16, 32; people at stride 8."""

    def forward(self, normal: Tensor) -> tuple[Tensor, ...]:
        std, mean = torch.tensor(RtmDetGuide.STD_BGR), torch.tensor(RtmDetGuide.MEAN_BGR)
        bgr = normal * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)
        marker = torch.tensor(spots.MARKER[::-1], dtype=torch.float32).view(1, 3, 1, 1)
        likeness = (1 - ((bgr - marker) ** 2).sum(dim=1, keepdim=True) / spots.TOLERANCE**2).clamp_min(0)
        smooth = F.avg_pool2d(likeness, 9, 1, 4)[:, :, ::8, ::8]
        peaks = smooth * (smooth >= F.max_pool2d(smooth, 3, 1, 1)).float()
        sides = torch.tensor([*spots.HALF_BOX, *spots.HALF_BOX], dtype=torch.float32).view(1, 4, 1, 1)
        outputs = [20 * peaks - 10]
        distances = [sides + 0 * peaks]
        for stride in (16, 32):
            empty = normal[:, :1, ::stride, ::stride] * 0
            outputs.append(empty - 10)
            distances.append(empty + 1 + 0 * sides)
        return (*outputs, *distances)


def save(module: nn.Module, shape: tuple[int, ...], path: Path, free: bool) -> Path:
    axes = {"x": {0: "n"}} if free else None
    with warnings.catch_warnings(action="ignore"):  # the exporter calls itself deprecated, in several ways
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


@pytest.fixture(scope="module")
def pose_guide(tmp_path_factory: pytest.TempPathFactory) -> TinyPoseGuide:
    return TinyPoseGuide(
        save(PoseStandIn(), (1, 3, 256, 192), tmp_path_factory.mktemp("guide") / "pose.onnx", free=True)
    )


@pytest.fixture(scope="module")
def box_guide(tmp_path_factory: pytest.TempPathFactory) -> RtmDetGuide:
    return RtmDetGuide(save(BoxStandIn(), (1, 3, 640, 640), tmp_path_factory.mktemp("guide") / "box.onnx", free=False))


def test_pose_guide_lands_on_the_spots(pose_guide: TinyPoseGuide) -> None:
    people = [spots.Person((140, 180)), spots.Person((420, 200))]
    keypoints, scores = pose_guide.keypoints(spots.paint(*people), boxes_.from_xywh([p.box_xywh for p in people]))
    for person, found in zip(people, keypoints, strict=True):
        np.testing.assert_allclose(found, person.keypoints, atol=1.0)
    assert scores.min() > 0.5


def test_box_guide_finds_the_markers_through_its_letterbox(box_guide: RtmDetGuide) -> None:
    people = [spots.Person((140, 180)), spots.Person((420, 200))]
    boxes, scores = box_guide.boxes(spots.paint(*people), min_score=0.3)
    expected = boxes_.clip(boxes_.from_xywh([p.box_xywh for p in people]), spots.FINDER_SIZE)
    assert len(boxes) == 2
    assert (scores > 0.3).all()
    assert (boxes_.iou(expected, boxes).max(axis=1) > 0.85).all()


def test_weights_ramp_between_doubt_and_trust() -> None:
    np.testing.assert_allclose(
        crops.joint_weights(np.array([0.0, 0.4, 0.6, 0.8, 1.0], np.float32)), [0, 0, 0.5, 1, 1], atol=1e-6
    )


def test_labelling_completes_what_is_missing_and_keeps_what_is_there(
    tmp_path: Path, pose_guide: TinyPoseGuide, box_guide: RtmDetGuide
) -> None:
    source = write_data_set(tmp_path / "set", pictures=3)
    tree = json.loads(source.annotations.read_text())
    expected = {(a["image_id"], round(a["bbox"][0])): dict(a) for a in tree["annotations"]}
    for image in tree["images"]:
        image["official_complete"] = False
    # Nobody boxed the second person of each picture; nobody marked the first one's joints.
    tree["annotations"] = tree["annotations"][::2]
    for person in tree["annotations"]:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    source.annotations.write_text(json.dumps(tree))

    out = tmp_path / "labelled.json"
    labelling.label(source, out, pose_guide, box_guide)
    labelled = json.loads(out.read_text())["annotations"]
    assert len(labelled) == 6
    assert sum("box_score" in person for person in labelled) == 3
    for person in labelled:
        key = min(expected, key=lambda k: (k[0] != person["image_id"], abs(k[1] - person["bbox"][0])))
        truth = np.array(expected[key]["keypoints"]).reshape(17, 3)[:, :2]
        np.testing.assert_allclose(np.array(person["guide_keypoints"]).reshape(17, 3)[:, :2], truth, atol=1.5)

    crops.build(coco.Source("labelled", out, source.images), tmp_path / "crops")
    (cache,) = crops.open_cache([tmp_path / "crops"])
    assert len(cache) == 6
    for i in range(6):  # the cached targets lie on their colours
        x, y = np.round(cache.keypoints[i]).astype(int).T
        np.testing.assert_allclose(cache.pixels[i][y, x], spots.COLORS, atol=70)


def test_a_sure_guide_overrules_a_wrong_label(tmp_path: Path) -> None:
    source = write_data_set(tmp_path / "set", pictures=1)
    tree = json.loads(source.annotations.read_text())
    for person in tree["annotations"]:
        joints = np.array(person["keypoints"]).reshape(17, 3)
        person["guide_keypoints"] = np.concatenate([joints[:, :2], np.full((17, 1), 0.95)], axis=1).ravel().tolist()
        joints[9, :2] += 80  # a wrist at the wrong place
        person["keypoints"] = joints.ravel().tolist()
    source.annotations.write_text(json.dumps(tree))
    crops.build(source, tmp_path / "crops")
    (cache,) = crops.open_cache([tmp_path / "crops"])
    assert (cache.weights[:, 9] == 0).all()
    assert (np.delete(cache.weights, 9, axis=1) == 1).all()


@pytest.mark.parametrize("squared", [True, False], ids=["squared errors", "cross-entropy"])
def test_a_checkpoint_answers_heatmaps_in_the_form_in_which_it_learned(tmp_path: Path, squared: bool) -> None:
    """Outputs that squared errors held to 0..1 are heatmaps; logits become heatmaps by a softmax."""
    network = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128], "temperature": 10}
    losses = {"regression": 1.0, "classification": 0.0} if squared else {}
    plan = tiny_recipe(network=network, losses=losses)
    torch.manual_seed(0)
    learned = networks.build(plan, pretrained=False).eval()
    weights = learned.state_dict()
    checkpoint.save(tmp_path / "last.pt", checkpoint.Checkpoint(1, weights, weights, {}, plan, "test"))
    pixels = torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        outputs = learned(pixels)
    wanted = outputs.clamp_min(0) if squared else heatmaps(10 * outputs, plan.network.sigma_cells)
    torch.testing.assert_close(guides.NetworkGuide(tmp_path / "last.pt", torch.device("cpu")).maps(pixels), wanted)


def test_held_out_pictures_stay_out(painted: coco.Source, tmp_path: Path) -> None:
    crops.build(painted, tmp_path / "crops", skip=3)
    (cache,) = crops.open_cache([tmp_path / "crops"])
    assert len(cache) == 8  # of six pictures, numbers 3 and 6 are held out


@pytest.mark.parametrize("padding", [1.0, 1.25, 1.5])
@pytest.mark.parametrize("size", [(96, 96), (96, 128), (160, 224), (176, 240), (192, 256), (128, 96)])
def test_misfitting_canvases_are_told_and_how_they_would_fit(size: tuple[int, int], padding: float) -> None:
    shapes = {(width, height) for height in (96, 192, 288, 384) for width in (height * 3 // 4, height, height * 4 // 3)}
    for canvas in shapes:
        if told := crops.misfit(canvas, size, padding):
            words = told.split()
            width, height = (int(words[words.index(side) + 1]) for side in ("--width", "--height"))
            assert not crops.misfit((width, height), size, padding)
        else:
            assert canvas[1] / 1.5 * padding / 1.25 > 0.85 * size[1], "enlarged in silence"
            assert canvas[0] / canvas[1] == pytest.approx(size[0] / size[1], rel=0.11)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "got nothing there"), ("[", "expected COCO json"), ("[]", "expected COCO json")]
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
            pictures.read(tmp_path / name)
    with pytest.raises(coco.DatasetError, match="run posewright-train crops"):
        crops.open_cache([tmp_path])
