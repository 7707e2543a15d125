"""What the manuals name exists: links, commands, options, settings, recipe keys, files, functions."""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from posewright_client.cli import main as client_cli
from service import cli as server_cli
from service.app import create_app
from service.cluster import __main__ as cluster_cli
from service.settings import Settings
from tests import manuals
from tests.manuals import DOCS, PAGES, ROOT
from training import __main__ as training_cli
from training.recipe import chain, recipe, reference, skeletons

PROGRAMS = ("posewright-serve", "posewright-serve-cluster", "posewright-train", "posewright-client")
NOT_OURS = {"--standalone", "--nproc-per-node", "--globoff", "--data-binary", "--retry", "--fail"}
"""Options of torchrun and curl."""
GONE = {
    "losses.forgiving",
    "--peers",
    "losses.guesses",
    "losses.fill",
    "losses.past",
    "losses.past_ramp",
    "network.fade",
}
"""Named as things that were tried or renamed: in the diary and the changelog."""
EXAMPLES = re.compile(r"(data|crops|runs|bundles|labelled|people|out|work|labels)/")
WHOLE = """
name = "whole"
role = "student"
network = { kind = "pose", backbone = "shuffle-s", input_size = [96, 128] }
phases = [{ steps = 1, batch = 2, size = [96, 128] }]
data = [{ name = "some", path = "crops/some", share = 1 }]
"""
every_page = pytest.mark.parametrize("page", PAGES, ids=manuals.name_of)


def parser_of(program: str, subcommand: str = "") -> argparse.ArgumentParser:
    """A program's parser that knows at least the options of one subcommand."""
    if program == "posewright-serve":
        return server_cli._parser()
    if program == "posewright-serve-cluster":
        return cluster_cli._parser()
    return training_cli.parser(subcommand) if program == "posewright-train" else client_cli._parser([subcommand])


@cache
def subcommands(program: str) -> tuple[str, ...]:
    found = [it.choices for it in parser_of(program)._actions if isinstance(it, argparse._SubParsersAction)]
    return tuple(found[0] or ()) if found else ("",)


