"""Cached heatmaps are those of serving, and move exactly as the augmented crops do."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.pose import crop
from service.pose.boxes import from_xywh
from service.pose.bundle import BundleError
from service.pose.decoders import heatmap
from service.pose.skeleton import COCO17
from tests.training.conftest import tiny_recipe
from tests.training.distillation.test_teachers import PoseStandIn, take
from training.data import augment, coco, crop_cache, images
from training.distillation import aligned_teachers, teacher_cache, teachers
from training.distillation.aligned_teachers import CachedTeacher, OnlineTeacher
from training.distillation.pose_task import PoseTask
from training.distillation.teachers import BundleTeacher, HeatmapTeacher, NetworkTeacher
from training.distillation.trust import BINS, PrecisionByScore
from training.engine import loop
from training.networks.pose import mirror_maps
from training.recipe import recipe
from training.recipe.losses import Losses, Teacher

CPU = torch.device("cpu")
SHAPES = ((192, 256), (160, 256), (128, 256), (256, 192))
"""(width, height) of teachers' inputs, px; canvases have the first one's aspect ratio."""


@pytest.fixture(scope="module")
def pose_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take(PoseStandIn(), tmp_path_factory.mktemp("teacher") / "pose")


def guided(file: Path, **changes: object) -> recipe.Recipe:
    """A recipe whose teacher is the stand-in."""
    losses = {"teachers": [{"name": "spots", "kind": "bundle", "path": str(file), **changes}], "dense": 1.0}
    return tiny_recipe(losses=losses, phases=[{"steps": 4, "batch": 6, "size": [96, 128]}])


@pytest.fixture(scope="module")
def teachers_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """Stand-ins by the (width, height) of their input."""
    folder = tmp_path_factory.mktemp("shapes")
    return {size: take(PoseStandIn(), folder / f"pose-{size[0]}", size=size) for size in SHAPES}


@pytest.mark.parametrize(
    ("size", "changes"),
    [((192, 256), {}), ((192, 256), {"cached": False}), ((160, 256), {}), ((256, 192), {})],
    ids=["cached", "online", "cached, narrow", "cached, wide"],
)
@pytest.mark.parametrize("step", range(4))
def test_teachers_maps_peak_where_the_joints_went(
    teachers_of_shapes: dict[tuple[int, int], Path],
    data_root: Path,
    size: tuple[int, int],
    changes: dict[str, object],
    step: int,
    tmp_path: Path,
) -> None:
    """Through zoom, turn, shift and mirror, against the labels' own Gaussians, to half a cell of 4 px."""
    plan = guided(teachers_of_shapes[size], **changes)
    task = PoseTask(plan, data_root, CPU, tmp_path / "run")
    targets = task.batch(step, 0, plan.phases[0]).targets
    (maps,), (trust,) = targets.teachers, targets.trust
    known = (targets.weights > 0) & (trust > 0.5) & (maps.amax(dim=(2, 3)) > 0.3)
    assert known.float().mean() > 0.3
    found, _ = heatmap.decode(maps.numpy(), stride=4)
    expected, _ = heatmap.decode(targets.maps.numpy(), stride=4)
    apart = np.linalg.norm(found - expected, axis=2)
    if changes:
        # The stand-in tells left from right by colour, so in a mirrored picture it confuses them.
        partner = np.linalg.norm(found - expected[:, list(COCO17.flip)], axis=2)
        apart = np.minimum(apart, partner)
    apart = apart[known.numpy()]
    assert np.median(apart) < 1
    # Spots that a neighbour or augmentation covers may be found elsewhere.
    assert np.mean(apart < 4) > 0.85


