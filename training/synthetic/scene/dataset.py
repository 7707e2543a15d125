"""Render a set of pictures: several processes, one file a picture, resumable, always the same."""

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
from training.synthetic.body import makehuman
from training.synthetic.body.makehuman import SyntheticError

if TYPE_CHECKING:
    from training.synthetic.scene.scene import Look, Picture

SETTINGS = "render.json"
IDENTITIES = 1_000_000
TRIED = 4
"""Pictures that a dry run draws."""
FRAMINGS = ("scene", "crop")
PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for; see `docs/synthetic.md` for every option.

    Attributes:
        out: Folder to write.
        count: Pictures, or frames of a clip.
        seed: Of everything that is drawn by chance.
        size: (width, height) in px.
        people: (fewest, most) a picture.
        framing: ``scene`` or ``crop``.
        identities: (first, last) number of the people.
        finer: Samples a pixel along each axis.
        masks: Whether annotations carry segmentations.
        backgrounds: Folder of photos, or None.
        processes: Processes that render.
        clip: Kind of a clip, or "" for single pictures.
        fps: Frames a second of a clip.
    """

    out: Path
    count: int
    seed: int = 0
    size: tuple[int, int] = (640, 480)
    people: tuple[int, int] = (1, 4)
    framing: str = "scene"
    identities: tuple[int, int] = (0, 9999)
    finer: int = 2
    masks: bool = False
    backgrounds: Path | None = None
    processes: int = 1
    clip: str = ""
    fps: float = 25.0


def build(order: Order) -> Path:
    """Render what is missing, then write ``annotations.json``; returns its path.

    Raises:
        SyntheticError: The order cannot be met, a package is missing, or the folder holds a set of other settings.
    """
    check(order)
    _claim(order)
    missing = _missing(order)
    progress = tqdm(_render_all(order, missing), total=order.count, initial=order.count - len(missing), unit="picture")
    for _ in progress:
        pass
    return _collect(order)


def forecast(order: Order) -> str:
    """Draw a few of the pictures and say what all will take; writes nothing.

    Raises:
        SyntheticError: As `build`'s.
    """
    check(order)
    missing = _missing(order)
    warm(order)
    began = time.perf_counter()
    sizes = [len(_draw(order, number).jpeg) for number in missing[:TRIED]]
    seconds = (time.perf_counter() - began) / max(1, len(sizes)) * len(missing) / order.processes
    size = sum(sizes) / max(1, len(sizes)) * len(missing) / 1e6
    return (
        f"{order.out}: {order.count:,} pictures of {order.size[0]} x {order.size[1]} px, of which "
        f"{order.count - len(missing):,} are there\n"
        f"time: about {seconds / 60:.1f} minutes in {order.processes} process(es), by {len(sizes)} pictures\n"
        f"disk: about {size:,.1f} MB, {files.free(order.out) / 1e6:,.0f} MB are free\n"
        "nothing was written"
    )


def _missing(order: Order) -> list[int]:
    return [k for k in range(1, order.count + 1) if not _label_path(order.out, k).is_file()]


def check(order: Order) -> None:
    """Refuse options that are out of range or do not fit together."""
    limits = (
        ("--count", order.count, 1, 10_000_000),
        ("--seed", order.seed, 0, 2**63),
        ("--processes", order.processes, 1, 256),
        ("--samples", order.finer, 1, 4),
        ("--size: width", order.size[0], 32, 4096),
        ("--size: height", order.size[1], 32, 4096),
        ("--people: fewest", order.people[0], 0, 20),
        ("--people: most", order.people[1], max(order.people[0], 1), 20),
        ("--identities: first", order.identities[0], 0, IDENTITIES),
        ("--identities: last", order.identities[1], order.identities[0], IDENTITIES),
    )
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise SyntheticError(f"{name}: expected {low} to {high}, got {value}; change it")
    if order.framing not in FRAMINGS:
        raise SyntheticError(f"--framing: expected one of {', '.join(FRAMINGS)}, got {order.framing!r}; choose one")
    if order.framing == "crop" and order.people[0] < 1:
        raise SyntheticError("--people: expected at least one person for --framing crop, got 0; ask for 1 or more")
    room = order.identities[1] - order.identities[0] + 1
    if room < order.people[1]:
        raise SyntheticError(
            f"--identities: expected at least as many people as --people asks for ({order.people[1]}), got {room};"
            " widen the range"
        )
    makehuman.data_folder()
    if importlib.util.find_spec("numba") is None:
        raise SyntheticError(
            "expected the package 'numba', which compiles the renderer, got none;"
            " install the extra: pip install '.[synthetic]' in posewright's folder"
        )
    photos(order.backgrounds)


def photos(folder: Path | None) -> tuple[Path, ...]:
    """List the pictures of a folder, sorted.

    Raises:
        SyntheticError: There are none.
    """
    if folder is None:
        return ()
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTOS))
    if not found:
        raise SyntheticError(
            f"--backgrounds: expected a folder with {', '.join(PHOTOS)} pictures, got none in {folder}; check the path"
        )
    return found


def look_of(order: Order) -> Look:
    """Return what all pictures of an order have in common."""
    from training.synthetic.scene.scene import Look  # noqa: PLC0415 (numba takes a second: errors come first)

    return Look(
        order.seed, order.size, order.people, order.framing, order.identities, order.finer, order.masks,
        photos(order.backgrounds),
    )  # fmt: skip


def _claim(order: Order) -> None:
    """Save the options in the folder, or refuse a folder that was rendered with others."""
    for partial in [path for folder in ("images", "labels") for path in (order.out / folder).glob(".*.partial")]:
        partial.unlink()  # left by a killed process
    settings = asdict(order)
    for name in ("out", "processes", *(() if order.clip else ("count", "fps", "clip"))):
        del settings[name]
    settings["backgrounds"] = [path.name for path in photos(order.backgrounds)]
    settings = json.loads(json.dumps(settings))
    path = order.out / SETTINGS
    if not path.is_file():
        if (order.out / "annotations.json").exists():
            raise SyntheticError(
                f"{order.out}: expected an empty folder, got a data set of another origin; choose another"
            )
        files.write(path, json.dumps(settings, indent=1).encode())
        return
    before = json.loads(path.read_text())
    changed = [name for name in sorted(settings.keys() | before.keys()) if settings.get(name) != before.get(name)]
    if changed:
        raise SyntheticError(
            f"{order.out}: expected the options that its pictures were rendered with, got another"
            f" {', '.join(changed)}; choose another folder, or delete this one"
        )


def _render_all(order: Order, missing: list[int]) -> Iterator[int]:
    """Render pictures in this process, or in several; yields their numbers as they are done."""
    if order.processes == 1 or len(missing) < 2:
        _start(order)
        yield from map(_render_one, missing)
        return
    warm(order)  # one process compiles, the others read what it compiled
    context = multiprocessing.get_context("spawn")
    with contextlib.closing(context.Pool(order.processes, _start, (order,))) as pool:
        yield from pool.imap_unordered(_render_one, missing)
    pool.join()


_order: Order | None = None


def _start(order: Order) -> None:
    """Prepare this process to render pictures of an order."""
    global _order  # noqa: PLW0603 (a pool's workers hold their task in a global)
    import cv2  # noqa: PLC0415

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    cv2.setNumThreads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _order = order


def _end_with(parent: int) -> None:
    """End this worker when its parent process ends; a parent that is killed cannot stop its workers itself."""
    multiprocessing.connection.wait([parent])
    os._exit(1)


def warm(order: Order) -> None:
    """Compile the renderer."""
    from training.synthetic.scene import scene  # noqa: PLC0415

    small = Order(order.out, 1, size=(48, 48), people=(1, 1), finer=1)
    scene.render(look_of(small), 0)


def _render_one(number: int) -> int:
    """Render one picture; its labels are written last, so that a picture without them is rendered again."""
    order = _order
    assert order is not None
    picture = _draw(order, number)
    files.write(order.out / "images" / _name(number), picture.jpeg)
    files.write(_label_path(order.out, number), json.dumps(picture.people).encode())
    return number


def _draw(order: Order, number: int) -> Picture:
    from training.synthetic.scene import clip, scene  # noqa: PLC0415

    look = look_of(order)
    if order.clip:
        return clip.render(look, order.clip, number, order.count, order.fps)
    return scene.render(look, number)


def _collect(order: Order) -> Path:
    from training.synthetic.render.labels import CATEGORY  # noqa: PLC0415

    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(1, order.count + 1):
        width, height = order.size
        image = {"id": number, "file_name": _name(number), "width": width, "height": height, "official_complete": True}
        images.append(image | ({"frame": number, "timestamp_s": (number - 1) / order.fps} if order.clip else {}))
        for person in json.loads(_label_path(order.out, number).read_text()):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **person})
    info = {"description": "Rendered by posewright-train render", "seed": order.seed, "identities": order.identities}
    content = {"info": info, "images": images, "annotations": annotations, "categories": [CATEGORY]}
    path = order.out / "annotations.json"
    files.write(path, json.dumps(content).encode())
    return path


def _name(number: int) -> str:
    return f"{number:08d}.jpg"


def _label_path(out: Path, number: int) -> Path:
    return out / "labels" / f"{number:08d}.json"
