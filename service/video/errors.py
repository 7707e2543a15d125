"""The problems with videos: files, cameras and devices."""

from __future__ import annotations

from service.errors import ServiceError


class SourceForbidden(ServiceError):
    """The server may not open this camera, file or device."""

    status, slug, title = 403, "source-forbidden", "The server may not open this URL"
    meaning = (
        "The server opens cameras, files and devices of the list `--source-hosts` only, which is empty by default, or "
        "a web page of another site asked it to."
    )
    advice = (
        "The operator adds the camera's host name or network, `file:/folder` or `device` to `--source-hosts`. Send the "
        "call from a program, or from a page of this server."
    )


class VideoUnreadable(ServiceError):
    """A video cannot be opened or decoded."""

    status, slug, title = 422, "video-unreadable", "The video cannot be read"
    meaning = "The camera, file or device cannot be opened, sends no pictures, or its connection broke."
    advice = "The `detail` says why. Open the same URL with a player, such as ffplay or VLC, on the server's machine."


class VideoNotInstalled(ServiceError):
    """PyAV, which decodes videos, is not installed."""

    status, slug, title = 501, "video-not-installed", "The server cannot decode videos"
    meaning = "The package PyAV, which decodes videos, is not installed on the server."
    advice = "The operator installs it: `pip install 'posewright[video]'`."
