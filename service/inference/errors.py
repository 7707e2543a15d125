"""The problems with models, and with reading pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from service.errors import ServiceError


class UnknownModel(ServiceError):
    """The registry has no such model."""

    status, slug, title = 404, "unknown-model", "No such model"
    meaning = "The server has no model of this name, or the model is a detector and cannot answer with poses."
    advice = "Choose one of the names in `models`, or leave `model` out. `/models` lists every model."
    fields: ClassVar[Mapping[str, str]] = {
        "model": "The name that was asked for.",
        "models": "The names that can be asked for.",
    }


class UndecodableImage(ServiceError):
    """The bytes are not a picture, or the picture is damaged."""

    status, slug, title = 422, "undecodable-image", "The picture cannot be decoded"
    meaning = "The bytes are not a picture, or the file is damaged or incomplete."
    advice = "Open the file in an image viewer and save it again. Check that all of its bytes were sent."
    fields: ClassVar[Mapping[str, str]] = {
        "kind": "Format of the damaged file.",
        "expected": "The formats that the server reads.",
    }


class ModelControlForbidden(ServiceError):
    """The server does not let this caller load and unload models."""

    status, slug, title = 403, "model-control-forbidden", "Models cannot be changed by this call"
    meaning = (
        "The server runs without `--model-control explicit`, or a web page of another site asked it to change its "
        "models or its canary."
    )
    advice = "The operator starts the server with `--model-control explicit`. Send the call from a program, not a page."


class ModelControlFailed(ServiceError):
    """A model was not loaded, unloaded or rolled back."""

    status, slug, title = 400, "model-control-failed", "The model was not changed"
    meaning = (
        "The new bundle is damaged or does not fit, the model to unload is needed, or there is no version to return "
        "to. What served before serves on."
    )
    advice = "The `detail` says what is wrong. Correct the bundle's folder and load it again."
    fields: ClassVar[Mapping[str, str]] = {"model": "The model's name."}


class NoCanary(ServiceError):
    """There is no candidate to promote or to roll back."""

    status, slug, title = 409, "no-canary", "There is no canary"
    meaning = "The call would promote or roll back a candidate, but none answers calls, and none was promoted."
    advice = "See `GET /canary` for what happened last: another operator or the verdict may have been faster."


class BundleFilesForbidden(ServiceError):
    """The server does not hand out its bundles."""

    status, slug, title = 403, "bundle-files-forbidden", "The files of models are not served"
    meaning = "The server runs without `--serve-bundles true`, and so keeps the files of its models to itself."
    advice = "The operator starts the server with `--serve-bundles true`, or puts the models folder on a web server."
