"""Render a data set in one or more processes.

Each picture has its own files, so an interrupted run can be resumed. The pictures depend only on the options.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from training import files
from training.data.images import SUFFIXES
from training.synthetic.body import makehuman
from training.synthetic.body.makehuman import SyntheticError

if TYPE_CHECKING:
    from training.synthetic.scene.scene import Picture, RenderSettings

SETTINGS = "render.json"
IDENTITIES = 1_000_000
TRIED = 4
"""Number of pictures that a dry run renders to estimate time and disk space."""
FRAMINGS = ("scene", "crop")


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """The options of one call of the subcommand `render`; `docs/synthetic.md` explains each of them.

    Attributes:
        out: Folder that receives the data set.
        count: Number of pictures, or of frames of a clip.
        seed: Seed of all random choices except those that belong to an identity.
        size: (width, height) in px.
        people: (minimum, maximum) number of people in a picture.
        framing: ``scene`` shows people in a place; ``crop`` fills the picture with one person.
        identities: (first, last) identity that may appear, both inclusive.
        samples: Samples per pixel along each axis.
        masks: Whether the annotations contain segmentation masks.
        backgrounds: Folder of background photos, or None for generated backgrounds.
        processes: Number of processes that render.
        clip: Kind of clip, a key of `clip.KINDS`, or "" for independent pictures.
        fps: Frames per second of a clip.
    """

    out: Path
    count: int
    seed: int = 0
    size: tuple[int, int] = (640, 480)
    people: tuple[int, int] = (1, 4)
    framing: str = "scene"
    identities: tuple[int, int] = (0, 9999)
    samples: int = 2
    masks: bool = False
    backgrounds: Path | None = None
    processes: int = 1
    clip: str = ""
    fps: float = 25.0


def build(request: RenderRequest) -> Path:
    """Render the missing pictures, write ``annotations.json`` and return its path.

    Raises:
        SyntheticError: An option is invalid, a package is missing, or the folder holds a data set with other options.
    """
    check(request)
    _claim(request)
    missing = _missing(request)
    progress = tqdm(
        _render_all(request, missing), total=request.count, initial=request.count - len(missing), unit="picture"
    )
    for _ in progress:
        pass
    return _collect(request)


def forecast(request: RenderRequest) -> str:
    """Render a few pictures and estimate the time and disk space for all of them, without writing a file.

    Raises:
        SyntheticError: An option is invalid or a package is missing.
    """
    check(request)
    missing = _missing(request)
    warm(request)
    began = time.perf_counter()
    sizes = [len(_draw(request, number).jpeg) for number in missing[:TRIED]]
    seconds = (time.perf_counter() - began) / max(1, len(sizes)) * len(missing) / request.processes
    size = sum(sizes) / max(1, len(sizes)) * len(missing) / 1e6
    return (
        f"{request.out}: {request.count:,} pictures of {request.size[0]} x {request.size[1]} px, of which "
        f"{request.count - len(missing):,} are there\n"
        f"time: about {seconds / 60:.1f} minutes in {request.processes} process(es), by {len(sizes)} pictures\n"
        f"disk: about {size:,.1f} MB, {files.free(request.out) / 1e6:,.0f} MB are free\n"
        "nothing was written"
    )


def _missing(request: RenderRequest) -> list[int]:
    """List the numbers of the pictures that have no label file yet."""
    return [k for k in range(1, request.count + 1) if not _label_path(request.out, k).is_file()]


def check(request: RenderRequest) -> None:
    """Check the options and the installed packages before anything is written.

    Raises:
        SyntheticError: An option is out of range or contradicts another one, or a package is missing.
    """
    limits = (
        ("--count", request.count, 1, 10_000_000),
        ("--seed", request.seed, 0, 2**63),
        ("--processes", request.processes, 1, 256),
        ("--samples", request.samples, 1, 4),
        ("--size: width", request.size[0], 32, 4096),
        ("--size: height", request.size[1], 32, 4096),
        ("--people: fewest", request.people[0], 0, 20),
        ("--people: most", request.people[1], max(request.people[0], 1), 20),
        ("--identities: first", request.identities[0], 0, IDENTITIES),
        ("--identities: last", request.identities[1], request.identities[0], IDENTITIES),
    )
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise SyntheticError(f"{name}: expected {low} to {high}, got {value}; change it")
    if request.framing not in FRAMINGS:
        raise SyntheticError(f"--framing: expected one of {', '.join(FRAMINGS)}, got {request.framing!r}; choose one")
    if request.framing == "crop" and request.people[0] < 1:
        raise SyntheticError("--people: expected at least one person for --framing crop, got 0; ask for 1 or more")
    room = request.identities[1] - request.identities[0] + 1
    if room < request.people[1]:
        raise SyntheticError(
            f"--identities: expected at least as many people as --people asks for ({request.people[1]}), got {room};"
            " widen the range"
        )
    makehuman.data_folder()
    if importlib.util.find_spec("numba") is None:
        raise SyntheticError(
            "expected the package 'numba', which compiles the renderer, got none;"
            " install the extra: pip install '.[synthetic]' in posewright's folder"
        )
    photos(request.backgrounds)


def photos(folder: Path | None) -> tuple[Path, ...]:
    """List the photos in a folder and its subfolders, sorted by path; None yields an empty tuple.

    Raises:
        SyntheticError: The folder contains no photos.
    """
    if folder is None:
        return ()
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES))
    if not found:
        raise SyntheticError(
            f"--backgrounds: expected a folder with pictures ({', '.join(sorted(SUFFIXES))}), got none in {folder}; "
            "check the path"
        )
    return found


def settings_of(request: RenderRequest) -> RenderSettings:
    """Derive the settings that all pictures of a request share."""
    from training.synthetic.scene.scene import RenderSettings  # noqa: PLC0415 (numba is slow to import)

    return RenderSettings(
        request.seed, request.size, request.people, request.framing, request.identities, request.samples, request.masks,
        photos(request.backgrounds),
    )  # fmt: skip


def _claim(request: RenderRequest) -> None:
    """Save the options in the folder, or check that an existing data set was rendered with the same ones.

    Raises:
        SyntheticError: The folder holds a data set with other options, or one that this program did not render.
    """
    for partial in [path for folder in ("images", "labels") for path in (request.out / folder).glob(".*.partial")]:
        partial.unlink()  # A killed process left this file.
    settings = asdict(request)
    for name in ("out", "processes", *(() if request.clip else ("count", "fps", "clip"))):
        del settings[name]
    settings["backgrounds"] = [path.name for path in photos(request.backgrounds)]
    settings = json.loads(json.dumps(settings))
    path = request.out / SETTINGS
    if not path.is_file():
        if (request.out / "annotations.json").exists():
            raise SyntheticError(
                f"{request.out}: expected an empty folder, got a data set of another origin; choose another"
            )
        files.write(path, json.dumps(settings, indent=1).encode())
        return
    before = json.loads(path.read_text())
    changed = [name for name in sorted(settings.keys() | before.keys()) if settings.get(name) != before.get(name)]
    if changed:
        raise SyntheticError(
            f"{request.out}: expected the options that its pictures were rendered with, got another"
            f" {', '.join(changed)}; choose another folder, or delete this one"
        )


def _render_all(request: RenderRequest, missing: list[int]) -> Iterator[int]:
    """Render pictures in this process or in several, and yield the number of each finished picture."""
    if request.processes == 1 or len(missing) < 2:
        _start(request)
        yield from map(_render_one, missing)
        return
    warm(request)  # This process compiles the renderer; the workers load the compiled code from the cache.
    context = multiprocessing.get_context("spawn")
    with contextlib.closing(context.Pool(request.processes, _start, (request,))) as pool:
        yield from pool.imap_unordered(_render_one, missing)
    pool.join()


_request: RenderRequest | None = None


def _start(request: RenderRequest) -> None:
    """Prepare this process to render the pictures of a request."""
    global _request  # noqa: PLW0603 (the workers of a pool keep their request in a global)
    import cv2  # noqa: PLC0415

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    cv2.setNumThreads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _request = request


def _end_with(parent: int) -> None:
    """End this worker process when its parent ends, because a killed parent cannot stop its workers.

    Args:
        parent: Sentinel of the parent process, see `multiprocessing.Process.sentinel`.
    """
    multiprocessing.connection.wait([parent])
    os._exit(1)


def warm(request: RenderRequest) -> None:
    """Compile the renderer by rendering one small picture."""
    from training.synthetic.scene import scene  # noqa: PLC0415

    small = RenderRequest(request.out, 1, size=(48, 48), people=(1, 1), samples=1)
    scene.render(settings_of(small), 0)


def _render_one(number: int) -> int:
    """Render one picture and return its number.

    The labels are written after the image, so a picture that was interrupted has no labels and is rendered again.
    """
    request = _request
    assert request is not None
    picture = _draw(request, number)
    files.write(request.out / "images" / _name(number), picture.jpeg)
    files.write(_label_path(request.out, number), json.dumps(picture.people).encode())
    return number


def _draw(request: RenderRequest, number: int) -> Picture:
    """Render a picture, or a frame of a clip, in memory."""
    from training.synthetic.scene import clip, scene  # noqa: PLC0415

    settings = settings_of(request)
    if request.clip:
        return clip.render(settings, request.clip, number, request.count, request.fps)
    return scene.render(settings, number)


def _collect(request: RenderRequest) -> Path:
    """Write ``annotations.json`` in COCO format from the label files of all pictures, and return its path."""
    from training.synthetic.render.labels import CATEGORY  # noqa: PLC0415

    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(1, request.count + 1):
        width, height = request.size
        image = {"id": number, "file_name": _name(number), "width": width, "height": height, "official_complete": True}
        images.append(image | ({"frame": number, "timestamp_s": (number - 1) / request.fps} if request.clip else {}))
        for person in json.loads(_label_path(request.out, number).read_text()):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **person})
    info = {
        "description": "Rendered by posewright-train render",
        "seed": request.seed,
        "identities": request.identities,
    }
    content = {"info": info, "images": images, "annotations": annotations, "categories": [CATEGORY]}
    path = request.out / "annotations.json"
    files.write(path, json.dumps(content).encode())
    return path


def _name(number: int) -> str:
    """Return the file name of a picture."""
    return f"{number:08d}.jpg"


def _label_path(out: Path, number: int) -> Path:
    """Return the path of a picture's label file."""
    return out / "labels" / f"{number:08d}.json"
