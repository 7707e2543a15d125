"""``parquet``: the tidy table as Apache Parquet, with units and skeleton in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posewright_client._errors import MissingExtra
from posewright_client.formats.output import new_file
from posewright_client.formats.recording import Recording, Size
from posewright_client.formats.table import COLUMNS, FILE, rows

ROWS_A_GROUP = 65_536
METADATA_KEY = "posewright"


def write(recording: Recording, out: Path) -> None:
    """Write the table; only one row group is in memory.

    Raises:
        MissingExtra: pyarrow is not installed.
        ResultsError: The results cannot be read.
        OSError: A file cannot be read or written.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional dependency
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("--to parquet needs pyarrow: pip install 'posewright-client[parquet]'") from error
    schema, table, size = _schema(pa), [], None
    with new_file(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for frame in recording.frames():
            size = size or frame.size
            table += [(*row, frame.file) for row in rows(recording, frame)]
            if len(table) >= ROWS_A_GROUP:
                writer.write_table(_group(pa, schema, table))
                table = []
        writer.write_table(_group(pa, schema, table))
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(_description(recording, size))})


def _schema(pa: Any) -> Any:
    types = (pa.int64(), pa.float64(), pa.int32(), pa.int32(), pa.string(), pa.float64(), pa.float64(), pa.float32())
    units = {"time_s": "s", "x_px": "px", "y_px": "px", "score": "0..1"}
    fields = [
        pa.field(name, kind, nullable=name != "frame", metadata={"unit": units[name]} if name in units else None)
        for name, kind in zip(COLUMNS, types, strict=True)
    ]
    return pa.schema([*fields, pa.field(FILE, pa.string())])


def _group(pa: Any, schema: Any, table: list[tuple[Any, ...]]) -> Any:
    columns = zip(*table, strict=True) if table else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def _description(recording: Recording, size: Size | None) -> dict[str, Any]:
    return {
        "name": recording.name,
        "image_size": size,
        "skeleton": {"keypoints": recording.skeleton.keypoints, "edges": recording.skeleton.edges},
        "coordinates": "pixels of the upright picture, origin at the top left, pixel centres at integers",
    }
