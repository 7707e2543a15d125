"""Which options of posewright-train import have an effect on which kind of graph."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from training.onnx.one_stage_layout import LAYOUTS
from training.onnx.probe import ImportRefusedError

TOP_DOWN = ("heatmap", "simcc")
DETECTOR, RTMDET = "detector", "rtmdet"
KINDS = (*TOP_DOWN, *LAYOUTS, DETECTOR, RTMDET)
"""Values of --decoder, and `DETECTOR` for detectors that are recognised."""
_CHECKED = (*TOP_DOWN, *LAYOUTS, DETECTOR)
_POSE = (*TOP_DOWN, *LAYOUTS)
_WHOLE_PICTURE = (*LAYOUTS, DETECTOR)

KINDS_OF = {
    "--normalise": _CHECKED,
    "--mean": _CHECKED,
    "--deviation": _CHECKED,
    "--annotations": _CHECKED,
    "--images": _CHECKED,
    "--pictures": _CHECKED,
    "--anyway": _CHECKED,
    "--shift": _POSE,
    "--skeleton": _POSE,
    "--joints": _POSE,
    "--activation": _POSE,
    "--outputs": _POSE,
    "--padding": TOP_DOWN,
    "--scale": TOP_DOWN,
    "--fitting": _WHOLE_PICTURE,
    "--units": _WHOLE_PICTURE,
    "--boxes": _WHOLE_PICTURE,
    "--person-class": tuple(it for it in _WHOLE_PICTURE if it != "rtmo"),
    "--keypoint-activation": LAYOUTS,
    "--keypoint-order": ("detr-pose",),
    "--iou": ("yolo-pose",),
    "--objectness": (DETECTOR,),
    "--cell-offset": (DETECTOR,),
}
"""The kinds on which an option has an effect; options that are not listed have one on all."""


def require_effect(options: Namespace, kind: str, unread: Mapping[str, bool] = {}) -> None:
    """Refuse options that would have no effect.

    Args:
        options: The parsed command line; what was not given is None, False or empty.
        kind: One of `KINDS`.
        unread: Further options, and whether this very graph has nothing that they could change.

    Raises:
        ImportRefusedError: An option has no effect.
    """
    got = [
        option if kind in kinds else f"{option} (only of {', '.join(kinds)})"
        for option, kinds in KINDS_OF.items()
        if (kind not in kinds or unread.get(option)) and _is_given(options, option)
    ]
    if got:
        raise ImportRefusedError(
            f"{options.onnx} is imported as {kind}: expected only options that have an effect on it, got "
            f"{', '.join(got)}; leave them out, or say by --decoder or --role what the graph is"
        )


def _is_given(options: Namespace, option: str) -> bool:
    value = getattr(options, option.removeprefix("--").replace("-", "_"))
    return not (value is None or value is False or value == [])
