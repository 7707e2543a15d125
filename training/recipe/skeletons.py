"""Skeletons as TOML files, read and written.

    name = "hand5"
    keypoints = ["wrist", "left_tip", "right_tip"]
    edges = [["wrist", "left_tip"], ["wrist", "right_tip"]]
    flip = [["left_tip", "right_tip"]]
    upper = []
    sigmas = { wrist = 0.05 }

Only ``name`` and ``keypoints`` are required. Without ``flip``, ``left_X`` and ``right_X`` are partners. A keypoint that
is missing in ``sigmas`` has COCO's value if COCO has a keypoint of that name, else `SIGMA`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.pose.skeleton import COCO17, Skeleton
from training.files import read_text


class SkeletonError(ValueError):
    """A skeleton's TOML is not valid; the message names the file and the key."""


SIGMA = 0.072
"""Default sigma: the median of COCO's seventeen."""
_KEYS = ("name", "keypoints", "edges", "flip", "upper", "sigmas")


def load(path: Path) -> Skeleton:
    """Read a skeleton's TOML file.

    Raises:
        SkeletonError: The file is missing, is not TOML, or does not describe a skeleton.
    """
    try:
        tree = tomllib.loads(read_text(path))
    except OSError as error:
        raise SkeletonError(f"{path}: expected a skeleton's TOML, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SkeletonError(f"{path}: not valid TOML: {error}") from error
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Skeleton:
    """Turn the content of a TOML file into a skeleton; ``origin`` is the file's name in errors.

    Raises:
        SkeletonError: A key is unknown or missing, a keypoint is unknown, or a value has the wrong type.
    """
    unknown = [key for key in tree if key not in _KEYS]
    if unknown:
        raise SkeletonError(f"{origin}: {unknown[0]}: unknown key; expected {', '.join(_KEYS)}")
    name = tree.get("name")
    if not isinstance(name, str):
        raise SkeletonError(f'{origin}: name: expected text such as "hand21", got {name!r}')
    keypoints = _names(tree.get("keypoints"), origin, "keypoints", None)
    places = {keypoint: k for k, keypoint in enumerate(keypoints)}
    edges, flips = (_pairs(tree.get(key, []), origin, key, places) for key in ("edges", "flip"))
    upper = _names(tree.get("upper", []), origin, "upper", places)
    flip = _partners(flips, keypoints, origin) if "flip" in tree else by_sides(keypoints)
    try:
        made = Skeleton(
            name, keypoints, edges, flip, _sigmas(tree.get("sigmas", {}), keypoints, origin),
            tuple(places[keypoint] for keypoint in upper),
        )  # fmt: skip
    except ValueError as error:
        raise SkeletonError(f"{origin}: {error}") from error
    if name == COCO17.name and made != COCO17:
        raise SkeletonError(f"{origin}: name: {name!r} is COCO's own skeleton; choose another name")
    return made


def by_sides(keypoints: Sequence[str]) -> tuple[int, ...]:
    """Return mirror partners by name: ``left_X`` and ``right_X`` are a pair, other keypoints their own partners."""
    places = {name: k for k, name in enumerate(keypoints)}
    return tuple(places.get(_other_side(name), k) for k, name in enumerate(keypoints))


def usual_sigmas(keypoints: Sequence[str]) -> tuple[float, ...]:
    """Return sigmas by name: COCO's value if COCO has the name, else `SIGMA`."""
    known = dict(zip(COCO17.keypoints, COCO17.sigmas, strict=True))
    return tuple(known.get(name, SIGMA) for name in keypoints)


def to_toml(skeleton: Skeleton) -> str:
    """Return a skeleton as the text of a TOML file that `load` reads."""
    names = skeleton.keypoints
    edges = [[names[a], names[b]] for a, b in skeleton.edges]
    flip = [[names[k], names[other]] for k, other in enumerate(skeleton.flip) if k < other]
    lines = [f"name = {json.dumps(skeleton.name)}", *_block("keypoints", list(names)), *_block("edges", edges)]
    lines += [*_block("flip", flip), *_block("upper", [names[k] for k in skeleton.upper]), "", "[sigmas]"]
    lines += [f"{json.dumps(name)} = {sigma:g}" for name, sigma in zip(names, skeleton.sigmas, strict=True)]
    return "\n".join([*lines, ""])


def _block(key: str, values: list[Any]) -> list[str]:
    return [f"{key} = [", *(f"    {json.dumps(value)}," for value in values), "]"] if values else [f"{key} = []"]


def _other_side(name: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


def _names(value: Any, origin: str, key: str, known: dict[str, int] | None) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SkeletonError(f"{origin}: {key}: expected a list of keypoints' names, got {value!r}")
    for name in value:
        if known is not None and name not in known:
            raise SkeletonError(f"{origin}: {key}: expected one of {', '.join(known)}, got {name!r}")
    return tuple(value)


def _pairs(value: Any, origin: str, key: str, places: dict[str, int]) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list):
        raise SkeletonError(f"{origin}: {key}: expected a list of pairs of names, got {value!r}")
    found = []
    for i, pair in enumerate(value):
        first, *rest = _names(pair, origin, f"{key}[{i}]", places) or ("",)
        if len(rest) != 1 or rest[0] == first:
            raise SkeletonError(f"{origin}: {key}[{i}]: expected two different keypoints, got {pair!r}")
        found.append((places[first], places[rest[0]]))
    return tuple(found)


def _partners(pairs: tuple[tuple[int, int], ...], keypoints: tuple[str, ...], origin: str) -> tuple[int, ...]:
    partners = list(range(len(keypoints)))
    for a, b in pairs:
        for k in (a, b):
            if partners[k] != k:
                raise SkeletonError(f"{origin}: flip: expected each keypoint in one pair, got {keypoints[k]!r} in two")
        partners[a], partners[b] = b, a
    return tuple(partners)


def _sigmas(value: Any, keypoints: tuple[str, ...], origin: str) -> tuple[float, ...]:
    numbers = value.values() if isinstance(value, dict) else [None]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise SkeletonError(f"{origin}: sigmas: expected a table such as {{ wrist = 0.05 }}, got {value!r}")
    _names(list(value), origin, "sigmas", {name: k for k, name in enumerate(keypoints)})
    usual = dict(zip(keypoints, usual_sigmas(keypoints), strict=True))
    return tuple(float(sigma) for sigma in (usual | value).values())
