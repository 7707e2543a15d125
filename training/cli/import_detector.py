"""posewright-train import of a detector whose layout is recognised."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from service.pose import bundle
from training.cli import import_options, inputs
from training.data import coco
from training.onnx import checks, detector_checks, detector_layout, detector_probe, import_detector, import_pose, probe
from training.onnx.detector_layout import POSE_HINT
from training.onnx.import_detector import ThirdPartyDetector
from training.onnx.wrap import NORMALISATIONS


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that only detectors have; `import_one_stage.add_arguments` adds those of both."""
    group = parser.add_argument_group("detectors", "what is not given is recognised, or settled by labelled pictures")
    group.add_argument("--objectness", choices=("yes", "no"), help="whether rows have an objectness before the classes")
    group.add_argument(
        "--cell-offset", type=float, metavar="SHARE", help="reference point in a cell: 0 its corner, 0.5 its middle"
    )


def write_bundle(options: Namespace) -> int:
    """Write a bundle of a third party's detector.

    Raises:
        ImportRefusedError: It is no detector of a known layout, an option has no effect on detectors, or the pictures
            show that it is fed or read wrongly.
    """
    imported, stated = _third_party(options)
    truth = coco.optional_source(options.annotations, options.images)
    metrics: dict[str, float] = {}
    result = detector_checks.NOT_CHECKED
    if truth is not None:
        check = detector_checks.settle(imported, stated, truth, options.pictures or checks.PICTURES)
        objection = check.objection()
        if objection and not options.anyway:
            raise probe.ImportRefusedError(f"{options.out}: the bundle was not written; {objection}")
        imported, metrics = check.best.imported, {"box_ap_import_check": round(check.best.ap, 4)}
        result = "\n".join([check.summary(), *([objection] if objection else [])])
    made = import_detector.make(imported, metrics)
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    width, height = made.manifest.input_size
    print(f"{result}\n{_reading(imported)}")
    size_mb = len(written.onnx) / 1e6
    print(f"{written.path}: {made.manifest.name}, a detector, {size_mb:.1f} MB, input {width} x {height}")
    return 0


def _third_party(options: Namespace) -> tuple[ThirdPartyDetector, frozenset[str]]:
    """Recognise the detector, and return it with the options that the user gave."""
    model = import_pose.read(options.onnx)
    found = detector_probe.probe(model, inputs.input_size(options))
    objectness = None if options.objectness is None else options.objectness == "yes"
    layout = detector_layout.recognise(found, objectness)
    unread = {"--cell-offset": not layout.maps, "--objectness": not layout.is_one_table, "--boxes": bool(layout.maps)}
    import_options.require_effect(options, import_options.DETECTOR, unread)
    if layout.maps and options.units == "unit":
        raise probe.ImportRefusedError("expected --units px or cells of a detector that answers in maps, got unit")
    if options.person_class is None:
        _require_named_classes(layout, len(found.class_names))
    given = {"person": options.person_class, "box_format": options.boxes, "unit": options.units}
    given |= {"cell_offset": options.cell_offset}
    layout = replace(layout, **{key: value for key, value in given.items() if value is not None})
    layout = _with_known_person(layout, has_pictures=options.annotations is not None)
    usual = import_detector.usual_conventions(layout, found)
    mean, deviation = NORMALISATIONS[options.normalise] if options.normalise else (usual.mean, usual.deviation)
    conventions = replace(
        usual,
        colour=options.colour or usual.colour,
        mean=tuple(options.mean or mean),
        deviation=tuple(options.deviation or deviation),
        fitting=options.fitting or usual.fitting,
    )
    made = ThirdPartyDetector(
        path=options.onnx,
        model=model,
        found=found,
        layout=layout,
        conventions=conventions,
        name=import_pose.bundle_name(options.out),
        version=options.version,
        licence=options.licence,
        origin=options.origin,
    )
    return made, _stated(options)


def _stated(options: Namespace) -> frozenset[str]:
    """Return the options that the user gave, as `detector_checks` names them."""
    given = {
        "--person-class": options.person_class,
        "--boxes": options.boxes,
        "--units": options.units,
        "--cell-offset": options.cell_offset,
        "--colour": options.colour,
        "--normalise": options.normalise or options.mean or options.deviation,
        "--fitting": options.fitting,
    }
    return frozenset(option for option, value in given.items() if value is not None)


def _require_named_classes(layout: detector_layout.DetectorLayout, named: int) -> None:
    """Refuse a table whose columns are more than the classes that the file names: it may well hold keypoints."""
    if named and layout.class_count not in {None, named}:
        raise probe.ImportRefusedError(
            f"expected a score for each of the {named} classes that the file names, got {layout.class_count} columns: "
            f"pass --person-class if they are classes; {POSE_HINT}"
        )


def _with_known_person(layout: detector_layout.DetectorLayout, *, has_pictures: bool) -> detector_layout.DetectorLayout:
    """Return the layout with an index of people, 0 where the pictures or the labels can tell.

    Raises:
        ImportRefusedError: The classes are unknown, or there are not so many.
    """
    count, person = layout.class_count, layout.person
    if person is not None and not 0 <= person < (count or person + 1):
        raise probe.ImportRefusedError(f"--person-class: expected 0 to {(count or 1) - 1}, got {person}")
    if person is None and count is not None and not has_pictures:
        raise probe.ImportRefusedError(
            f"expected a detector of 1, 80, 90, 91, 365 or 366 classes, or a file that names them, got {count}: pass "
            f"--person-class, the index of people among them; {POSE_HINT}"
        )
    return replace(layout, person=person or 0)


def _reading(imported: ThirdPartyDetector) -> str:
    """Write in a line how the detector is fed and read."""
    layout, conventions = imported.layout, imported.conventions
    feeding = conventions.normalisation or f"mean {conventions.mean}, deviation {conventions.deviation}"
    boxes = f"{layout.box_format} in {layout.unit}, people are class {layout.person}"
    ends = "" if layout.is_final else ", overlapping ones are suppressed"
    return f"{layout.name}: {boxes}{ends}; input {conventions.colour} {feeding}, {conventions.fitting}"
