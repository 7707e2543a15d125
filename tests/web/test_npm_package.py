"""The browser client as an npm package: packed, installed by a TypeScript project, and run in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from service.settings import Settings
from tests import manuals, spots
from tests.client.hosts import free_address, hosting
from tests.conftest import serving
from tests.web import axe, npm
from tests.web.chrome import Tab

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "browser"
EXAMPLE = PACKAGE / "examples" / "local.html"
IMPORT_MAP = EXAMPLE.read_text().partition('<script type="importmap">')[2].partition("</script>")[0]

MAIN = """
import * as ort from "onnxruntime-web";
import { COLORS, draw, Posewright, PosewrightError, sideOf } from "posewright-client";
import type { Keypoint, Prediction, Retries, ServerSource, SourceOptions } from "posewright-client";
import { local, type LocalPosewright } from "posewright-client/local";

const retries: Retries = { attempts: 2 };
const server = new Posewright(location.hash.slice(1), { retries });

async function nose(posewright: Posewright | LocalPosewright, picture: Blob): Promise<Keypoint | undefined> {
  const { poses, image }: Prediction = await posewright.predict(picture, { maxPeople: 1, keypointThreshold: 0.5 });
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  if (context) draw(context, poses, { image });
  return poses[0]?.keypoints.find((it) => it.name === "nose");
}

/** Compiled, to check its types; tests/web/test_page_sources.py watches sources. */
export async function watch(url: string, onto: OffscreenCanvasRenderingContext2D): Promise<ServerSource> {
  const options: SourceOptions = { maxPeople: 2 };
  const { id } = await server.sources.add(url, { name: "Hall", options });
  for await (const { picture, poses, image, ageMs } of server.sources.view(id)) {
    if (picture) onto.drawImage(picture, 0, 0);
    draw(onto, poses, { image, highlight: "nose", colors: COLORS });
    picture?.close();
    if (ageMs > 100 || sideOf("left_eye") === "right") break;
  }
  return server.sources.get(id);
}

export async function run(url: string) {
  const picture = await (await fetch(url)).blob();
  const entries = await server.predictBatch([picture, new Blob(["no picture"], { type: "image/png" })]);
  const slugs = entries.map((it) => (it instanceof PosewrightError ? it.slug : it.model.name));
  // @ts-expect-error: there is no such option
  const wrong = () => server.predict(picture, { minimumScore: 1 });
  ort.env.wasm.numThreads = 1;
  const here = await local({ ort, models: new URL("models/", location.hash.slice(1)) });
  const noses = [await nose(server, picture), await nose(here, picture)];
  return { slugs, ready: await server.ready(), noses, wrong: typeof wrong };
}

Object.assign(globalThis, { run });
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, checked, built and packed in a copy of its folder."""
    folder = tmp_path_factory.mktemp("package") / "browser"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules", "types"))
    npm.install(folder)
    checked = npm.npm(folder, "run", "check")
    assert checked.returncode == 0, checked.stdout
    packed = npm.npm(folder, "pack", "--json")
    assert packed.returncode == 0, packed.stdout + packed.stderr
    (made,) = folder.glob("*.tgz")
    return made


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that depends on the package, compiled strictly."""
    folder = tmp_path_factory.mktemp("project")
    npm.install(folder, str(tarball), npm.TYPESCRIPT, npm.ONNXRUNTIME_WEB)
    (folder / "main.ts").write_text(MAIN)
    (folder / "index.html").write_text(
        '<!doctype html><link rel="icon" href="data:,">'
        f'<script type="importmap">{IMPORT_MAP}</script><script type="module" src="main.js"></script>'
    )
    shutil.copyfile(EXAMPLE, folder / "local.html")
    shutil.copytree(ROOT / "service" / "models", folder / "models")
    (folder / "photo.png").write_bytes(spots.encode(np.asarray(skimage.data.astronaut(), np.uint8)))
    return folder


def compile_strictly(project: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    settings = {
        "strict": True, "exactOptionalPropertyTypes": True, "noUncheckedIndexedAccess": True, "target": "es2022",
        "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"], "types": [], "rootDir": ".",
    }  # fmt: skip
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": settings | options, "files": ["main.ts"]}))
    tsc = project / "node_modules" / ".bin" / "tsc"
    return subprocess.run([tsc, "--project", project], capture_output=True, text=True, check=False)


@pytest.fixture
def shown(project: Path, tab: Tab) -> Iterator[tuple[Tab, str, str]]:
    """A tab, the address of the project's pages, and that of a server that allows them."""
    address = free_address()
    app = Starlette(routes=[Mount("/", StaticFiles(directory=project, html=True))])
    settings = Settings(serve_bundles=True, cors_origins=(address,))
    with hosting(app, port=int(address.rpartition(":")[2])), serving(settings) as server:
        yield tab, address, server.url


