"""posewright-train import: models of many conventions have the right outputs, and mistakes are reported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage import data

from service.pose import bundle, crop
from service.pose.backends.runner import OnnxRunner, open_session
from service.pose.decoders import heatmap
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17
from tests import spots
from tests.training.networks.test_onnx_graph import PEERS
from training.__main__ import main
from training.data import coco, known_skeletons
from training.evaluation import coco_ap
from training.onnx import probe, wrap
from training.onnx.wrap import NORMALISATIONS, Conventions
from training.recipe import skeletons

WIDTH, HEIGHT = spots.POSE_SIZE


def third_party(
    normalise: str = "imagenet",
    colour: str = "rgb",
    batch: int | str = "n",
    channels_first: bool = True,
    one_only: bool = False,
    order: tuple[int, ...] = (),
    simcc: bool = False,
    shift_cells: int = 0,
) -> onnx.ModelProto:
    """The network that detects spots, with other conventions for its input and output.

    Args:
        normalise: Key of `NORMALISATIONS`: the normalisation of its input.
        colour: Order of its channels.
        batch: Batch size of its input, or the name of a dynamic one.
        channels_first: Whether its input is NCHW.
        one_only: A Reshape inside takes only one picture.
        order: Order of its keypoints.
        simcc: Whether it gives distributions along the axes.
        shift_cells: Offset of every keypoint to the right, in cells.
    """
    mean, deviation = (np.array(it, np.float32) for it in NORMALISATIONS[normalise])
    model = onnx.load_from_string(spots.pose_network(shift_cells=shift_cells, gain=1.5))
    nodes: list[Any] = []
    constants = list(model.graph.initializer)

    def add(kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [out or f"hidden{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def keep(values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, f"kept{len(constants)}"))
        return f"kept{len(constants) - 1}"

    last = add("Transpose", "image", perm=[0, 2, 3, 1]) if channels_first else "image"
    if one_only:
        last = add("Reshape", last, keep(np.array([1, HEIGHT, WIDTH, 3])))
    if colour == "bgr":
        last = add("Gather", last, keep(np.array([2, 1, 0])), axis=3)
    last = add("Add", add("Mul", last, keep(deviation)), keep(mean + 0.5))
    add("Cast", add("Clip", last, keep(np.float32(0)), keep(np.float32(255))), out="pixels", to=TensorProto.UINT8)
    nodes += list(model.graph.node)
    last = add("Gather", "heatmaps", keep(np.array(order)), axis=1) if order else "heatmaps"
    outputs = [last]
    if simcc:  # y before x, as some exporters have it
        outputs = [add("ReduceMax", last, axes=[axis], keepdims=0) for axis in (3, 2)]
    sides = [batch, 3, HEIGHT, WIDTH] if channels_first else [batch, HEIGHT, WIDTH, 3]
    graph = helper.make_graph(
        nodes,
        "hidden",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info(it, TensorProto.FLOAT, ["n", *"khw"[: 2 if simcc else 3]]) for it in outputs],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


FLIPPED = tuple(COCO17.keypoints[k] for k in COCO17.flip)
KINDS: dict[str, tuple[dict[str, Any], Conventions]] = {
    "RTMPose": ({}, Conventions()),
    "bgr": ({"colour": "bgr"}, Conventions(colour="bgr")),
    "0 to 1": ({"normalise": "unit"}, Conventions("rgb", *NORMALISATIONS["unit"])),
    "-1 to 1, bgr": ({"normalise": "signed", "colour": "bgr"}, Conventions("bgr", *NORMALISATIONS["signed"])),
    "bytes": ({"normalise": "bytes"}, Conventions("rgb", *NORMALISATIONS["bytes"])),
    "channels last": ({"channels_first": False}, Conventions()),
    "batch size 1": ({"batch": 1}, Conventions()),
    "batch size 1, which the graph needs": ({"batch": 1, "one_only": True}, Conventions()),
    "dynamic batch size that does not work": ({"one_only": True}, Conventions()),
    "another order": ({"order": COCO17.flip}, Conventions(joints=FLIPPED)),
    "a cell too far right": ({"shift_cells": 1}, Conventions(shift=(-spots.STRIDE, 0))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_graph_has_the_outputs_of_the_original_network(kind: str) -> None:
    described, conventions = KINDS[kind]
    model = third_party(**described)
    shape = probe.inspect(model, "heatmap", None)
    assert shape.input_size == spots.POSE_SIZE
    runner = OnnxRunner(wrap.wrap(model, shape, conventions, "heatmap"), threads=1, batch_size=3)
    people = [spots.paint(spots.Person((96, 128)), size=spots.POSE_SIZE), spots.paint(size=spots.POSE_SIZE)]
    pixels = np.stack([*people, people[0]])
    (maps,) = runner.run(pixels)
    (expected,) = OnnxRunner(spots.pose_network(gain=1.5), threads=1).run(pixels)
    assert maps.shape == expected.shape
    # Inverting a normalisation may round a pixel to its neighbour; a shifted map loses its outermost column.
    assert np.abs(maps - expected)[..., 2:-2].max() < 0.02
    assert runner.run(pixels[:1])[0].shape == (1, *expected.shape[1:])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (-1.5, -1.5), (2.6, -5.2), (4.0, 8.0)])
@pytest.mark.parametrize("decoder", ["heatmap", "simcc"])
def test_a_shift_moves_keypoints_by_its_pixels(shift: tuple[float, float], decoder: str, tmp_path: Path) -> None:
    model = third_party(simcc=decoder == "simcc")
    shape = probe.inspect(model, decoder, None)
    found = []
    for conventions in (Conventions(), Conventions(shift=shift)):
        runner = OnnxRunner(wrap.wrap(model, shape, conventions, decoder), threads=1)
        place = spots.write_pose_bundle(tmp_path, "student-s", "student")
        opened = bundle.read(place)
        manifest = opened.manifest.model_copy(update={"decoder": decoder})
        estimator = PoseEstimator(bundle.Bundle(place, manifest, opened.onnx, ""), runner)
        image = spots.paint(spots.SURE)
        (x, y), (half_w, half_h) = spots.SURE.center, spots.HALF_BOX
        box = np.array([[x - half_w, y - half_h, x + half_w, y + half_h]], np.float32)
        found.append(estimator.estimate(image, box).keypoints)
        scale = 1.25 * max(2 * half_w / WIDTH, 2 * half_h / HEIGHT)
    moved = (found[1] - found[0]) / scale
    tolerance = 0.3 if decoder == "heatmap" else 0.5  # the interpolation is linear, and peaks are narrow
    assert np.abs(moved - np.array(shift)).max() < tolerance
    assert np.abs(moved.mean(axis=(0, 1)) - np.array(shift)).max() < 0.2


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "theirs.onnx"
    onnx.save(model, str(path))
    return path


def take(model: onnx.ModelProto, folder: Path, *more: object, decoder: str = "heatmap") -> int:
    options = ["--decoder", decoder, "--role", "teacher", "--out", folder / "theirs", *more]
    return main(["import", *map(str, [save(model, folder), *options])])


def on(painted: coco.Source) -> tuple[object, ...]:
    return "--annotations", painted.annotations, "--images", painted.images, "--pictures", 3


@pytest.mark.parametrize("decoder", ["heatmap", pytest.param("simcc", marks=pytest.mark.slow)])
def test_an_imported_model_can_be_served(
    decoder: str, painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ("--licence", "Apache-2.0", "--origin", "a test")
    assert take(third_party(simcc=decoder == "simcc"), tmp_path, *on(painted), *said, decoder=decoder) == 0
    assert "AP 1.000 on 3 pictures" in capsys.readouterr().out
    opened = bundle.read(tmp_path / "theirs")
    assert opened.manifest.role == "teacher"
    assert opened.manifest.gflops > 0
    assert "Licence: Apache-2.0" in opened.card
    score = coco_ap.score_poses(painted, PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1)))
    assert score.ap > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("described", "given", "named"),
    [
        ({"colour": "bgr"}, (), ["--colour bgr"]),
        ({"normalise": "unit", "colour": "bgr"}, (), ["--colour bgr --normalise unit"]),
        ({}, ("--normalise", "bytes"), ["--normalise imagenet"]),
        ({"shift_cells": 1}, (), ["+1.00, +0.00 cells", "--shift -4 0"]),
        ({"order": COCO17.flip}, (), ["left and right exchanged", f"--joints {','.join(FLIPPED)}"]),
    ],
    ids=["bgr", "0 to 1 and bgr", "given as bytes", "a cell too far right", "left is right"],
)
def test_the_error_names_a_mistake_and_the_options_that_correct_it(
    described: dict[str, Any],
    given: tuple[str, ...],
    named: list[str],
    painted: coco.Source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert take(third_party(**described), tmp_path, *given, *on(painted)) == 1
    said = capsys.readouterr().err
    assert "the bundle was not written" in said
    for words in named:
        assert words in said
    assert not (tmp_path / "theirs").exists()
    advice = " ".join(re.findall(r"pass (--(?!anyway)[^;]+)", said)).split()
    assert take(third_party(**described), tmp_path, *given, *advice, *on(painted)) == 0
    assert "AP 1.000" in capsys.readouterr().out


def test_without_pictures_the_import_says_that_nothing_was_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(third_party(colour="bgr"), tmp_path) == 0
    assert "Nothing was checked" in capsys.readouterr().out
    assert "not stated" in bundle.read(tmp_path / "theirs").card


def test_models_that_cannot_be_served_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: object, model: onnx.ModelProto | None = None, decoder: str = "heatmap") -> str:
        assert take(model or third_party(), tmp_path, *more, decoder=decoder) == 1
        return capsys.readouterr().err

    assert "decoder simcc: expected two outputs" in refused(decoder="simcc")
    assert "decoder heatmap: expected one output" in refused(model=third_party(simcc=True))
    assert "expected a name for each of the graph's 17 keypoints, got 2" in refused("--joints", "nose,tail")
    assert "as the graph says" in refused("--input-size", 64, 64)
    assert "export it with a free batch" in refused(model=third_party(batch=2))
    assert "the graph has" in refused("--outputs", "poses")
    assert main(["import", str(tmp_path / "none.onnx"), "--decoder", "heatmap", "--role", "teacher", "--out", "x"]) == 1
    assert "found nothing" in capsys.readouterr().err
    (tmp_path / "text.onnx").write_text("no graph")
    assert main(["import", str(tmp_path / "text.onnx"), "--decoder", "heatmap", "--role", "teacher", "--out", "x"]) == 1
    assert "expected an ONNX graph" in capsys.readouterr().err


TINYPOSE = PEERS / "pp_tinypose_256x192_heatmap.onnx"


@pytest.mark.skipif(
    not TINYPOSE.is_file(), reason=f"{TINYPOSE} not found; set POSEWRIGHT_PEERS to the folder of third-party models"
)
def test_the_imported_tinypose_equals_the_original(tmp_path: Path) -> None:
    """The bundle, and the graph run by hand, find the keypoints of a real person at the same places."""
    given = ["--decoder", "heatmap", "--role", "teacher", "--out", tmp_path / "tinypose", "--shift", -1.5, -1.5]
    assert main(["import", *map(str, [TINYPOSE, *given])]) == 0
    opened = bundle.read(tmp_path / "tinypose")
    image, box = data.astronaut(), np.array([[20, 10, 420, 512]], np.float32)
    served = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1)).estimate(image, box)
    crops = crop.cut(image, box, (WIDTH, HEIGHT), padding=1.25)
    mean, deviation = (np.array(it, np.float32) for it in NORMALISATIONS["imagenet"])
    normal = ((crops.pixels - mean) / deviation).transpose(0, 3, 1, 2)
    (maps,) = open_session(TINYPOSE, threads=1).run(None, {"image": np.ascontiguousarray(normal)})
    found, scores = heatmap.decode(maps, stride=4)
    keypoints = crop.transform(found - 1.5, crops.to_image)  # the centre of its cell i is at pixel 4 i
    sure = scores[0] > 0.5
    assert sure.sum() >= 5
    scale = 1.25 * max(400 / WIDTH, 502 / HEIGHT)
    assert np.linalg.norm(served.keypoints - keypoints, axis=2)[0][sure].max() < 0.75 * scale
    assert np.abs(served.scores - scores)[0][sure].max() < 0.15  # a shift lowers peaks a little


@pytest.mark.parametrize(
    ("folder", "name"), [("RTMPose-m", "rtmpose-m"), ("my pose (2)", "my-pose-2"), ("_x.V1", "x.v1"), ("é-3", "3")]
)
def test_the_name_of_a_bundle_is_made_of_the_name_of_its_folder(
    tmp_path: Path, folder: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(third_party(), tmp_path, "--out", tmp_path / "b" / folder) == 0
    assert f"{tmp_path / 'b' / folder}: {name}, 17 keypoints" in capsys.readouterr().out
    assert bundle.read(tmp_path / "b" / folder).manifest.name == name


def test_a_folder_whose_name_gives_no_bundle_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(third_party(), tmp_path, "--out", tmp_path / "姿勢") == 1
    assert capsys.readouterr().err.count("\n") == 1


def more_keypoints(count: int) -> onnx.ModelProto:
    """The network that detects spots, whose keypoints beyond COCO's are at the right ankle."""
    return third_party(order=(*range(17), *[16] * (count - 17)))


