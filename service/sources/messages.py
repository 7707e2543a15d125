"""What callers say about sources and are told: bodies of /sources, and messages to viewers.

The models read requests; replies are written as plain values, and the models of replies document and test them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from service.sources.reader import State
from service.streaming.messages import Ready, StreamOptions
from service.video.allowed_urls import MAX_URL
from service.wire.query import Format

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


class WebhookRequest(BaseModel):
    """Where the results of a source are posted to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=MAX_URL, description="HTTP or HTTPS, on a host that `--source-webhook-hosts` lists.")
    secret: Annotated[SecretStr, Field(min_length=16, max_length=256)] | None = Field(
        None,
        description="Key of the header `webhook-signature`, as text or as `whsec_` and base64 "
        "(www.standardwebhooks.com); no signature without it.",
    )


class SourceRequest(BaseModel):
    """Body of POST /sources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        max_length=MAX_URL,
        description="Camera (`rtsp`, `rtsps`, `http`, `https`), file (`file:///…`) or device (`device:/dev/video0`), "
        "which `--source-hosts` must list.",
    )
    name: str | None = Field(None, pattern=NAME, description="Name, of which there is one; the id if left out.")
    options: StreamOptions = Field(
        StreamOptions(),
        description="As in the hello of a stream. `policy: all` is for files: every frame is answered, as fast as "
        "possible; with `latest` a file is read at its own pace.",
    )
    webhook: WebhookRequest | None = None
    record: bool = Field(default=False, description="Append the results to a file in `--source-record-dir`.")


class GapEntry(BaseModel):
    """A time without frames."""

    from_: str = Field(alias="from", description="When the last frame before it came (RFC 3339).")
    to: str | None = Field(description="When the first frame after it came; null while it lasts.")
    reason: str


class DeliveryEntry(BaseModel):
    """Results that go to a webhook or a file."""

    delivered: int
    dropped: int = Field(description="Results that were not delivered: the receiver failed, or was too slow.")
    last_error: str | None


class WebhookEntry(DeliveryEntry):
    """A webhook."""

    url: str = Field(description="Without its secrets.")


class RecordEntry(DeliveryEntry):
    """A recording."""

    file: str | None = Field(description="Name of the file that is written now.")


class SourceEntry(BaseModel):
    """A source and how it is."""

    id: str
    name: str
    url: str = Field(description="Without user, password, and values whose names look like secrets.")
    state: State
    fps: float = Field(description="Frames per second that came from the source in the last 5 s.")
    age_ms: float | None = Field(description="Since the arrival of the newest frame that was answered.")
    frames: int = Field(description="Frames that came.")
    answered: int
    dropped: int = Field(description="Frames that newer ones replaced before they were answered.")
    errors: int = Field(description="Frames that could not be answered.")
    reconnects: int = Field(description="How often frames came again after the connection had broken off.")
    viewers: int
    gap_count: int = Field(description="Number of gaps that have ended, of which `gaps` has the last 100.")
    gaps: list[GapEntry]
    last_error: str | None
    last_error_at: str | None = Field(description="When `last_error` came (RFC 3339); it stays once frames come again.")
    webhook: WebhookEntry | None
    record: RecordEntry | None


class SourceList(BaseModel):
    """Reply of GET /sources."""

    sources: list[SourceEntry]


class ViewerHello(BaseModel):
    """A viewer's first message."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["hello"]
    pictures: bool = Field(default=False, description="Send each answered frame as a JPEG before its result.")
    format: Format | None = Field(None, description="As in the query of /predict; that of the source if left out.")


class ViewerReady(Ready):
    """Answer to a viewer's hello."""

    source: str = Field(description="Id of the source.")
    name: str
    pictures: bool


class GapMessage(GapEntry):
    """Told to viewers, and to the webhook, when frames come again."""

    type: Literal["gap"]


class StateMessage(BaseModel):
    """Told to viewers, and to the webhook, when the state changes."""

    type: Literal["state"]
    state: State