class Recording(BundleTeacher):
    """A teacher that keeps the crops that it was given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.crops: list[np.ndarray] = []

    def maps(self, pixels: torch.Tensor) -> torch.Tensor:
        self.crops += list(pixels.numpy())
        return super().maps(pixels)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_a_cached_teacher_sees_people_as_it_is_served(
    teachers_of_shapes: dict[tuple[int, int], Path],
    size: tuple[int, int],
    painted: coco.Source,
    data_root: Path,
    tmp_path: Path,
) -> None:
    """Whatever the shape of its input: cut about the person's box, with joints where the labels are."""
    teacher = Recording(teachers_of_shapes[size])
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    teacher_cache.write_cache(teacher, "spots", cache, tmp_path, flip=False, device=CPU)
    data = coco.load(painted.annotations)
    people = sorted(data.anns.values(), key=lambda it: (it["image_id"], it["id"]))
    assert len(teacher.crops) == len(people)
    for seen, person in zip(teacher.crops, people, strict=True):
        image = images.read_labelled(painted.images, data.imgs[person["image_id"]])
        served = crop.cut(image, from_xywh([person["bbox"]]), size, teacher.padding).pixels[0]
        inside = (seen != crop.BORDER_RGB[0]).any(axis=2) & (served != crop.BORDER_RGB[0]).any(axis=2)
        assert np.abs(seen.astype(float) - served)[inside].mean() < 4
    found, scores = heatmap.decode((np.load(tmp_path / "maps.npy") / 255).astype(np.float32), stride=1)
    with np.load(tmp_path / "scores.npz") as stored:
        places = crop.transform(found, stored["to_canvas"])
        assert stored["hits"].sum() > 0.95 * stored["counts"].sum()
    apart = np.linalg.norm(places - cache.keypoints, axis=2)
    assert np.median(scores) > 0.4
    # Canvases have 384 px for the height that the teacher sees in its own 192 or 256.
    assert np.median(apart) < 2
    assert (apart < 10).mean() > 0.95


def test_joint_weights_scale_labels_and_teachers_of_their_joints(
    pose_file: Path, data_root: Path, tmp_path: Path
) -> None:
    """Also in mirrored crops: a batch has both."""
    factors = np.linspace(0, 1.6, 17)
    plain = guided(pose_file)
    weighed = replace(plain, losses=replace(plain.losses, joint_weights=tuple(factors.tolist())))
    made = [
        PoseTask(plan, data_root, CPU, tmp_path / "run").batch(0, 0, plan.phases[0]).targets
        for plan in (plain, weighed)
    ]
    expected = torch.from_numpy(factors.astype(np.float32))
    assert made[0].weights.any()
    assert made[0].trust.any()
    torch.testing.assert_close(made[1].weights, made[0].weights * expected)
    torch.testing.assert_close(made[1].trust, made[0].trust * expected)
    assert torch.equal(made[1].maps, made[0].maps)


def test_flip_averaging_does_not_move_a_joint_in_the_middle(data_root: Path, tmp_path: Path) -> None:
    """The stand-in's cells lie 1.5 px beside this project's, so that mirrored cells do not coincide with cells."""
    teacher = BundleTeacher(take(PoseStandIn(gain=0.9), tmp_path / "pose"))
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    canvases = torch.from_numpy(np.array(cache.pixels))
    view = torch.from_numpy(cache.crop_to_canvas(np.arange(len(cache)), teacher.crop_size, teacher.padding))
    pixels = augment.to_bytes(augment.sample(canvases, view, teacher.crop_size))
    once, both = (teacher_cache.infer(teacher, pixels, flip)[:, :1].numpy() for flip in (False, True))
    (there, _), (again, scores) = heatmap.decode(once, stride=4), heatmap.decode(both, stride=4)
    np.testing.assert_allclose(there, again, atol=0.5)
    assert scores.min() > 0.3


@pytest.mark.parametrize("padding", [1.0, 1.1, 1.25])
def test_crops_of_a_cache_show_people_as_large_as_served(data_root: Path, padding: float) -> None:
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    view = cache.crop_to_canvas(np.arange(len(cache)), (96, 128), padding)
    learned = crop.transform(cache.keypoints, crop.invert(view))
    people = list(coco.load(data_root / "annotations.json").anns.values())
    points = np.array([it["keypoints"] for it in people], np.float32).reshape(len(people), -1, 3)[..., :2]
    to_image = crop.crop_to_image(from_xywh([it["bbox"] for it in people]), (96, 128), padding)
    served = crop.transform(points, crop.invert(to_image))
    apart = np.linalg.norm(learned[:, None] - served[None], axis=3).max(axis=2)
    assert (apart.min(axis=1) < 0.05).all()


def test_flip_averaging_of_a_mirrored_crop_gives_mirrored_heatmaps(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_recipe()
    loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path), tmp_path, CPU)
    teacher = NetworkTeacher(tmp_path / "last.pt", CPU)
    pixels = torch.randint(0, 256, (3, 128, 96, 3), dtype=torch.uint8)
    maps = teacher_cache.infer(teacher, pixels, flip=True)
    torch.testing.assert_close(teacher_cache.infer(teacher, pixels.flip(2), flip=True), mirror_maps(maps))
    assert not torch.allclose(teacher.maps(pixels.flip(2)), mirror_maps(teacher.maps(pixels)))


