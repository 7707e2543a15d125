"""``csv``: the tidy table as text, for pandas, R and spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

from posewright_client.formats.output import new_file
from posewright_client.formats.recording import Recording
from posewright_client.formats.table import COLUMNS, FILE, rows


def write(recording: Recording, out: Path) -> None:
    """Write the table; units are in the names of the columns.

    Raises:
        ResultsError: The results cannot be read.
        OSError: A file cannot be read or written.
    """
    with new_file(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        started = False
        for frame in recording.frames():
            more = () if frame.file is None else (frame.file,)
            if not started:
                writer.writerow((*COLUMNS, FILE) if more else COLUMNS)
                started = True
            writer.writerows((*row, *more) for row in rows(recording, frame))
