"""The legend of the skeleton: sides and colours, and keypoints that it finds in the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.web.chrome import Tab
from tests.web.test_page import LEFT, MIDDLE, NOTHING, RIGHT, ROWS, colors_at, opened

BESIDE = np.array([4, 0])
"""From a keypoint, px of the picture: outside its dot, inside the larger one that is drawn when it is sought."""
GROUPS = """[...document.querySelectorAll('#keypoints [role=group]')].map((group) => [group.ariaLabel,
  group.querySelector('i').style.background,
  [...group.querySelectorAll('[role=option]')].map((it) => it.ariaLabel)])"""
SOUGHT = "[...document.querySelectorAll('[data-sought]')].map((it) => it.ariaLabel)"


@pytest.fixture
def page(tab: Tab, server: Running, picture: Path) -> Tab:
    opened(tab, server.url).choose("#file", picture)
    tab.wait_for(f"{ROWS} === 2")
    tab.click("#legend summary")
    return tab


def elbow(page: Tab) -> list[list[int]]:
    """Colours around the left elbow, whose surroundings are empty."""
    return colors_at(page, "#view-one", SURE.keypoints[[7]] + BESIDE)


def test_it_names_the_keypoints_of_each_side_in_its_colour(page: Tab) -> None:
    groups = page.run(GROUPS)
    assert [it[0] for it in groups] == ["Left", "Middle", "Right"]
    assert [it[1] for it in groups] == [f"rgb({', '.join(map(str, it[:3]))})" for it in (LEFT, MIDDLE, RIGHT)]
    names = [name for _, _, some in groups for name in some]
    assert len(names) == len(set(names)) == 17
    assert names[8] == "nose"
    assert "left elbow" in groups[0][2]
    assert "right elbow" in groups[2][2]


def test_the_pointer_finds_a_keypoint_in_the_picture(page: Tab) -> None:
    assert elbow(page) == [NOTHING]
    page.run("document.querySelector('#keypoint-7').scrollIntoView({ block: 'center' })")
    x, y = page.center("#keypoint-7")
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait_for(f"{SOUGHT}.length")
    assert page.run(SOUGHT) == ["left elbow"]
    assert elbow(page) == [LEFT]
    assert page.text("#keypoint-detail").startswith("left elbow: person 1: 222, 162 (score ")
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    page.wait_for(f"{SOUGHT}.length === 0")
    assert elbow(page) == [NOTHING]


def test_the_keyboard_finds_keypoints_and_screen_readers_hear_where_they_are(page: Tab) -> None:
    page.run("document.querySelector('#keypoints').focus()")
    assert page.run(SOUGHT) == ["left eye"]
    page.press("ArrowDown", 40)
    assert page.run(SOUGHT) == ["left ear"]
    page.press("End", 35)
    page.press("ArrowDown", 40)
    assert page.run(SOUGHT) == ["right ankle"]
    page.press("Home", 36)
    for _ in range(3):
        page.press("ArrowDown", 40)
    assert page.run(SOUGHT) == ["left elbow"]
    assert elbow(page) == [LEFT]
    active = "document.querySelector('#keypoints').getAttribute('aria-activedescendant')"
    assert page.run(active) == "keypoint-7"
    assert page.run("document.querySelector('[aria-selected=true]').id") == "keypoint-7"
    assert page.text("#announce").startswith("left elbow: person 1: 222, 162")
    page.press("Tab", 9)
    assert page.run(SOUGHT) == []
    assert elbow(page) == [NOTHING]


def test_it_shows_the_skeleton_that_the_server_tells(tab: Tab, tmp_path: Path) -> None:
    folder = spots.write_models(tmp_path / "models")
    names = [
        "beak",
        *(f"{side}_{part}_{i}" for i in range(4) for part in ("wing", "foot") for side in ("left", "right")),
    ]
    bird = {
        "name": "bird", "keypoints": names, "edges": [[0, 1], [0, 2], [1, 3]], "flip": list(range(17)),
        "sigmas": [0.1] * 17,
    }  # fmt: skip
    for name in ("student-s", "teacher"):
        path = folder / name / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"skeleton": bird}))
    with serving(Settings(models_dir=folder)) as running:
        opened(tab, running.url)
        tab.wait_for("document.querySelectorAll('#keypoints [role=option]')[0].textContent === 'wing 0'")
        left, middle, right = (it[2] for it in tab.run(GROUPS))
        assert left == [it.replace("_", " ") for it in names if it.startswith("left")]
        assert middle == ["beak"]
        assert len(right) == 8