def test_an_interrupted_cache_is_continued_and_equals_an_uninterrupted_one(
    pose_file: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "CHUNK", 1)
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    many = replace(
        cache,
        pixels=np.tile(cache.pixels, (2, 1, 1, 1)),
        keypoints=np.tile(cache.keypoints, (2, 1, 1)),
        labelled=np.tile(cache.labelled, (2, 1)),
        weights=np.tile(cache.weights, (2, 1)),
        boxes=np.tile(cache.boxes, (2, 1)),
    )

    class Dying(BundleTeacher):
        asked = 0

        def maps(self, pixels: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            if self.asked == 20:
                raise KeyboardInterrupt
            return super().maps(pixels)

    dying, living = Dying(pose_file), Dying(pose_file)
    with pytest.raises(KeyboardInterrupt):
        teacher_cache.write_cache(dying, "spots", many, tmp_path / "parts", flip=False, device=CPU)
    assert not (tmp_path / "parts" / "scores.npz").exists()
    living.asked = -1000
    teacher_cache.write_cache(living, "spots", many, tmp_path / "parts", flip=False, device=CPU)
    assert living.asked == -1000 + len(many) - 16, "sixteen had been saved"
    teacher_cache.write_cache(BundleTeacher(pose_file), "spots", many, tmp_path / "whole", flip=False, device=CPU)
    for name in ("maps.npy", "scores.npz"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    asked = living.asked
    teacher_cache.write_cache(living, "spots", many, tmp_path / "parts", flip=False, device=CPU)
    assert living.asked == asked, "a complete cache is not inferred again"


def test_trust_is_the_measured_precision() -> None:
    """Trust is the precision at the score, and 0 where the precision is low."""
    counts = np.full(BINS, 1000)
    share = np.concatenate([np.full(8, 0.2), np.linspace(0.3, 0.9, 8), np.full(4, 0.97)])
    weights = PrecisionByScore((share * counts).astype(int), counts).weights(np.linspace(0, 1, 101).astype(np.float32))
    assert (weights[:40] == 0).all()
    np.testing.assert_allclose(weights[80:], 0.97, atol=0.01)
    assert (np.diff(weights) >= 0).all()


def test_an_online_teacher_is_measured_as_a_cached_one(pose_file: Path, data_root: Path, tmp_path: Path) -> None:
    teacher = BundleTeacher(pose_file)
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    teacher_cache.write_cache(teacher, "spots", cache, tmp_path / "maps", flip=False, device=CPU)
    cached = CachedTeacher([tmp_path / "maps"], CPU).precision
    online = teacher_cache.measure(teacher, [cache], flip=False, device=CPU)
    assert online.counts.sum() == cached.counts.sum() == cache.labelled.sum()
    assert abs(int(online.hits.sum()) - int(cached.hits.sum())) <= 2  # maps on disk are rounded to bytes


def test_a_bin_with_few_labels_gets_no_trust() -> None:
    counts = np.zeros(BINS, int)
    counts[5], counts[10] = 5, 500
    weights = PrecisionByScore(counts.copy(), counts).weights(np.array([0.27, 0.52, 0.9], np.float32))
    np.testing.assert_allclose(weights, [0, 1, 1], atol=0.01)


def test_without_labels_trust_is_a_ramp_of_the_score() -> None:
    np.testing.assert_allclose(
        PrecisionByScore.unknown().weights(np.array([0.4, 0.6, 0.8], np.float32)), [0, 0.5, 1], atol=1e-6
    )


@pytest.mark.parametrize("head", ["heatmap", "simcc"])
def test_an_online_teacher_of_the_students_shape_gives_its_heatmaps(data_root: Path, tmp_path: Path, head: str) -> None:
    network = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128], "head": head}
    plan = tiny_recipe(network=network)
    loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path / "teacher"), tmp_path / "teacher", CPU)
    teacher: HeatmapTeacher = NetworkTeacher(tmp_path / "teacher" / "last.pt", CPU)
    task = PoseTask(plan, data_root, CPU, tmp_path / "student")
    pixels = task.batch(0, 0, plan.phases[0]).pixels
    identity = np.repeat(np.eye(3, dtype=np.float32)[None, :2], len(pixels), axis=0)
    zeros = np.zeros(len(pixels), np.intp)
    placed = aligned_teachers.PlacedCrops(pixels, identity, zeros.astype(bool), zeros, zeros)
    maps, trust = OnlineTeacher(teacher, flip=False, precision=PrecisionByScore.unknown()).infer(placed)
    torch.testing.assert_close(maps, teacher.maps(pixels), atol=1e-5, rtol=1e-4)
    assert maps.shape == (len(pixels), 17, 32, 24)
    assert trust.shape == (len(pixels), 17)


