"""Files of results with known content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from posewright_client import KEYPOINTS

SIZE = {"width": 640, "height": 360}
pixels = st.floats(-50, 700).map(lambda it: round(it, 2))
shares = st.floats(0, 1).map(lambda it: round(it, 3))


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def people(names: tuple[str, ...] = KEYPOINTS) -> st.SearchStrategy[list[dict[str, Any]]]:
    """People of one frame, whose ids differ."""
    point = st.tuples(pixels, pixels, shares).map(list)
    points = st.lists(point, min_size=len(names), max_size=len(names))
    box = st.tuples(pixels, pixels, st.floats(1, 300), st.floats(1, 300)).map(lambda it: [round(x, 2) for x in it])
    person = st.fixed_dictionaries({"score": shares, "box": box, "keypoints": points})
    return st.lists(person, max_size=2)


@st.composite
def videos(draw: st.DrawFn, names: tuple[str, ...] = KEYPOINTS) -> list[dict[str, Any]]:
    """Lines of ``video``: tracked or not, with gaps of people, problems, and a second session in some."""
    count, tracked = draw(st.integers(1, 5)), draw(st.booleans())
    restart = draw(st.integers(1, count))
    lines = []
    for i in range(count):
        line: dict[str, Any] = {"frame": i, "time_ms": i * 40.0, "image": SIZE}
        found = draw(people(names))
        if draw(st.integers(0, 9)) == 0:
            line["problem"] = {"type": "about:blank", "status": 500, "detail": "x"}
        else:
            line |= {"session": "a" if i < restart else "b"}
            if names != KEYPOINTS and found:
                line |= {"keypoints": names, "edges": [[0, 1]]}
            line["poses"] = [{"id": str(k + 1) if tracked else None, **it} for k, it in enumerate(found)]
        lines.append(line)
    return lines


def person_ids(lines: list[dict[str, Any]]) -> list[tuple[int, str, str | None]]:
    """Frame, session and id of every person, in order."""
    return [(it["frame"], it["session"], pose["id"]) for it in lines for pose in it.get("poses", ())]


def all_points(lines: list[dict[str, Any]]) -> list[list[list[float]]]:
    return [pose["keypoints"] for it in lines for pose in it.get("poses", ())]
