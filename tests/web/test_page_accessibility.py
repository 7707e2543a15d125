"""The page by keyboard and for screen readers; axe-core's findings in every state of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from pydantic import SecretStr

from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.web import axe
from tests.web.cameras import filming
from tests.web.chrome import Browser, Tab
from tests.web.test_page import ROWS, opened
from tests.web.test_page_sources import STATE, add, needs_sources

LOOKS = [
    ((1280, 800), "light", False),
    ((1280, 800), "dark", False),
    ((390, 844), "light", True),
    ((390, 844), "dark", True),
]
IDS = ["wide-light", "wide-dark", "phone-light", "phone-dark"]
FOCUSED = """(() => { const it = document.activeElement, shown = it.closest(".button, .choice label") ?? it;
  const { outlineStyle, outlineWidth } = getComputedStyle(shown), { width, height } = shown.getBoundingClientRect();
  return { id: it.id || it.value || it.textContent.trim(), outline: outlineStyle, px: parseFloat(outlineWidth),
    area: width * height, tag: it.tagName }; })()"""


def show_photo(tab: Tab, picture: Path) -> None:
    tab.choose("#file", picture)
    tab.wait_for(f"{ROWS} >= 1")


def show_camera(tab: Tab, _: Path) -> None:
    tab.click("#camera")
    tab.wait_for("Number(document.querySelector('#answered').textContent) >= 3")


def show_comparison(tab: Tab, picture: Path) -> None:
    tab.click("input[value=compare]")
    show_photo(tab, picture)


def show_error(tab: Tab, picture: Path) -> None:
    notes = picture.with_name("notes.txt")
    notes.write_text("hello")
    tab.choose("#file", notes)
    tab.wait_for("document.querySelector('.message')")


def show_legend(tab: Tab, picture: Path) -> None:
    show_photo(tab, picture)
    tab.click("#legend summary")
    tab.run("document.querySelector('#keypoints').focus()")


def show_code(tab: Tab, _: Path) -> None:
    tab.click("#code summary")


def show_boxes(tab: Tab, picture: Path) -> None:
    show_photo(tab, picture)
    tab.click("#add-box")
    tab.wait_for(f"document.querySelector('.given-box') && {ROWS} === 1")


def show_sources_off(tab: Tab, _: Path) -> None:
    tab.click("#sources summary")
    tab.wait_for("document.querySelector('#sources-hint').textContent.length > 30")


def show_nothing(tab: Tab, _: Path) -> None:
    """The page as it opens."""


STATES: list[Callable[[Tab, Path], None]] = [
    show_nothing, show_photo, show_camera, show_comparison, show_error, show_legend, show_code, show_boxes,
    show_sources_off,
]  # fmt: skip


@pytest.fixture(scope="module")
def axe_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe.script(tmp_path_factory.mktemp("axe"))


@contextmanager
def looking(browser: Browser, look: tuple[tuple[int, int], str, bool]) -> Iterator[Tab]:
    size, scheme, phone = look
    with browser.tab(size, phone=phone, scheme=scheme) as tab:
        # As for visitors who want no motion: colours in the middle of a transition would be taken for low contrast.
        still = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        tab.send("Emulation.setEmulatedMedia", features=still)
        yield tab


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS, ids=IDS)
@pytest.mark.parametrize("show", STATES)
def test_axe_finds_no_barrier(
    browser: Browser, server: Running, picture: Path, axe_script: str, look: Any, show: Callable[[Tab, Path], None]
) -> None:
    with looking(browser, look) as tab:
        show(opened(tab, server.url), picture)
        assert axe.findings(tab, axe_script) == []
        assert tab.run("document.documentElement.scrollWidth") == look[0][0]


@pytest.mark.slow
def test_axe_finds_barriers_that_are_put_in(tab: Tab, server: Running, axe_script: str) -> None:
    """The findings above are empty because of the page, and not because nothing was looked at."""
    opened(tab, server.url)
    tab.run("""(() => {
      document.querySelector("label[for=threshold]").remove();
      document.querySelector("#threshold").title = "";
      Object.assign(document.querySelector("#recorded").style, { color: "#999", background: "#aaa" });
      document.querySelector("main").append(document.createElement("img"));
    })()""")
    found = {it["id"]: it["impact"] for it in axe.findings(tab, axe_script)}
    assert {"label", "color-contrast", "image-alt"} <= found.keys()
    assert {"serious", "critical"} <= set(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS, ids=IDS)
def test_axe_finds_no_barrier_where_the_server_asks_for_a_key(
    browser: Browser, models_dir: Path, axe_script: str, look: Any
) -> None:
    settings = Settings(models_dir=models_dir, api_keys=SecretStr("page:page-key-0123456789"))
    with serving(settings) as guarded, looking(browser, look) as tab:
        tab.open(guarded.url + "/").wait_for("!document.querySelector('#key-form').hidden")
        assert axe.findings(tab, axe_script) == []


@pytest.mark.slow
@needs_sources
@pytest.mark.parametrize("look", LOOKS, ids=IDS)
def test_axe_finds_no_barrier_in_tiles(browser: Browser, models_dir: Path, axe_script: str, look: Any) -> None:
    pytest.importorskip("av", reason="needs the extra `video`")
    options: dict[str, Any] = {"models_dir": models_dir, "source_hosts": ("127.0.0.1",)}
    with serving(Settings(**options)) as running, filming() as camera, looking(browser, look) as tab:
        opened(tab, running.url).click("#sources summary")
        add(tab, camera.url, "Hall")
        tab.wait_for(f"{STATE} === 'Running'")
        assert axe.findings(tab, axe_script) == []
        camera.switch(on=False)
        tab.wait_for("document.querySelector('.tile .fault').textContent.length > 10")
        assert axe.findings(tab, axe_script) == []
        tab.click(".tile .buttons button:last-child")
        assert axe.findings(tab, axe_script, min_rules=8) == [], "the dialog, beside which nothing can be reached"


def test_the_keyboard_reaches_everything_with_a_visible_focus(tab: Tab, server: Running, picture: Path) -> None:
    opened(tab, server.url)
    for panel in ("legend", "code", "sources"):
        tab.run(f"document.querySelector('#{panel}').open = true")
    show_photo(tab, picture)
    tab.run("document.activeElement.blur(); scrollTo(0, 0)")
    seen: list[dict[str, Any]] = []
    while len(seen) < 60:
        tab.press("Tab", 9)
        focused = tab.run(FOCUSED)
        if focused["tag"] == "BODY":
            break
        seen.append(focused)
    assert [it for it in seen if it["outline"] != "solid" or it["px"] < 2 or it["area"] < 20] == []
    ids = {it["id"] for it in seen}
    wanted = {
        "camera",
        "file",
        "add-box",
        "camera-choice",
        "student",
        "min-score",
        "threshold",
        "max-people",
        "show-boxes",
    }
    assert (
        wanted | {"Keypoints", "keypoints", "save-json", "Code", "curl", "copy", "snippet", "Sources on the server"}
        <= ids
    )
    assert len(seen) < 60, "the focus goes round"


def test_people_are_announced_once_and_not_in_every_frame(tab: Tab, server: Running) -> None:
    opened(tab, server.url)
    tab.run("""(() => { window.said = [];
      const region = document.querySelector("#announce");
      new MutationObserver(() => said.push(region.textContent)).observe(region, { childList: true });
    })()""")
    tab.click("#camera")
    tab.wait_for("said.length && Number(document.querySelector('#answered').textContent) >= 20")
    assert tab.run("said") == ["Found 1 person."]
    assert tab.run("document.querySelector('#announce').getAttribute('role')") == "status"


@pytest.mark.slow
def test_nothing_moves_for_visitors_who_want_no_motion(browser: Browser, server: Running, picture: Path) -> None:
    with looking(browser, LOOKS[0]) as tab:
        show_photo(opened(tab, server.url), picture)
        tab.click("#legend summary")
        tab.wait_for("document.querySelector('#stages .bar i')")
        assert tab.run("document.getAnimations().length") == 0


def test_nothing_is_cut_off_at_400_percent(browser: Browser, server: Running, picture: Path) -> None:
    """A window of 1280 px that is enlarged four times: WCAG 2.2, success criterion 1.4.10."""
    with browser.tab((320, 256)) as tab:
        show_photo(opened(tab, server.url), picture)
        for panel in ("legend", "code", "sources"):
            tab.run(f"document.querySelector('#{panel}').open = true")
        tab.click("#languages input[value=python]")
        assert tab.run("document.documentElement.scrollWidth") == 320
        wide = "[...document.querySelectorAll('button, input, select, label, h2, p')].filter((it) => "
        wide += "it.getBoundingClientRect().right > 321).map((it) => it.outerHTML.slice(0, 80))"
        assert tab.run(wide) == []


@pytest.mark.slow
def test_every_control_has_an_accessible_name(tab: Tab, server: Running, tmp_path: Path) -> None:
    photo = tmp_path / "portrait.jpg"
    photo.write_bytes(spots.encode(skimage.data.astronaut(), "JPEG"))
    opened(tab, server.url)
    for panel in ("legend", "code", "sources"):
        tab.run(f"document.querySelector('#{panel}').open = true")
    tab.choose("#file", photo)
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "radio", "combobox", "checkbox", "listbox", "option", "textbox", "DisclosureTriangle"}
    controls = [it for it in nodes if it.get("role", {}).get("value") in roles and not it.get("ignored")]
    assert len(controls) >= 35
    assert [it for it in controls if not it["name"]["value"].strip()] == []
