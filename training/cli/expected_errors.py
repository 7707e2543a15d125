"""Errors whose message tells the user what to change. Any other error is a defect and keeps its traceback."""

from __future__ import annotations

import json

from service.pose.backends.execution_provider import BackendError
from service.pose.bundle import BundleError
from training.adapt.footage import FootageError
from training.adapt.request import AdaptError
from training.data.coco import DatasetError
from training.data.holdout import OverlapError
from training.engine.checkpoint import CheckpointError
from training.engine.device import DeviceError
from training.engine.history import HistoryError
from training.engine.loop import DivergedError
from training.evaluation.report.report import ReportError
from training.export.to_onnx import ExportError
from training.onnx.probe import ImportRefusedError
from training.onnx.quantize import QuantizeError
from training.recipe.errors import RecipeError
from training.recipe.skeletons import SkeletonError
from training.synthetic.body.makehuman import SyntheticError

EXPECTED_ERRORS = (
    AdaptError,
    BackendError,
    BundleError,
    CheckpointError,
    DatasetError,
    DeviceError,
    DivergedError,
    ExportError,
    FootageError,
    HistoryError,
    ImportRefusedError,
    OverlapError,
    QuantizeError,
    RecipeError,
    ReportError,
    SkeletonError,
    SyntheticError,
    OSError,
    json.JSONDecodeError,
)
