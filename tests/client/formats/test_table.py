"""The tidy table, read by the csv module and by pyarrow."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from posewright_client import EDGES, KEYPOINTS
from posewright_client.formats import csv_table
from posewright_client.formats.recording import Recording
from tests.client.formats.results import all_points, videos, write_lines


def tidy(lines: list[dict[str, Any]]) -> list[tuple]:
    """Frame, time, person, keypoint, x, y, score of every row that is expected."""
    rows: list[tuple] = []
    for line in lines:
        place = line["frame"], line["time_ms"] / 1000
        poses = line.get("poses", ())
        rows += [
            (*place, i, name, *point)
            for i, pose in enumerate(poses)
            for name, point in zip(KEYPOINTS, pose["keypoints"], strict=True)
        ]
        rows += [] if poses else [(*place, None, None, None, None, None)]
    return rows


@given(lines=videos())
def test_csv_has_every_number(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("any")
    csv_table.write(Recording(write_lines(folder / "a.jsonl", lines)), folder / "a.csv")
    with (folder / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "time_s", "track", "person", "keypoint", "x_px", "y_px", "score"]
    numbers = [(int(it["frame"]), float(it["time_s"])) for it in rows]
    more = [
        (int(it["person"]), it["keypoint"], float(it["x_px"]), float(it["y_px"]), float(it["score"]))
        if it["keypoint"]
        else (None,) * 5
        for it in rows
    ]
    assert [(*a, *b) for a, b in zip(numbers, more, strict=True)] == tidy(lines)


@given(lines=videos())
def test_parquet_has_every_number_units_and_skeleton(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict]
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra of the client")
    from posewright_client.formats import parquet_table  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("any")
    recording = Recording(write_lines(folder / "a.jsonl", lines))
    parquet_table.write(recording, folder / "a.parquet")
    table = pq.read_table(folder / "a.parquet")
    columns = table.to_pydict()
    names = "frame", "time_s", "person", "keypoint", "x_px", "y_px"
    assert list(zip(*(columns[it] for it in names), strict=True)) == [it[:6] for it in tidy(lines)]
    scores = [it for it in columns["score"] if it is not None]
    expected = [it for pose in all_points(lines) for *_, it in pose]
    assert scores == pytest.approx(expected, abs=1e-6)
    metadata = json.loads(pq.read_metadata(folder / "a.parquet").metadata[b"posewright"])
    assert metadata["skeleton"]["keypoints"] == list(KEYPOINTS)
    assert metadata["skeleton"]["edges"] == [list(it) for it in EDGES]
    assert table.schema.field("x_px").metadata == {b"unit": b"px"}
    assert table.schema.field("time_s").metadata == {b"unit": b"s"}


def test_photos_have_their_names(tmp_path: Path) -> None:
    lines = [{"file": f"{it}.jpg", "poses": []} for it in ("a", "b, c")]
    csv_table.write(Recording(write_lines(tmp_path / "a.jsonl", lines)), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [(it["frame"], it["time_s"], it["file"]) for it in csv.DictReader(file)] == [
            ("0", "", "a.jpg"), ("1", "", "b, c.jpg"),
        ]  # fmt: skip