def test_an_imported_simcc_network_teaches(tmp_path: Path, data_root: Path) -> None:
    """The network has two outputs: the stand-in's spots along each axis."""

    class Axes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = PoseStandIn(gain=0.7)  # a top instead of a plateau

        def forward(self, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps = self.maps(normal)
            # Cell x of the stand-in is pixel 4x, which is bin 8x + 1/2 of half-pixel bins.
            fine = [torch.nn.functional.interpolate(maps.amax(dim=d), scale_factor=8.0, mode="nearest") for d in (2, 3)]
            return fine[0].roll(-4, dims=2), fine[1].roll(-4, dims=2)

    place = take(Axes(), tmp_path / "axes", "simcc", shift=0.0)
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    folder = tmp_path / "maps"
    teacher = teachers.open_teacher(Teacher("axes", "bundle", str(place)), place, CPU)
    teacher_cache.write_cache(teacher, "axes", cache, folder, flip=False, device=CPU)
    with np.load(folder / "scores.npz") as stored:
        assert stored["counts"].sum() == cache.labelled.sum()
        assert stored["hits"].sum() > 0.9 * stored["counts"].sum()
    assert CachedTeacher([folder], CPU).precision.counts.sum() == cache.labelled.sum()


def test_a_missing_teacher_is_named(data_root: Path, tmp_path: Path) -> None:
    plan = guided(tmp_path / "none")
    with pytest.raises(BundleError, match="expected a folder with manifest"):
        PoseTask(plan, data_root, CPU, tmp_path / "run")
    assert Losses().teachers == ()


def test_other_pictures_are_inferred_anew(data_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "pose.onnx"
    file.write_bytes(b"only its content names the folder")
    folders = set()
    for brightness in (0, 9):
        copy = tmp_path / str(brightness) / "crops"
        shutil.copytree(data_root / "crops", copy)
        pixels = np.load(copy / "pixels.npy")
        np.save(copy / "pixels.npy", pixels + np.uint8(brightness))
        (cache,) = crop_cache.open_cache([copy])
        folders.update(teacher_cache.folder_of(tmp_path, "pose", file, flip=False, cache=cache).name for _ in range(2))
    assert len(folders) == 2


def test_caches_of_an_earlier_format_are_not_read(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pose.onnx"
    file.write_bytes(b"only its content names the folder")
    (cache,) = crop_cache.open_cache([data_root / "crops"])
    now = teacher_cache.folder_of(tmp_path, "pose", file, flip=False, cache=cache)
    monkeypatch.setattr(teacher_cache, "FORMAT", b"")
    assert teacher_cache.folder_of(tmp_path, "pose", file, flip=False, cache=cache) != now


STILL = augment.Strength(0, 0, (1, 1), 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("size", [(64, 128), (96, 128), (160, 128)], ids=str)
def test_training_shows_people_as_large_as_they_are_served(
    size: tuple[int, int], painted: coco.Source, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the crop has another shape than the canvas: undisturbed, it is one that the server would cut."""
    monkeypatch.setitem(augment.STRENGTHS, "faint", STILL)
    padding = 1.05
    plan = tiny_recipe(
        network={"kind": "pose", "backbone": "plain-s", "input_size": list(size), "box_padding": padding},
        phases=[{"steps": 1, "batch": 8, "size": list(size), "augment": "faint"}],
    )
    data = coco.load(painted.annotations)
    served = []
    for person in data.anns.values():
        image = images.read_labelled(painted.images, data.imgs[person["image_id"]])
        cut = crop.cut(image, from_xywh([person["bbox"]]), size, padding).pixels[0].astype(float)
        served += [cut, cut[:, ::-1]]
    seen = PoseTask(plan, data_root, torch.device("cpu"), data_root / "run").batch(0, 0, plan.phases[0]).pixels
    for pixels in seen.numpy().astype(float):
        assert min(np.abs(pixels - it).mean() for it in served) < 3
