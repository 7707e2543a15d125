"""POST /compare: the test teacher puts every keypoint one heatmap cell further right than the student."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.pose.skeleton import COCO17
from service.wire import reply as shapes
from tests import spots
from tests.conftest import Running
from tests.spots import SURE, UNSURE

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
# A crop shows 1.25 times the box: 1.25 * 200 px become 256 px of crop, and a cell is 4 px of crop.
CELL_PX = 4 * 1.25 * 200 / 256
SIZE_PX = np.sqrt(120 * 200)


def compare(server: Running, **query: object) -> dict:
    response = server.http.post("/compare", content=PICTURE, params=query, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    shapes.ComparisonReply.model_validate(response.json())
    return response.json()


@pytest.mark.parametrize("query", [{}, {"boxes": json.dumps([SURE.box_xywh, UNSURE.box_xywh])}, {"model": "student-s"}])
def test_distances_and_oks_are_those_of_one_cell(server: Running, query: dict[str, str]) -> None:
    reply = compare(server, **query)

    assert [(match["student"], match["teacher"]) for match in reply["matches"]] == [(0, 0), (1, 1)]
    for match in reply["matches"]:
        distances = np.array(match["distances_px"])
        assert np.abs(distances - CELL_PX).max() < 0.3
        np.testing.assert_allclose(match["distances_relative"], distances / SIZE_PX, atol=1e-4)
        # cocodataset.org/#keypoints-eval
        expected = np.exp(-(distances**2) / (2 * SIZE_PX**2 * (2 * COCO17.sigma_array) ** 2)).mean()
        assert abs(match["oks"] - expected) < 1e-3
    assert (reply["student"]["model"]["name"], reply["teacher"]["model"]["name"]) == ("student-s", "teacher")
    for side in ("student", "teacher"):
        assert len(reply[side]["poses"]) == 2
        assert reply[side]["pose_ms"] == reply["timings_ms"][side] > 0


def test_a_model_compared_with_itself_has_no_distance(server: Running) -> None:
    for match in compare(server, model="teacher")["matches"]:
        assert match["oks"] == 1
        assert match["distances_px"] == [0] * 17


def test_min_score_removes_people_on_both_sides(server: Running) -> None:
    reply = compare(server, min_score=0.9)
    assert [len(reply["student"]["poses"]), len(reply["teacher"]["poses"]), len(reply["matches"])] == [1, 1, 1]


@pytest.mark.parametrize("layout", ["compact", "coco"])
def test_formats_apply_to_both_sides(server: Running, layout: str) -> None:
    reply = compare(server, format=layout)
    for side in ("student", "teacher"):
        assert len(reply[side]["poses"]) == 2
        assert ("bbox" in reply[side]["poses"][0]) == (layout == "coco")
