"""Train, evaluate and export pose networks and person detectors."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

SUBCOMMANDS = {
    "check": "explain a labelled data set, and refuse a broken one",
    "convert": "convert a labelled data set into the COCO json that the other subcommands read",
    "restore": "restore copies of COCO pictures to the shape in which they were labelled",
    "render": "draw people without any photo: pictures with exact keypoints, or a clip",
    "label": "complete the labels of a data set with teachers",
    "crops": "cut every labelled person once, for training",
    "train": "train a recipe, from its last checkpoint if there is one",
    "distill": "train a chain of recipes: teacher, assistants, student",
    "ablate": "train and score a student with and without each part of DSKD",
    "speed": "measure the training speed of a recipe, and where the time goes",
    "report": "write one page of curves, AP, errors and people, for a run or a bundle",
    "export": "turn a checkpoint into a bundle; refused if ONNX and torch differ",
    "evaluate": "measure the COCO AP of a bundle through the code that serves it",
    "calibrate": "calibrate the scores of a bundle to the OKS to expect",
    "bench": "compare AP and latency of bundles and rivals in one table",
    "quantize": "make an int8 bundle; refused unless it is faster and as accurate",
    "adapt": "adapt a student to the footage of a camera, without labels",
    "import": "make a bundle of a third party's ONNX file; refused if it is fed wrongly",
    "designs": "compare the latency of student designs before any is trained",
    "keys": "list every key of a recipe, its default and its meaning",
}
"""Each subcommand and what it does. It is the module of that name in `training.cli`."""
MODULES = {"import": "import_model"}
"""Modules that cannot bear the name of their subcommand."""
DISTRIBUTED = ("train", "distill")
"""Subcommands that several processes can share."""


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    # OpenMP threads that spin while they wait slow down every other program on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(given[0] if given else "").parse_args(given)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and options.subcommand not in DISTRIBUTED:
        print(
            f"posewright-train: {options.subcommand}: expected one process, got {processes} of torchrun, which only "
            "train and distill support; run this without torchrun",
            file=sys.stderr,
        )
        return 1
    try:
        return int(_module(options.subcommand).run(options))
    except Exception as error:
        from training.cli.expected_errors import EXPECTED_ERRORS  # noqa: PLC0415 (imports every room)

        if not isinstance(error, EXPECTED_ERRORS):
            raise
        print(f"posewright-train: {error}", file=sys.stderr)
        return 1


def parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser of all subcommands, of which only the chosen one is imported and has its options."""
    everything = argparse.ArgumentParser(prog="posewright-train", description=__doc__)
    subcommands = everything.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, what in SUBCOMMANDS.items():
        subcommand = subcommands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name == chosen:
            _module(name).add_arguments(subcommand)
    return everything


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"training.cli.{MODULES.get(name, name)}")


if __name__ == "__main__":
    sys.exit(main())
