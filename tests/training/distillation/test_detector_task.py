"""The detector's samples: framing moves boxes with their people, and the target maps."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.training.conftest import tiny_recipe
from training.data import images
from training.distillation import losses
from training.distillation.box_targets import best_cells, encode
from training.distillation.detector_task import DetectorTask
from training.distillation.framing import Framing, place
from training.recipe.errors import RecipeError


def test_placed_boxes_frame_their_rectangles() -> None:
    """To a tenth of a pixel, through zoom, stretch, shift and mirror: the centroids of rectangle and box.

    To a fifth where halving leaves bilinear steps of more than one and a half pixels: they move hard edges.
    """
    image = np.full((900, 1200, 3), 114, np.uint8)  # the grey of the border
    image[240:660, 400:800] = 255
    rows, columns = np.mgrid[:256, :320]
    whole = 0
    for seed in range(40):
        pixels, boxes = place(
            image, np.array([[400, 240, 800, 660]], np.float32), (320, 256), Framing.draw(np.random.default_rng(seed))
        )
        left, top, right, bottom = boxes[0]
        if min(left, top) < 1 or right > 319 or bottom > 255:
            continue  # cut by the frame
        mass = pixels[..., 0].astype(float) - 114
        # Pixel centres lie half a pixel inside the edges that boxes are made of.
        center = np.array([(mass * (columns + 0.5)).sum(), (mass * (rows + 0.5)).sum()]) / mass.sum()
        scale = np.sqrt(400 * 420 / ((right - left) * (bottom - top)))
        step = scale / 2 ** np.floor(np.log2(scale))
        np.testing.assert_allclose(center, [(left + right) / 2, (top + bottom) / 2], atol=0.1 if step < 1.5 else 0.2)
        whole += 1
    assert whole > 20


def test_uncertain_people_are_neither_targets_nor_background() -> None:
    boxes = np.array([[40, 40, 120, 200], [180, 40, 260, 200]], np.float32)
    centers, weights, _, distance_weights, owners = encode(boxes, np.array([True, False]), (320, 256))
    assert (centers == 1).sum() == 1
    row, column = np.argwhere(centers[0] == 1)[0]
    assert (column, row) == (10, 15)
    assert weights[0, row, column] == 1
    assert weights[0, 15, 27] == 0
    assert distance_weights[0, 15, 27] == 0
    assert owners[0, row, column] == 0
    assert owners[0, 15, 27] == -1
    np.testing.assert_allclose(distance_weights.sum(), 1, rtol=1e-5)


def test_the_cells_around_the_centre_learn_the_same_box() -> None:
    """Each decodes to it; cells outside of it learn nothing of it, and small people win the cells they share.

    But the peaks: each keeps its own, and all count alike.
    """
    boxes = np.array([[41, 43, 73, 107], [98, 20, 106, 60], [60, 110, 316, 250], [195, 163, 213, 181]], np.float32)
    _, _, distances, weights, owners = encode(boxes, np.ones(4, bool), (320, 256))
    x, y = np.meshgrid((np.arange(40) + 0.5) * 8, (np.arange(32) + 0.5) * 8)
    left, top, right, bottom = distances
    decoded = np.stack([x - left, y - top, x + right, y + bottom], axis=-1)
    for box, cells in zip(boxes, (9, 2, 8, 9), strict=True):
        learned = (weights[0] > 0) & (np.abs(decoded - box).max(axis=-1) < 1e-3)
        assert learned.sum() == cells
        np.testing.assert_allclose(weights[0, learned].sum(), 1, rtol=1e-5)
        middle = ((box[:2] + box[2:]) / 16).astype(int)
        assert learned[middle[1], middle[0]]
        assert len(set(owners[0, learned])) == 1
        assert (np.abs(x[learned] - (box[0] + box[2]) / 2) < (box[2] - box[0]) / 2).all()


def test_a_picture_without_people_is_background() -> None:
    centers, weights, _, distance_weights, owners = encode(np.zeros((0, 4), np.float32), np.zeros(0, bool), (96, 64))
    assert centers.max() == 0
    assert weights.min() == 1
    assert distance_weights.max() == 0
    assert owners.max() == -1


def test_the_cell_with_the_best_box_is_assigned_to_a_person() -> None:
    """In each picture separately; none without people."""
    owners = torch.full((3, 1, 4, 4), -1)
    owners[0, 0, 0, :3], owners[0, 0, 2, :2], owners[1, 0, 3, 1:3] = 0, 1, 0
    overlaps = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 0.5 + 0.1
    best = [(0, 0, 0, 2), (0, 0, 2, 0), (1, 0, 3, 2)]
    for place_ in best:
        overlaps[place_] = 0.9
    overlaps[2] = 1
    assigned = best_cells(overlaps, owners)
    assert [tuple(it) for it in assigned.nonzero().tolist()] == best
    assert not best_cells(overlaps[2:], owners[2:]).any()


def test_recent_pictures_are_limited_in_bytes(tmp_path: Path) -> None:
    """The most recent ones are kept; one that is larger than the limit is returned but not kept."""
    sides = {"a": 40, "b": 40, "c": 40, "huge": 400}
    for name, side in sides.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((side, side, 3), 7, np.uint8))
    frame = images.LabelFrame()
    recent = images.RecentImages(2 * 40 * 40 * 3)

    def read(name: str) -> np.ndarray:
        return recent.read_in_frame(tmp_path / f"{name}.png", frame)

    first, second = read("a"), read("b")
    assert read("a") is first
    read("c")  # b was asked for longest ago
    assert read("a") is first
    assert read("b") is not second
    assert read("huge").shape == (400, 400, 3)
    assert read("huge") is not read("huge")
    assert read("a") is not first


def test_a_detector_that_learns_from_teachers_alone_needs_one(data_root: Path) -> None:
    network = {"kind": "detector", "backbone": "rtmdet-nano", "norms": "folded", "input_size": [64, 64]}
    plan = tiny_recipe("detector", network=network)
    with pytest.raises(RecipeError, match="expected at least one for rtmdet-nano"):
        DetectorTask(plan, data_root, torch.device("cpu"))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_boxes_is_that_of_their_distances(seed: int) -> None:
    """`giou_of_boxes` and `giou` agree where boxes share a point, and equal boxes cost nothing."""
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (torch.rand(1, 4, 3, 5, generator=generator) + 0.1 for _ in range(2))
    sign = torch.tensor([-1.0, -1, 1, 1]).view(1, 4, 1, 1)
    corners = [(it * sign).permute(0, 2, 3, 1) for it in (ours, theirs)]
    loss = losses.giou_of_boxes(*corners)
    torch.testing.assert_close(loss.mean(), losses.giou(ours, theirs, torch.ones(1, 1, 3, 5)))
    torch.testing.assert_close(losses.giou_of_boxes(corners[0], corners[0]), torch.zeros(1, 3, 5), atol=1e-6, rtol=0)
