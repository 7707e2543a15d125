"""POST /predict/batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings
from service.wire import reply as shapes
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE

GOOD = spots.encode(spots.paint(SURE))
FAINT = spots.encode(spots.paint(UNSURE))
BOTH = spots.encode(spots.paint(SURE, UNSURE), "JPEG")


def post(server: Running, contents: list[bytes], **query: object):
    files = [("image", (f"{i}", content)) for i, content in enumerate(contents)]
    return server.http.post("/predict/batch", files=files, params=query)


def test_answers_are_in_order_and_a_bad_picture_is_an_entry_with_a_problem(server: Running) -> None:
    contents = [BOTH, b"hello", GOOD, GOOD[:-1], spots.encode(spots.paint()), spots.png_bomb(), b""] * 2

    response = post(server, contents)

    assert response.status_code == 200
    entries = response.json()
    assert [len(entry["poses"]) if "poses" in entry else entry["problem"]["status"] for entry in entries] == [
        2, 422, 1, 422, 0, 413, 400,
    ] * 2  # fmt: skip
    for entry in entries:
        (shapes.Reply if "poses" in entry else shapes.BatchFault).model_validate(entry)
        request_id = entry["id"] if "poses" in entry else entry["problem"]["request_id"]
        assert request_id == response.headers["x-request-id"]


def test_a_batch_larger_than_the_queue_is_answered(server: Running) -> None:
    count = server.app.state.service.settings.max_batch
    entries = post(server, [GOOD] * count).json()
    assert [len(entry["poses"]) for entry in entries] == [1] * count


def test_coco_image_ids_count_up(server: Running) -> None:
    entries = post(server, [GOOD, BOTH], format="coco", image_id=7).json()
    assert [[result["image_id"] for result in entry] for entry in entries] == [[7], [8, 8]]


def test_an_invalid_call_is_refused_as_a_whole(server: Running) -> None:
    count = server.app.state.service.settings.max_batch
    assert post(server, [GOOD] * (count + 1)).status_code == 400
    assert server.http.post("/predict/batch", content=GOOD, headers={"Content-Type": "image/png"}).status_code == 415
    assert post(server, [b"\0" * 9_000_000]).status_code == 413
    assert post(server, [GOOD], model="nobody").status_code == 404


def test_a_picture_of_too_many_bytes_is_an_entry_with_a_problem(server: Running) -> None:
    entries = post(server, [GOOD, GOOD + b"\0" * 4_000_000]).json()
    assert len(entries[0]["poses"]) == 1
    assert entries[1]["problem"]["type"] == "/problems/image-too-large"


def test_an_exception_for_one_picture_is_an_entry_with_a_problem_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = spots.write_models(tmp_path / "models")
    spots.write_pose_bundle(models, "student-s", "student", fails_on_sure=True)
    with serving(Settings(models_dir=models)) as running:
        response = post(running, [FAINT, BOTH, FAINT, BOTH])
        assert response.status_code == 200
        answers = response.json()
        assert [len(entry["poses"]) if "poses" in entry else entry["problem"]["status"] for entry in answers] == [
            1, 500, 1, 500,
        ]  # fmt: skip
        assert answers[1]["problem"]["request_id"] == response.headers["x-request-id"]
        assert "Gather" not in response.text
        assert running.upload_budget.taken == 0
    assert sum("picture 1 of a batch failed" in record.message for record in caplog.records) == 1
