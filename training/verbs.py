"""What each verb of posewright-train does with its options."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import cv2
import torch

from service.pose import bundle
from service.pose.bundle import Bundle, BundleError
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner
from service.pose.skeleton import COCO17, Skeleton
from training import (
    ablate,
    adapt_verb,
    bench,
    chain,
    checkpoint,
    coco,
    crops,
    designs,
    evaluate,
    export,
    files,
    footage,
    foreign,
    guides,
    history,
    import_verb,
    labelling,
    loop,
    order,
    recipe,
    reference,
    report,
    skeletons,
    speed,
)
from training.datasets import check, convert, labelled, layouts, sheet
from training.datasets.layouts import Place
from training.finder_task import FinderTask
from training.pose_task import PoseTask
from training.synthetic import dataset
from training.synthetic.makehuman import SyntheticError

EXPECTED_ERRORS = (
    order.AdaptError,
    footage.FootageError,
    foreign.ImportRefusedError,
    recipe.RecipeError,
    coco.DatasetError,
    skeletons.SkeletonError,
    checkpoint.CheckpointError,
    export.ExportError,
    history.HistoryError,
    report.ReportError,
    BundleError,
    loop.DivergedError,
    SyntheticError,
    OSError,
    json.JSONDecodeError,
)


def run_label(options: Namespace) -> int:
    """See `labelling.label`."""
    box_guide = guides.RtmDetGuide(options.box_guide) if options.box_guide else None
    labelling.label(_source(options), options.out, guides.TinyPoseGuide(options.pose_guide), box_guide)
    return 0


def run_check(options: Namespace) -> int:
    """See `datasets.check`."""
    wanted = _skeleton(options)
    found = layouts.read(_place(options), wanted)
    against = None
    if options.against:
        against = layouts.read(Place(options.against, options.against_images, options.against_split), wanted)
    print(check.report(found, against), flush=True)
    labelled.require_sound(found)
    if options.sheet:
        print(f"{options.sheet}: {sheet.write(found, options.sheet)} people")
    return 0


def run_convert(options: Namespace) -> int:
    """See `datasets.convert`."""
    found = layouts.read(_place(options), _skeleton(options))
    convert.write(found, options.out)
    print(f"{options.out}: {len(found.people):,} people; --images {found.images}")
    if options.toml:
        files.write(options.toml, skeletons.to_toml(found.skeleton).encode())
        print(f"{options.toml}: {len(found.skeleton)} keypoints; complete edges, flip, upper and sigmas by hand")
    return 0


def _place(options: Namespace) -> Place:
    return Place(options.data, options.images, options.split, options.lsp_one)


def _skeleton(options: Namespace) -> Skeleton | None:
    return skeletons.load(options.skeleton) if options.skeleton else None


def run_crops(options: Namespace) -> int:
    """See `crops.build`."""
    width = options.height * crops.CANVAS_SIZE[0] // crops.CANVAS_SIZE[1]
    crops.build(
        _source(options),
        options.out,
        skip=options.skip,
        size=(width, options.height),
        skeleton=_skeleton(options) or COCO17,
    )
    return 0


def run_train(options: Namespace) -> int:
    """See `loop.fit`."""
    _set_threads(options.threads)
    plan = recipe.load(options.recipe, tuple(options.set))
    train(plan, options.data, options.out, options.until)
    return 0


def train(plan: recipe.Recipe, data_root: Path, run: Path, until: int | None = None) -> checkpoint.Checkpoint:
    """Train one recipe on the accelerator where there is one."""
    device = _device()
    return loop.fit(plan, _task(plan, data_root, device, run), run, device, until=until)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _task(plan: recipe.Recipe, data_root: Path, device: torch.device, run: Path) -> loop.Task:
    if plan.network.kind == "finder":
        return FinderTask(plan, data_root, device)
    return PoseTask(plan, data_root, device, run)


def run_evaluate(options: Namespace) -> int:
    """See `evaluate.score_poses` and `evaluate.score_boxes`; prints one line of json."""
    opened = bundle.read(options.bundle)
    if opened.manifest.role == "finder":
        score = evaluate.score_boxes(_source(options), _finder(opened), options.every)
    else:
        estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
        finder = _finder(bundle.read(options.finder)) if options.finder else None
        score = evaluate.score_poses(_source(options), estimator, finder, options.every)
    print(json.dumps({"bundle": opened.manifest.name, **asdict(score)}))
    return 0


def run_export(options: Namespace) -> int:
    """See `export.export`."""
    metrics = json.loads(options.metrics.read_text()) if options.metrics else {}
    metrics = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    written = export.export(
        checkpoint.load(options.checkpoint),
        options.out,
        options.version,
        metrics,
        options.flip_test,
        options.measured_on,
    )
    print(f"{written.path}: {len(written.onnx) / 1e6:.1f} MB, sha256 {written.manifest.files[bundle.ONNX]}")
    name = written.manifest.name
    if options.out.name != name:
        print(f"A server knows a bundle by its folder's name: call the folder {name!r} before you serve it.")
    return 0


def run_distill(options: Namespace) -> int:
    """See `chain.load`: trains every stage in turn."""
    _set_threads(options.threads)
    for plan in chain.load(options.recipe, tuple(options.set)):
        train(plan, options.data, options.out / plan.name)
    return 0


def run_ablate(options: Namespace) -> int:
    """See `ablate.run`; prints the table."""
    _set_threads(options.threads)
    ablation = ablate.load(options.recipe, tuple(options.set))
    results = ablate.run(
        ablation,
        options.data,
        options.out,
        lambda plan, folder: train(plan, options.data, folder),
        options.rows,
        options.seeds,
        options.students,
    )
    ablate.plot(ablation, results, options.out / "ablation.svg")
    print(ablate.table(ablation, results))
    return 0


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def run_bench(options: Namespace) -> int:
    """See `bench.measure`."""
    print(bench.table(bench.measure(options.bundles, options.peers, options.rounds)))
    return 0


def run_designs(options: Namespace) -> int:
    """See `designs.compare`."""
    print(designs.compare(options.rounds))
    return 0


def run_speed(options: Namespace) -> int:
    """See `speed.measure`."""
    _set_threads(options.threads)
    for plan in chain.load(options.recipe, tuple(options.set)):
        device = _device()
        task = _task(plan, options.data, device, options.out / plan.name)
        print(speed.table(plan, speed.measure(plan, task, device, options.rounds), device))
    return 0


def run_keys(options: Namespace) -> int:
    """See `reference.table`."""
    del options
    print(reference.table())
    return 0


def run_report(options: Namespace) -> int:
    """See `report.write`."""
    if (options.annotations is None) != (options.images is None):
        raise report.ReportError("expected --annotations and --images together, got one; give both, or none for curves")
    source = None if options.annotations is None else _source(options)
    print(report.write(options.folder, options.out, source, options.every))
    return 0


def run_render(options: Namespace) -> int:
    """See `synthetic.dataset.build`."""
    order = dataset.Order(
        out=options.out,
        count=options.count,
        seed=options.seed,
        size=options.size,
        people=options.people,
        framing=options.framing,
        identities=options.identities,
        finer=options.samples,
        masks=options.masks,
        backgrounds=options.backgrounds,
        processes=options.processes,
        clip=options.clip,
        fps=options.fps,
    )
    print(dataset.build(order))
    return 0


def _source(options: Namespace) -> coco.Source:
    return coco.Source(options.annotations.stem, options.annotations, options.images)


def _finder(opened: Bundle) -> PersonFinder:
    return PersonFinder(opened, OnnxRunner(opened.onnx, threads=1))


VERBS = {
    "adapt": adapt_verb.run,
    "check": run_check,
    "convert": run_convert,
    "label": run_label,
    "crops": run_crops,
    "train": run_train,
    "distill": run_distill,
    "ablate": run_ablate,
    "evaluate": run_evaluate,
    "export": run_export,
    "speed": run_speed,
    "import": import_verb.run,
    "keys": run_keys,
    "bench": run_bench,
    "report": run_report,
    "render": run_render,
    "designs": run_designs,
}
