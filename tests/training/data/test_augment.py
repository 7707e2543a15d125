"""Augmented points stay on their spots, and every change of the pixels does what its name says."""

import cv2
import numpy as np
import pytest
import torch

from service.pose import crop
from service.pose.skeleton import COCO17
from tests import spots
from training.data import augment
from training.data.augment import Strength
from training.data.batch_rng import of_all
from training.data.crop_cache import CANVAS_SIZE

STILL = Strength(0, 0, (1, 1), 0, 0, 0, 0, 0, 0, 0)
VIEW = np.array([[1.5, 0, 0.25], [0, 1.5, 0.25]], np.float32)


@pytest.fixture(scope="module")
def canvas() -> tuple[np.ndarray, np.ndarray]:
    person = spots.Person((CANVAS_SIZE[0] // 2, CANVAS_SIZE[1] // 2))
    return spots.paint(person, size=CANVAS_SIZE), person.keypoints


def cut(canvases: np.ndarray, to_canvas: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sample as on an accelerator."""
    sampled = augment.sample_together(torch.from_numpy(canvases), torch.from_numpy(to_canvas), size)
    return augment.to_bytes(sampled).numpy()


def test_augmented_keypoints_stay_on_their_colours(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    """After zoom, rotation, shift, mirroring and half-body crops."""
    count = 40
    image, keypoints = canvas
    strength = Strength(30, 1.0, (0.75, 1.35), 0.08, 0.3, 0, 0, 0, 0, 0)
    repeated = np.repeat(keypoints[None], count, axis=0).astype(np.float32)
    to_canvas, mirrored = augment.place(
        repeated, np.ones((count, 17), np.float32), VIEW, 1.25, (192, 256), strength, np.random.default_rng(0)
    )
    assert 5 < mirrored.sum() < 35
    pixels = cut(np.repeat(image[None], count, axis=0), to_canvas, (192, 256))
    points = crop.transform(repeated, crop.invert(to_canvas))
    inside = ((points >= 0) & (points <= [191, 255])).all(axis=2)
    assert inside.mean() > 0.7
    for i, k in np.argwhere(inside):
        x, y = np.round(points[i, k]).astype(int)
        assert np.linalg.norm(pixels[i, y, x].astype(float) - spots.COLORS[k]) < 60


def test_a_crop_without_augmentation_is_the_serving_crop(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    """Batched sampling and `service.pose.crop.warp` agree, at full size, enlarged and beyond the edge."""
    image = cv2.GaussianBlur(canvas[0], (0, 0), 2)
    for affine in ([[1, 0, 0], [0, 1, 0]], [[0.6, 0, 50], [0, 0.6, 90]], [[1, 0.2, -40], [-0.2, 1, 20]]):
        to_canvas = np.array([affine], np.float32)
        expected = crop.warp(image, to_canvas[0], (96, 128)).astype(float)
        found = cut(image[None], to_canvas, (96, 128))[0].astype(float)
        alone = augment.sample(torch.from_numpy(image[None]), torch.from_numpy(to_canvas), (96, 128))[0]
        np.testing.assert_array_equal(alone.permute(1, 2, 0).numpy(), expected)
        # cv2 interpolates with 1/32 px steps, and at the very edge it blends differently.
        assert np.abs(expected - found).mean() < 0.6
        assert np.percentile(np.abs(expected - found), 99) < 4


def test_large_canvases_are_shrunk_by_area_averaging() -> None:
    stripes = np.zeros((1, 384, 288, 3), np.uint8)
    stripes[:, :, ::2] = 200
    pixels = cut(stripes, np.array([[[2, 0, 0.5], [0, 2, 0.5]]], np.float32), (96, 128))
    assert np.abs(pixels[0].astype(int) - 100).max() <= 1


def test_each_crop_shrinks_by_its_own_factor(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    """What a crop shows does not depend on which others are in its batch."""
    zooms = (0.5, 1, 1.9, 2, 2.2, 4.1)
    to_canvas = np.array([[[zoom, 0, 3], [0, zoom, 5]] for zoom in zooms], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (384, 288, 3), np.uint8)  # noise: every cell averaged counts
    together = cut(np.repeat(image[None], len(zooms), axis=0), to_canvas, (48, 64))
    for i in range(len(zooms)):
        np.testing.assert_array_equal(together[i], cut(image[None], to_canvas[i : i + 1], (48, 64))[0])
        # Both average over as many cells: the noise that is left is as strong.
        served = crop.warp(image, to_canvas[i], (48, 64)).astype(float)
        inside = (slice(8, 56), slice(8, 40))
        assert together[i][inside].std() == pytest.approx(served[inside].std(), rel=0.15)


def test_without_strength_crops_are_only_mirrored(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    image, keypoints = canvas
    identity = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    repeated = np.repeat(keypoints[None], 20, axis=0).astype(np.float32)
    to_canvas, mirrored = augment.place(
        repeated, np.ones((20, 17), np.float32), identity, 1.25, CANVAS_SIZE, STILL, np.random.default_rng(1)
    )
    pixels = cut(np.repeat(image[None], 20, axis=0), to_canvas, CANVAS_SIZE)
    assert 0 < mirrored.sum() < 20
    for crop_, flag in zip(pixels, mirrored, strict=True):
        np.testing.assert_array_equal(crop_, image[:, ::-1] if flag else image)


@pytest.mark.parametrize(
    "change", [augment.recolor, augment.soften, augment.add_noise, augment.compress], ids=lambda c: c.__name__
)
def test_pixel_changes_keep_the_picture_recognisable(change: object, photo_crop: torch.Tensor) -> None:
    assert callable(change)
    pixels = photo_crop.repeat(8, 1, 1, 1)
    changed = change(pixels, of_all(np.random.default_rng(0), len(pixels))).clamp(0, 255)
    same = change(pixels, of_all(np.random.default_rng(0), len(pixels))).clamp(0, 255)
    assert torch.equal(changed, same)
    apart = (changed - pixels).abs().mean(dim=(1, 2, 3))
    assert (apart > 0.2).all()
    grey, original = (it.mean(dim=1).flatten(1) for it in (changed, pixels))
    likeness = torch.nn.functional.cosine_similarity(
        grey - grey.mean(dim=1, keepdim=True), original - original.mean(dim=1, keepdim=True)
    )
    assert (likeness > 0.8).all()


@pytest.fixture
def photo_crop() -> torch.Tensor:
    """A smooth random picture, float (1, 3, 64, 48)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 6, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, size=(64, 48), mode="bicubic").clamp(0, 255)


def test_compression_imitates_jpeg(photo_crop: torch.Tensor) -> None:
    """At equal quality, a grey picture equals that of a real codec except for rounding."""
    grey = photo_crop.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1).round()

    class Fixed:
        def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
            return np.full(shape, 30.0)

    ours = augment.compress(grey, Fixed())[0, 0].clamp(0, 255).round().numpy()  # type: ignore[arg-type]
    encoded = cv2.imencode(".jpg", grey[0, 0].numpy().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    theirs = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    apart = np.abs(ours - theirs)  # a coefficient near a rounding border may fall to either side
    assert apart.mean() < 0.7
    assert np.percentile(apart, 95) <= 2


def test_cut_out_covers_a_rectangle_near_a_known_joint(photo_crop: torch.Tensor) -> None:
    pixels = photo_crop.repeat(40, 1, 1, 1)
    joints = np.full((40, 17, 2), -500, np.float32)  # where nobody knows them
    known = np.zeros((40, 17), bool)
    known[:30, 4] = known[:30, 11] = True
    joints[:, 4], joints[:, 11] = (15, 15), (30, 48)
    rng = of_all(np.random.default_rng(2), 40)
    assert torch.equal(augment.cut_out(pixels, joints, known, STILL, rng), pixels)
    always = Strength(0, 0, (1, 1), 0, 0, 0, 0, 0, 0, 1.0)
    covered = (augment.cut_out(pixels, joints, known, always, rng) != pixels).any(dim=1)
    share = covered.float().mean(dim=(1, 2))
    assert ((share[:30] > 0.002) & (share[:30] < 0.4)).all()
    assert not covered[30:].any()
    near = [np.argwhere(it.numpy()).mean(axis=0)[::-1] for it in covered[:30]]
    whose = [int(np.linalg.norm(joints[0, [4, 11]] - it, axis=1).argmin()) for it in near]
    assert 5 < sum(whose) < 25


def test_the_same_seed_gives_the_same_places(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    repeated = np.repeat(canvas[1][None], 5, axis=0).astype(np.float32)
    places = [
        augment.place(
            repeated, np.ones((5, 17), np.float32), VIEW, 1.25, (192, 256), augment.STRONG, np.random.default_rng(5)
        )
        for _ in range(2)
    ]
    for first, second in zip(*places, strict=True):
        np.testing.assert_array_equal(first, second)


def test_each_strength_moves_crops_less_than_the_one_before(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    repeated = np.repeat(canvas[1][None], 500, axis=0).astype(np.float32)
    corners = np.array([[0, 0], [191, 0], [0, 255], [191, 255]], np.float32)[None]
    moved = []
    for strength in (augment.STRONG, augment.LIGHT, augment.FAINT):
        rng = np.random.default_rng(3)
        places, mirrored = augment.place(
            repeated, np.ones((500, 17), np.float32), VIEW, 1.25, (192, 256), strength, rng
        )
        there = [crop.transform(np.repeat(corners, 500, axis=0), it) for it in (places, np.repeat(VIEW[None], 500, 0))]
        moved.append(np.linalg.norm(there[0] - there[1], axis=2)[~mirrored].mean())
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] > 1


def test_few_known_joints_give_no_half_body() -> None:
    keypoints = np.zeros((4, len(COCO17), 2), np.float32)
    weights = np.zeros((4, len(COCO17)), np.float32)
    weights[:, :3] = 1
    always = Strength(0, 0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    to_canvas, mirrored = augment.place(keypoints, weights, VIEW, 1.25, (192, 256), always, np.random.default_rng(0))
    np.testing.assert_allclose(np.abs(to_canvas[:, 0, 0]), 1.5, rtol=1e-5)
    np.testing.assert_allclose(to_canvas[~mirrored], np.repeat(VIEW[None], (~mirrored).sum(), axis=0), rtol=1e-5)