def test_the_package_holds_modules_types_and_licence_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as packed:
        names = {it.name.removeprefix("package/") for it in packed.getmembers()}
    sources = {str(it.relative_to(PACKAGE)) for it in PACKAGE.glob("src/**/*.js")}
    types = {it.replace("src/", "types/").replace(".js", ".d.ts") for it in sources}
    assert names == sources | types | {"package.json", "README.md", "LICENSE"}


def test_the_types_of_the_servers_page_are_correct(tarball: Path, tmp_path: Path) -> None:
    """With the browser client beside it, as the server serves them."""
    web = ROOT / "service" / "web"
    shutil.copytree(web, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("posewright*.js"))
    shutil.copytree(PACKAGE / "src", tmp_path / "browser")
    options = json.loads((PACKAGE / "tsconfig.json").read_text())["compilerOptions"]
    options |= {"noEmit": True, "declaration": False, "emitDeclarationOnly": False, "rootDir": "."}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["**/*.js"]}))
    tsc = tarball.parent / "node_modules" / ".bin" / "tsc"
    checked = subprocess.run([tsc, "--project", tmp_path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_version_is_that_of_the_project_and_nothing_else_is_needed() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (package["version"], package["license"]) == (project["version"], project["license"])
    assert not package.keys() & {"dependencies", "peerDependencies"}
    assert package["devDependencies"] == dict([npm.TYPESCRIPT.rsplit("@", 1)])
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "resolution",
    [{"module": "es2022", "moduleResolution": "bundler"}, {"module": "nodenext"}],
    ids=["bundler", "nodenext"],
)
def test_a_strict_project_compiles(project: Path, resolution: dict[str, Any]) -> None:
    (project / "package.json").write_text(
        json.dumps(json.loads((project / "package.json").read_text()) | {"type": "module"})
    )
    compiled = compile_strictly(project, **resolution)
    assert compiled.returncode == 0, compiled.stdout


def test_the_project_runs_in_a_browser(project: Path, shown: tuple[Tab, str, str]) -> None:
    assert compile_strictly(project, module="es2022", moduleResolution="bundler").returncode == 0
    tab, address, server = shown
    tab.open(f"{address}/#{server}", camera=None).wait_for("globalThis.run")
    got = tab.run("run('photo.png')")
    assert got["slugs"] == ["student-s", "undecodable-image"]
    assert (got["ready"], got["wrong"]) == (True, "function")
    there, here = got["noses"]
    assert there["visible"] is here["visible"] is True
    assert [here["x"], here["y"]] == pytest.approx([there["x"], there["y"]], abs=0.5)
    assert not tab.faults()


def test_the_readmes_local_mode_finds_the_person_of_an_image(project: Path, shown: tuple[Tab, str, str]) -> None:
    tab, address, server = shown
    (block,) = [it.text for it in manuals.blocks(PACKAGE / "README.md", "js") if "posewright-client/local" in it.text]
    imports, rest = block.replace("https://example.org/models/", f"{server}/models/").split("\n\n", 1)
    module = f"{imports}\nawait document.querySelector('img').decode();\n{rest}\nwindow.found = poses.length;"
    (project / "readme.html").write_text(
        '<!doctype html><link rel="icon" href="data:,">'
        f'<script type="importmap">{IMPORT_MAP}</script><img src="photo.png"><script type="module">{module}</script>'
    )
    assert tab.open(f"{address}/readme.html", camera=None).wait_for("window.found") == 1
    assert not tab.faults()


def test_the_example_page_finds_people_without_a_server(project: Path, shown: tuple[Tab, str, str]) -> None:
    tab, address, _ = shown
    tab.open(f"{address}/local.html", camera=None)
    tab.wait_for("document.querySelector('[role=status]').textContent.startsWith('Ready')")
    tab.choose("input", project / "photo.png")
    text = "document.querySelector('[role=status]').textContent"
    status = tab.wait_for(f"{text}.includes(' ms, ') && {text}")
    assert status.startswith("1 person in ")
    assert all(it.startswith((address, "blob:", "data:")) for it in tab.addresses())
    assert not tab.faults()


def test_axe_finds_no_barrier_on_the_example_page(project: Path, shown: tuple[Tab, str, str], tmp_path: Path) -> None:
    script = axe.script(tmp_path)
    tab, address, _ = shown
    tab.open(f"{address}/local.html", camera=None)
    tab.wait_for("document.querySelector('[role=status]').textContent.startsWith('Ready')")
    assert axe.findings(tab, script, min_rules=12) == []
    tab.choose("input", project / "photo.png")
    tab.wait_for("document.querySelector('[role=status]').textContent.includes(' ms, ')")
    assert axe.findings(tab, script, min_rules=12) == []
