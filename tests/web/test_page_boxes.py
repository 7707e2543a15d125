"""Boxes of people that a visitor draws on a photo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Running
from tests.spots import SURE, UNSURE
from tests.web.chrome import Tab
from tests.web.test_page import ROWS, opened

BOXES = "document.querySelectorAll('.given-box').length"
LABEL = "document.querySelector('.given-box').ariaLabel"
FOCUS = "document.activeElement.className || document.activeElement.id"


@pytest.fixture
def page(tab: Tab, server: Running, picture: Path) -> Tab:
    opened(tab, server.url).choose("#file", picture)
    tab.wait_for(f"{ROWS} === 2")
    return tab


def drag(page: Tab, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the mouse between two points of the picture, px of it."""
    script = """([x, y]) => { const r = document.querySelector("#given-boxes").getBoundingClientRect();
      return [r.x + x * r.width / 640, r.y + y * r.height / 384]; }"""
    for kind, point in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
        x, y = page.call(script, point)
        page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def test_a_box_that_the_mouse_draws_replaces_those_of_the_detector(page: Tab) -> None:
    x, y, width, height = UNSURE.box_xywh
    drag(page, (x, y), (x + width, y + height))
    page.wait_for(f"{BOXES} === 1 && {ROWS} === 1")
    assert page.run(LABEL) == f"Box at {x:.0f}, {y:.0f}, {width:.0f} wide, {height:.0f} high"
    # The mouse moves it to the other person, and draws a second one.
    (to_x, to_y), (from_x, from_y) = SURE.center, UNSURE.center
    drag(page, (from_x, from_y), (to_x, to_y))
    page.wait_for(f"{LABEL}.startsWith('Box at {SURE.box_xywh[0]:.0f}, {SURE.box_xywh[1]:.0f},')")
    drag(page, (x, y), (x + width, y + height))
    page.wait_for(f"{BOXES} === 2 && {ROWS} === 2")
    # A click draws nothing.
    drag(page, (600, 20), (600, 20))
    assert page.run(BOXES) == 2


def test_boxes_are_added_moved_resized_and_removed_with_the_keyboard(page: Tab) -> None:
    page.run("document.querySelector('#add-box').focus()")
    page.press("Enter", 13)
    page.run("document.querySelector('#add-box').click()")
    page.wait_for(f"{BOXES} === 1")
    assert page.run(FOCUS) == "given-box"
    assert page.run(LABEL) == "Box at 192, 38, 256 wide, 307 high"
    page.press("ArrowRight", 39)
    assert page.run(LABEL) == "Box at 198, 38, 256 wide, 307 high"
    for kind in ("rawKeyDown", "keyUp"):
        page.send(
            "Input.dispatchKeyEvent", type=kind, key="ArrowUp", code="ArrowUp", windowsVirtualKeyCode=38, modifiers=8
        )
    assert page.run(LABEL) == "Box at 198, 38, 256 wide, 301 high"
    for _ in range(50):
        page.press("ArrowLeft", 37)
    assert page.run(LABEL) == "Box at 0, 38, 256 wide, 301 high", "it stays in the picture"
    page.press("Delete", 46)
    assert (page.run(BOXES), page.run(FOCUS)) == (0, "add-box")
    page.wait_for(f"{ROWS} === 2")


@pytest.mark.slow
def test_boxes_belong_to_one_photo(page: Tab, picture: Path) -> None:
    page.click("#add-box")
    page.wait_for(f"{BOXES} === 1 && {ROWS} === 1")
    page.choose("#file", picture)
    page.wait_for(f"{BOXES} === 0 && {ROWS} === 2")
    page.click("#camera")
    page.wait_for("document.querySelector('#add-box').hidden && document.querySelector('#given-boxes').hidden")
