"""A model: a loaded bundle, and how it is read, loaded and tried out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.pose import bundle as bundles
from service.pose.backends.dynamic_batching import DynamicBatching
from service.pose.backends.runner import open_runner
from service.pose.bundle import Bundle, BundleError, Manifest
from service.pose.detector import PersonDetector
from service.pose.estimators import Estimator, open_estimator
from service.settings import Settings

log = logging.getLogger(__name__)

WARM_UP_SIZE = (1280, 720)
"""(width, height) of the blank image that every network is run on at the start, px."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded bundle.

    Attributes:
        manifest: The bundle's manifest.
        card: The model card, Markdown.
        backend: What runs the network, e.g. ``onnxruntime-cpu``.
        network: Ready to run; None if it could not be loaded or failed its warm-up.
        failure: Why `network` is None.
    """

    manifest: Manifest
    card: str
    backend: str
    network: Estimator | PersonDetector | None
    failure: str | None = None

    @property
    def sha256(self) -> str:
        """sha256 (hex) of the network's file."""
        return self.manifest.files[bundles.ONNX]

    @property
    def estimator(self) -> Estimator:
        """The network of a model that `ModelRegistry.choose` returned, which is always a pose estimator."""
        assert self.network is not None
        assert not isinstance(self.network, PersonDetector)
        return self.network


def read(path: Path) -> Bundle:
    """Read and verify a bundle of the models folder.

    Raises:
        BundleError: It is damaged, or its manifest names another folder.
    """
    bundle = bundles.read(path)
    if bundle.manifest.name != path.name:
        raise BundleError(
            f"bundle {path}: expected its manifest to name {path.name!r}, got {bundle.manifest.name!r}; "
            f"rename the folder to {bundle.manifest.name}"
        )
    return bundle


def load(bundle: Bundle, settings: Settings, batching: DynamicBatching) -> Model:
    """Load a bundle; the model's `network` is None where the execution provider cannot load it.

    Raises:
        BundleError: The bundle is not what its role says.
    """
    manifest, provider = bundle.manifest, settings.provider_choice.provider
    threads, calls = settings.runtime_thread_count, settings.inference_thread_count
    try:
        runner = batching.wrap(open_runner(provider, bundle.onnx, threads, calls, batching.size))
    except Exception as error:  # noqa: BLE001 - the backends' errors share no base class
        log.error("bundle %r cannot be loaded: %s", manifest.name, error)  # noqa: TRY400 - the traceback adds nothing
        return Model(manifest, bundle.card, provider.backend, None, one_line(error))
    if manifest.role == "detector":
        return Model(manifest, bundle.card, runner.backend, PersonDetector(bundle, runner))
    estimator = open_estimator(bundle, runner, settings.flip_test, settings.refine_boxes)
    return Model(manifest, bundle.card, runner.backend, estimator)


def try_out(model: Model, batching: DynamicBatching) -> None:
    """Run a network on a blank image of `WARM_UP_SIZE`; one for poses also on a whole batch of people.

    Raises:
        BundleError: Its outputs have the wrong shape.
        Exception: Whatever the backend raises.
    """
    width, height = WARM_UP_SIZE
    image = np.zeros((height, width, 3), np.uint8)
    if isinstance(model.network, PersonDetector):
        model.network.detect(image)
    elif model.network is not None:
        for people in sorted({1, batching.size}):
            poses = model.network.estimate(image, np.array([[0, 0, width, height]] * people, np.float32))
            expected = (people, len(model.network.skeleton), 2)
            if poses.keypoints.shape != expected:
                raise BundleError(
                    f"bundle {model.manifest.name!r}: expected keypoints {expected}, got {poses.keypoints.shape}; "
                    "its graph does not fit its manifest"
                )


def same_skeleton(a: Model, b: Model) -> bool:
    """Whether one may answer in the other's place: callers rely on the keypoints of the model that they chose."""
    return a.manifest.known_skeleton == b.manifest.known_skeleton


def shown_skeleton(model: Model) -> str:
    """Name of a model's skeleton, for messages."""
    known = model.manifest.known_skeleton
    return known.name if known else str(model.manifest.skeleton)


def one_line(error: Exception) -> str:
    """Write the message of an error in one line."""
    return " ".join(str(error).split())
