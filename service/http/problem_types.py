"""The list of all problem types: what a call can fail with."""

from __future__ import annotations

from service.errors import (
    BadParameter,
    BadRequest,
    DeadlineExceeded,
    EmptyBody,
    NotAcceptable,
    NotReady,
    QueueFull,
    RateLimited,
    ServiceError,
    SlowUpload,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownHost,
    UnknownPath,
    UnsupportedType,
    WrongMethod,
)
from service.inference.errors import (
    BundleFilesForbidden,
    ModelControlFailed,
    ModelControlForbidden,
    NoCanary,
    UndecodableImage,
    UnknownModel,
)
from service.jobs.errors import (
    JobsDisabled,
    JobsDiskFull,
    JobUnfinished,
    MissingPackage,
    ResultPending,
    ResultRefused,
    UnknownJob,
    VideoTooLarge,
)
from service.sources.errors import SourceConflict, UnknownSource
from service.video.errors import SourceForbidden, VideoNotInstalled, VideoUnreadable

PROBLEM_TYPES: tuple[type[ServiceError], ...] = (
    BadRequest,
    EmptyBody,
    ModelControlFailed,
    Unauthorized,
    ModelControlForbidden,
    BundleFilesForbidden,
    SourceForbidden,
    JobsDisabled,
    UnknownPath,
    UnknownModel,
    UnknownSource,
    UnknownJob,
    WrongMethod,
    NotAcceptable,
    SlowUpload,
    NoCanary,
    SourceConflict,
    JobUnfinished,
    TooLarge,
    VideoTooLarge,
    UnsupportedType,
    UnknownHost,
    UndecodableImage,
    BadParameter,
    VideoUnreadable,
    ResultRefused,
    RateLimited,
    ServiceError,
    VideoNotInstalled,
    MissingPackage,
    Unavailable,
    NotReady,
    QueueFull,
    ResultPending,
    DeadlineExceeded,
    JobsDiskFull,
)
"""By status, in the order of their pages. Written out, so that no page depends on which rooms are imported."""