@cache
def options(program: str, subcommand: str) -> frozenset[str]:
    parser = parser_of(program, subcommand)
    if subcommand:
        (nested,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
        parser = nested.choices[subcommand]
    return frozenset(option for action in parser._actions for option in action.option_strings)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in manuals.links(page):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if page in DOCS:
            assert path.is_relative_to(ROOT / "docs"), f"{target}: the site has the pages of docs/ alone"
        if anchor:
            assert anchor in manuals.anchors(path), target


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One: `two` & three\n\n[a](other.md#there) `[not](this)`\n```\n[nor](that)\n```\n")
    assert manuals.links(page) == ["other.md#there"]
    assert manuals.anchors(page) == {"one-two--three"}


def test_the_site_shows_every_page() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    shown: list[str] = []
    for entry in config["nav"]:
        for target in entry.values():
            shown += [target] if isinstance(target, str) else [page for sub in target for page in sub.values()]
    assert sorted(shown) == [page.name for page in DOCS]


@pytest.mark.parametrize("program", PROGRAMS)
def test_commands_are_understood(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for page in PAGES:
        for arguments in manuals.commands(page, program):
            try:
                parser_of(program, arguments[0] if arguments else "").parse_args(arguments)
            except SystemExit as stopped:
                said = capsys.readouterr().err
                raise AssertionError(f"{page.name}: {program} {' '.join(arguments)}: {said}") from stopped
            seen += 1
    least = {"posewright-serve": 5, "posewright-serve-cluster": 2, "posewright-train": 25, "posewright-client": 5}
    assert seen >= least[program]


@every_page
def test_inline_commands_and_options_exist(page: Path) -> None:
    """A code span that begins with a subcommand has its options alone; any other may name those of any program."""
    known = NOT_OURS.union(*(options(program, it) for program in PROGRAMS for it in subcommands(program)))
    train = subcommands("posewright-train")
    for code in manuals.inline_code(page):
        first = code.removeprefix("posewright-train ").split()[0]
        own = options("posewright-train", first) if first in train else known
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in own or option in GONE or code in GONE, f"{code}: {option}"
        for name in re.findall(r"posewright-train ([a-z][\w-]*)", code):
            assert name in train, name


@every_page
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    code = [*manuals.inline_code(page), *(it.text for it in manuals.blocks(page, "", "sh"))]
    for target in {name for it in code for name in re.findall(r"(?:^|\s)make ([a-z-]+)", it)}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@every_page
def test_python_blocks_compile(page: Path) -> None:
    for block in manuals.blocks(page, "python"):
        compile(block.text, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@every_page
def test_toml_blocks_are_recipes_chains_or_skeletons(page: Path, tmp_path: Path) -> None:
    for i, block in enumerate(manuals.blocks(page, "toml")):
        path = tmp_path / f"{i}.toml"
        tree = tomllib.loads(block.text)
        if "keypoints" in tree:
            path.write_text(block.text)
            skeletons.load(path)
        elif "stages" in tree:
            whole = tomllib.loads(WHOLE)
            stages = [chain.merge({"data": whole["data"], "phases": whole["phases"]}, it) for it in tree["stages"]]
            for stage in stages:
                stage["phases"] = [phase | {"size": stage["network"]["input_size"]} for phase in stage["phases"]]
                recipe.parse(stage, block.page)
        else:
            if isinstance(tree.get("skeleton"), str):
                tree.pop("skeleton")  # a file of the reader's
            recipe.parse(chain.merge(tomllib.loads(WHOLE), tree), block.page)


@every_page
def test_recipe_keys_exist(page: Path) -> None:
    known = set(re.findall(r"^\| `([\w.]+)` \|", reference.table(), flags=re.MULTILINE))
    settings = r"(?:losses|network|optimizer|phases|data)"
    for code in manuals.inline_code(page):
        for key in re.findall(rf"(?<![\w./]){settings}\.[a-z0-9_.]+\b", code):
            general = re.sub(r"\.\d+\.", ".N.", key)
            known_section = any(it.startswith(f"{general.rstrip('.')}.") for it in known)
            assert general in known or known_section or key in GONE or key.endswith((".yaml", ".npy")), key


@pytest.fixture(scope="module")
def routes() -> list[str]:
    """Patterns of the server's paths."""
    paths = create_app(Settings()).openapi()["paths"]
    return [re.sub(r"\{\w+\}", r"[\\w.-]+", path) for path in paths]


@every_page
def test_curl_paths_are_routes(page: Path, routes: list[str]) -> None:
    assert "/predict" in routes
    for block in manuals.blocks(page, "", "sh"):
        for path in re.findall(r"http://localhost:8000(/[\w/-]*)", block.text):
            assert any(re.fullmatch(pattern, path) for pattern in routes), path


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names what is gone, too
    for code in manuals.inline_code(page):
        for path in re.findall(r"(?<![\w/.])(?:service|training|tests|docs|clients)/[\w./-]+", code):
            if not EXAMPLES.match(path):
                assert (ROOT / path.rstrip("./")).exists(), f"{code}: {path}"


def test_benchmarks_that_are_run_exist_with_their_options() -> None:
    found = [it for page in PAGES for it in re.findall(r"python -m (tests\.[\w.]+)([^`\n]*)", page.read_text())]
    assert len(found) >= 3
    for module, arguments in found:
        place = ROOT / module.replace(".", "/")
        source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        for option in re.findall(r"--[\w-]+", arguments):
            assert f'"{option}"' in source, f"{module} {option}"


def test_architecture_names_functions_where_they_are() -> None:
    """Each row of a walk names a file and a function of it, and no walk returns to a file that it left."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    walks = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(walks) == 3
    for walk in walks:
        rows = re.findall(r"^\| \d+ \| `([\w/.]+)` \| `(\w+)` \|", walk, flags=re.MULTILINE)
        assert 8 <= len(rows) <= 12
        assert len({file for file, _ in rows}) == len(rows)
        for file, function in rows:
            tree = ast.parse((ROOT / file).read_text())
            defined = {it.name for it in ast.walk(tree) if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert function in defined, f"{file}: {function}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=manuals.name_of)
def test_words_are_those_of_the_field(page: Path) -> None:
    text = manuals.prose(page)
    for word in (r"finders?", r"shelf", r"verbs?", r"hush", r"guesses", r"farewell", r"sightings"):
        assert not re.search(rf"\b{word}\b", text, flags=re.IGNORECASE), word


def test_code_that_points_to_a_manual_points_to_one() -> None:
    sources = [path for folder in ("service", "training", "clients/python") for path in (ROOT / folder).rglob("*.py")]
    for source in sources:
        for name in re.findall(r"\bdocs/([\w-]+\.md)", source.read_text()):
            assert (ROOT / "docs" / name).exists(), f"{source}: docs/{name}"
        assert not re.search(r"(training/[A-Z]\w+\.md|YOUR_LABELS|ABLATION\.md|IMPORT\.md)", source.read_text()), source
