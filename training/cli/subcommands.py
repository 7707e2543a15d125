"""What each verb of posewright-train does with its options."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from service.pose import bundle
from service.pose.backends.runner import BackendError, OnnxRunner
from service.pose.bundle import Bundle, BundleError
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17, Skeleton
from training import files
from training.adapt import footage
from training.adapt import request as order
from training.cli import adapt, calibrate, distill, import_model, train
from training.data import coco, crop_cache, holdout, known_skeletons, pseudo_labels, skeletons
from training.data.formats import check, contact_sheet, convert, labelled_set, layouts, original_shape
from training.data.formats.layouts import SetLocation
from training.data.image_record import PictureRecord
from training.distillation import teachers
from training.engine import checkpoint, device, history, loop, profile
from training.evaluation import ablation as ablate
from training.evaluation import bench, coco_ap, designs, ranking
from training.evaluation import rivals as contenders
from training.evaluation.report import report
from training.export import model_card, to_onnx
from training.onnx import probe, quantize
from training.recipe import chain, recipe, reference
from training.synthetic.body.makehuman import SyntheticError
from training.synthetic.scene import dataset

EXPECTED_ERRORS = (
    order.AdaptError,
    device.DeviceError,
    footage.FootageError,
    probe.ImportRefusedError,
    recipe.RecipeError,
    coco.DatasetError,
    skeletons.SkeletonError,
    checkpoint.CheckpointError,
    to_onnx.ExportError,
    history.HistoryError,
    report.ReportError,
    quantize.QuantizeError,
    BackendError,
    BundleError,
    loop.DivergedError,
    holdout.OverlapError,
    SyntheticError,
    OSError,
    json.JSONDecodeError,
)


def run_label(options: Namespace) -> int:
    """See `labelling.label`."""
    opened = teachers.read_bundle(options.pose_teacher)
    pose_teacher = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    box_teacher = _detector(teachers.read_bundle(options.box_teacher)) if options.box_teacher else None
    pseudo_labels.label(_source(options), options.out, pose_teacher, box_teacher)
    return 0


def run_check(options: Namespace) -> int:
    """See `datasets.check`."""
    wanted = _skeleton(options)
    found = layouts.read(_place(options), wanted)
    against = None
    if options.against:
        against = layouts.read(SetLocation(options.against, options.against_images, options.against_split), wanted)
    print(check.report(found, against), flush=True)
    labelled_set.require_sound(found)
    if options.sheet:
        print(f"{options.sheet}: {contact_sheet.write(found, options.sheet)} people")
    return 0


def run_convert(options: Namespace) -> int:
    """See `datasets.convert`."""
    found = layouts.read(_place(options), _skeleton(options))
    convert.write(found, options.out)
    print("".join(f"{line}\n" for line in labelled_set.note_lines(found.notes)), end="")
    print(f"{options.out}: {len(found.people):,} people; --images {found.images}")
    if options.toml:
        files.write(options.toml, skeletons.to_toml(found.skeleton).encode())
        print(f"{options.toml}: {len(found.skeleton)} keypoints; complete edges, flip, upper and sigmas by hand")
    return 0


def run_restore(options: Namespace) -> int:
    """See `datasets.restored`."""
    without = {number for file in options.without for number in coco.load(file).imgs}
    found = original_shape.restore(options.images, options.labels, options.out, without)
    print(
        f"{options.out}: {len(found.pictures):,} pictures, {len(found.people):,} people; "
        f"{len(found.notes):,} copies left out"
    )
    print("".join(f"{line}\n" for line in labelled_set.note_lines(found.notes)), end="")
    return 0


def _place(options: Namespace) -> SetLocation:
    return SetLocation(options.data, options.images, options.split, options.lsp_one, options.classes)


def _skeleton(options: Namespace) -> Skeleton | None:
    return known_skeletons.find(options.skeleton) if options.skeleton else None


def run_crops(options: Namespace) -> int:
    """See `crops.build`."""
    width = options.width or options.height * crop_cache.CANVAS_SIZE[0] // crop_cache.CANVAS_SIZE[1]
    crop_cache.build(
        _source(options),
        options.out,
        skip=options.skip,
        size=(width, options.height),
        skeleton=_skeleton(options) or COCO17,
    )
    return 0


def run_evaluate(options: Namespace) -> int:
    """See `evaluate.score_poses` and `evaluate.score_boxes`; prints one line of json."""
    opened = bundle.read(options.bundle)
    is_detector = opened.manifest.role == "detector"
    detector = bundle.read(options.detector) if options.detector and not is_detector else None
    measured = [opened] if detector is None else [opened, detector]
    whole = is_detector or detector is not None
    shared = holdout.of_bundles(measured, _source(options), options.every, complete=whole, allow=options.allow_seen)
    if is_detector:
        score, name = coco_ap.score_boxes(_source(options), _detector(opened), options.every), "box_{}"
    else:
        estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1), options.flip_test)
        score = coco_ap.score_poses(
            _source(options), estimator, _detector(detector) if detector else None, options.every
        )
        name = "{}_whole_picture" if detector else "{}_ground_truth_boxes"
    print(json.dumps({"bundle": opened.manifest.name, **asdict(score), "overlap": asdict(shared)}))
    if options.record:
        name += "_seen" * bool(shared.pictures)
        figures = {name.format(key): round(getattr(score, key), 4) for key in ("ap", "ap50", "ap75")}
        told = shared.marked(options.record)
        # Figures of other pictures would be told as of these.
        known = opened.manifest.metrics if model_card.tells_of(opened.card, told) else {}
        manifest = opened.manifest.model_copy(update={"metrics": {**known, **figures}})
        bundle.write(options.bundle, manifest, opened.onnx, model_card.with_figures(opened.card, manifest, told))
    return 0


def run_export(options: Namespace) -> int:
    """See `export.export`."""
    written = to_onnx.export(
        checkpoint.load(options.checkpoint),
        options.out,
        options.version,
        options.flip_test,
        options.seen,
        options.blend,
        options.padding,
        options.input_size,
    )
    print(f"{written.path}: {len(written.onnx) / 1e6:.1f} MB, sha256 {written.manifest.files[bundle.ONNX]}")
    name = written.manifest.name
    if options.out.name != name:
        print(f"A server knows a bundle by its folder's name: call the folder {name!r} before you serve it.")
    return 0


def run_ablate(options: Namespace) -> int:
    """See `ablate.run`; prints the table."""
    train.set_threads(options.threads)

    def seconds_a_step(plan: recipe.Recipe, folder: Path) -> float:
        chosen = device.choose(options.device)
        task = train.open_task(plan, options.data, chosen, folder)
        return sum(profile.measure(plan, task, chosen, rounds=3).values()) / 1000

    ablation = ablate.bounded(ablate.load(options.recipe, tuple(options.set)), options.out, seconds_a_step)
    results = ablate.run(
        ablation,
        options.data,
        options.out,
        lambda plan, folder: train.train(plan, options.data, folder, asked=options.device),
        options.rows,
        options.seeds,
        options.students,
        options.allow_seen,
    )
    ablate.plot(ablation, results, options.out / "ablation.svg")
    print(ablate.table(ablation, results))
    return 0


def run_bench(options: Namespace) -> int:
    """See `ranking.score` and `bench.measure`; prints the table."""
    source = coco.optional_source(options.annotations, options.images)
    if options.plot and source is None:
        raise coco.DatasetError("expected --annotations and --images with --plot, got none; give both")
    field = contenders.gather(options.bundles, options.rivals, tuple(options.backend))
    shared = holdout.NOTHING_MEASURED
    if source is not None:
        records = holdout.records_of([bundle.read(path) for path in options.bundles])
        rivals = [it.name for it in field.poses if not it.ours] + [it.name for it in field.detectors if not it.ours]
        records |= {name: PictureRecord(unrecorded=(name,)) for name in rivals}
        shared = holdout.check(records, source, options.every, allow=options.allow_seen)
    precisions = ranking.score(source, field, options.every) if source else {}
    rows = bench.measure(field, options.rounds, precisions)
    if options.plot:
        from training.evaluation.report import plots  # noqa: PLC0415 (matplotlib takes a second)

        files.write(options.plot, plots.accuracy_over_latency(rows))
    print(bench.table(rows))
    if shared.pictures:
        print(f"\nAP is {shared.marked('of pictures')} by one of the bundles: too good for new ones.")
    return 0


def run_quantize(options: Namespace) -> int:
    """See `quantize.quantize`."""
    opened = bundle.read(options.bundle)
    holdout.of_bundles([opened], _source(options), options.every, allow=True)  # float and int8 learned from the same
    written = quantize.quantize(opened, _source(options), options.every, options.out)
    print(f"{written.path}: {len(written.onnx) / 1e6:.1f} MB; {quantize.told(written.manifest)}")
    return 0


def run_designs(options: Namespace) -> int:
    """See `designs.compare`."""
    print(designs.compare(options.rounds))
    return 0


def run_speed(options: Namespace) -> int:
    """See `speed.measure`."""
    train.set_threads(options.threads)
    for plan in chain.load(options.recipe, tuple(options.set)):
        chosen = device.choose(options.device)
        task = train.open_task(plan, options.data, chosen, options.out / plan.name)
        print(profile.table(plan, profile.measure(plan, task, chosen, options.rounds), chosen))
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
    print(report.write(options.folder, options.out, source, options.every, allow_seen=options.allow_seen))
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
    print(dataset.forecast(order) if options.dry_run else dataset.build(order))
    return 0


def _source(options: Namespace) -> coco.Source:
    return coco.Source(options.annotations.stem, options.annotations, options.images)


def _detector(opened: Bundle) -> PersonDetector:
    return PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))


VERBS = {
    "adapt": adapt.run,
    "calibrate": calibrate.run,
    "check": run_check,
    "convert": run_convert,
    "restore": run_restore,
    "label": run_label,
    "crops": run_crops,
    "train": train.run,
    "distill": distill.run,
    "ablate": run_ablate,
    "evaluate": run_evaluate,
    "export": run_export,
    "speed": run_speed,
    "import": import_model.run,
    "keys": run_keys,
    "bench": run_bench,
    "quantize": run_quantize,
    "report": run_report,
    "render": run_render,
    "designs": run_designs,
}