@pytest.mark.parametrize(
    "name", ["halpe26", *(pytest.param(it, marks=pytest.mark.slow) for it in ("coco-wholebody133", "own.toml"))]
)
def test_all_keypoints_of_a_larger_skeleton_are_served(
    name: str, painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COCO's labels check the first seventeen keypoints."""
    skeleton = known_skeletons.KNOWN.get(name, known_skeletons.KNOWN["halpe26"])
    given = name
    if name == "own.toml":
        given = str(tmp_path / name)
        toml = skeletons.to_toml(skeleton).replace('name = "halpe26"', 'name = "mine"')
        Path(given).write_text(toml)
        skeleton = skeletons.load(Path(given))
    assert take(more_keypoints(len(skeleton)), tmp_path, "--skeleton", given, *on(painted)) == 0
    assert "AP 1.000" in capsys.readouterr().out
    opened = bundle.read(tmp_path / "theirs")
    assert opened.manifest.known_skeleton == skeleton
    image = spots.paint(spots.SURE)
    (x, y), (half_w, half_h) = spots.SURE.center, spots.HALF_BOX
    box = np.array([[x - half_w, y - half_h, x + half_w, y + half_h]], np.float32)
    (keypoints,) = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1)).estimate(image, box).keypoints
    assert keypoints.shape == (len(skeleton), 2)
    assert np.abs(keypoints[:17] - spots.SURE.keypoints).max() < 2
    assert np.abs(keypoints[17:] - spots.SURE.keypoints[16]).max() < 2


def test_a_skeleton_with_another_number_of_keypoints_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(third_party(), tmp_path, "--skeleton", "halpe26") == 1
    assert "expected a name for each of the graph's 17 keypoints, got 26" in capsys.readouterr().err
    assert take(more_keypoints(26), tmp_path) == 1
    assert "pass --skeleton where it predicts one (halpe26" in capsys.readouterr().err
    assert take(third_party(), tmp_path, "--skeleton", "halpe27") == 1
    assert "expected a skeleton's TOML" in capsys.readouterr().err
