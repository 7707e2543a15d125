"""Client of posewright, a service for human pose estimation in real time.

>>> from posewright_client import Client
>>> with Client("http://localhost:8000") as client:  # doctest: +SKIP
...     for pose in client.predict("photo.jpg"):
...         print(pose.score, pose["nose"])
"""

from __future__ import annotations

from posewright_client._calls import Options
from posewright_client._client import AsyncClient, Client
from posewright_client._drawing import draw
from posewright_client._errors import (
    BadParameter,
    BadReply,
    BundleFilesForbidden,
    ConnectError,
    DeadlineExceeded,
    EmptyBody,
    Forbidden,
    ImageTooLarge,
    MalformedRequest,
    MethodNotAllowed,
    MissingExtra,
    ModelControlFailed,
    ModelControlForbidden,
    NoCanary,
    NotAcceptable,
    NotFound,
    NotReady,
    PosewrightError,
    ProblemError,
    QueueFull,
    RateLimited,
    SlowUpload,
    StreamClosed,
    Timeout,
    TransportError,
    Unauthorized,
    Unavailable,
    UndecodableImage,
    UnknownHost,
    UnknownModel,
    UnsupportedType,
)
from posewright_client._frames import Frame, StreamOptions, StreamResult, StreamStats
from posewright_client._notebook import show
from posewright_client._pictures import Picture
from posewright_client._results import Comparison, Keypoint, Match, Model, ModelRef, Pose, Prediction, Side
from posewright_client._retries import NEVER, Retries
from posewright_client._skeleton import EDGES, KEYPOINTS
from posewright_client._stream import AsyncStream
from posewright_client._sync_stream import Stream

__version__ = "0.1.0"
__all__ = [
    "EDGES",
    "KEYPOINTS",
    "NEVER",
    "AsyncClient",
    "AsyncStream",
    "BadParameter",
    "BadReply",
    "BundleFilesForbidden",
    "Client",
    "Comparison",
    "ConnectError",
    "DeadlineExceeded",
    "EmptyBody",
    "Forbidden",
    "Frame",
    "ImageTooLarge",
    "Keypoint",
    "MalformedRequest",
    "Match",
    "MethodNotAllowed",
    "MissingExtra",
    "Model",
    "ModelControlFailed",
    "ModelControlForbidden",
    "ModelRef",
    "NoCanary",
    "NotAcceptable",
    "NotFound",
    "NotReady",
    "Options",
    "Picture",
    "Pose",
    "PosewrightError",
    "Prediction",
    "ProblemError",
    "QueueFull",
    "RateLimited",
    "Retries",
    "Side",
    "SlowUpload",
    "Stream",
    "StreamClosed",
    "StreamOptions",
    "StreamResult",
    "StreamStats",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "UndecodableImage",
    "UnknownHost",
    "UnknownModel",
    "UnsupportedType",
    "draw",
    "show",
]
