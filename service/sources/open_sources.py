"""The sources of a server: what may be added, and their orderly end."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

from service.errors import BadParameter, stopping
from service.inference.state import Service
from service.settings import Settings, SettingsError
from service.sources.errors import SourceConflict, UnknownSource
from service.sources.messages import SourceRequest, WebhookRequest
from service.sources.outbox import Outbox
from service.sources.recording import RecordingFolder, SourceRecording
from service.sources.source import Deliveries, ManagedSource
from service.sources.webhook import Webhook
from service.streaming.handshake import set_up
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import SourceForbidden
from service.video.frames import require_av
from service.wire import documents

WEBHOOK_QUEUE, RECORD_QUEUE = 256, 1024
"""Results that wait for a webhook, and for the disk; then the oldest are dropped."""
REMOVE_S = 5.0
"""Seconds in which a source that is removed delivers its last results."""


class Sources:
    """All sources, by id. Used on the event loop."""

    def __init__(self, service: Service) -> None:
        """Begin without sources."""
        settings = service.settings
        self._service = service
        self._allowed = AllowedUrls(settings.source_hosts)
        self._webhooks = AllowedUrls(settings.source_webhook_hosts)
        self._folder = None
        if settings.source_record_dir is not None:
            self._folder = RecordingFolder(settings.source_record_dir, settings.source_record_bytes)
        self._sources: dict[str, ManagedSource] = {}
        self._stopping = False

    def require_enabled(self) -> None:
        """Check that this server reads sources at all.

        Raises:
            SourceForbidden: It does not.
        """
        self._allowed.require_any()

    def list_all(self) -> list[ManagedSource]:
        """List the sources in the order in which they were added."""
        return list(self._sources.values())

    def get(self, source_id: str) -> ManagedSource:
        """Find a source.

        Raises:
            UnknownSource: There is none of this id.
        """
        source = self._sources.get(source_id)
        if source is None:
            raise UnknownSource(f"expected the id of a source, got {source_id[:80]!r}; see /sources", source=source_id)
        return source

    async def add(self, request: SourceRequest) -> ManagedSource:
        """Add a source and start it.

        Raises:
            ServiceError: It may not be opened, there are too many, or its options are not valid.
        """
        self.require_enabled()
        require_av()
        self._service.require_ready()
        url = await asyncio.to_thread(self._allowed.require, request.url)
        if request.options.policy == "all" and url.scheme in ("rtsp", "rtsps", "device"):
            raise BadParameter("options.policy: expected latest for a camera, got all; `all` is for files")
        webhook_url = None
        if request.webhook is not None:
            webhook_url = await asyncio.to_thread(self._require_webhook, request.webhook)
        if request.record and self._folder is None:
            raise SourceForbidden("expected a server that records, but its --source-record-dir is not set")
        source_id = uuid.uuid4().hex[:12]
        name = request.name or source_id
        self._require_room(name)
        setup = set_up(request.options, self._service, source_id, name)
        deliveries = self._make_deliveries(request, webhook_url, source_id, name)
        source = ManagedSource(source_id, name, url, setup, self._service, self._allowed, deliveries, self._report)
        self._sources[source_id] = source
        source.start()
        self._report()
        return source

    async def remove(self, source_id: str) -> None:
        """Stop a source and forget it.

        Raises:
            UnknownSource: There is none of this id.
        """
        source = self.get(source_id)
        del self._sources[source_id]
        self._service.metrics.sources.forget(source.name)
        self._report()
        await source.stop(REMOVE_S)

    async def drain(self, patience_s: float) -> None:
        """Stop and forget all sources, and let each deliver its last results."""
        self._stopping = True
        sources, self._sources = list(self._sources.values()), {}
        await asyncio.gather(*(it.stop(patience_s) for it in sources))

    def _require_room(self, name: str) -> None:
        if self._stopping:
            raise stopping()
        most = self._service.settings.source_max
        if len(self._sources) >= most:
            raise SourceConflict(
                f"expected at most {most} sources, got one more; remove one, or raise the server's --source-max",
                max_sources=most,
            )
        if any(it.name == name for it in self._sources.values()):
            raise SourceConflict(f"expected a name that no other source has, got {name!r}; choose another one")

    def _require_webhook(self, request: WebhookRequest) -> VideoUrl:
        if not self._webhooks:
            raise SourceForbidden(
                "webhook.url: expected a server that posts results, but its --source-webhook-hosts is empty; the "
                "operator lists there which hosts may get them"
            )
        if not request.url.lower().startswith(("http://", "https://")):
            raise BadParameter("webhook.url: expected a URL of http or https")
        try:
            return self._webhooks.require(request.url)
        except SourceForbidden as error:
            raise SourceForbidden(
                "webhook." + error.detail.replace("--source-hosts", "--source-webhook-hosts")
            ) from None

    def _make_deliveries(self, request: SourceRequest, url: VideoUrl | None, source_id: str, name: str) -> Deliveries:
        metrics = self._service.metrics.sources
        webhook = record = recording = None
        if request.webhook is not None and url is not None:
            secret = None if request.webhook.secret is None else request.webhook.secret.get_secret_value()
            head = documents.to_json({"source": {"id": source_id, "name": name}})[:-1] + b',"events":'
            sender = Webhook(url, self._webhooks, secret, head)
            webhook = Outbox(
                f"webhook of source {name}", WEBHOOK_QUEUE, sender.deliver, metrics.webhook_events, sender.close
            )
        if request.record and self._folder is not None:
            recording = SourceRecording(self._folder, name)
            record = Outbox(
                f"recording of source {name}", RECORD_QUEUE, recording.write, metrics.recorded_frames, recording.close
            )
        return Deliveries(webhook, "" if url is None else url.redacted, record, recording)

    def _report(self) -> None:
        """Tell the metrics how many sources are in which state, and which of them run."""
        states: Counter[str] = Counter(it.state for it in self._sources.values())
        self._service.metrics.sources.states(states, {it.name: it.state == "running" for it in self._sources.values()})


def require_fitting(settings: Settings) -> None:
    """Check the settings of sources.

    Raises:
        SettingsError: They do not fit the others, PyAV is missing, or the folder of recordings does not exist.
    """
    if not settings.source_hosts:
        return
    if settings.workers > 1:
        raise SettingsError(
            "POSEWRIGHT_SOURCE_HOSTS (--source-hosts): expected no sources with several server processes, because each "
            f"process would know only its own, got --workers {settings.workers}; start a server of one process for them"
        )
    try:
        require_av()
    except Exception as error:
        raise SettingsError(
            "POSEWRIGHT_SOURCE_HOSTS (--source-hosts): expected PyAV, which decodes videos, but it is not installed: "
            "pip install 'posewright[video]'"
        ) from error
    if settings.source_record_dir is not None and not settings.source_record_dir.is_dir():
        raise SettingsError(
            "POSEWRIGHT_SOURCE_RECORD_DIR (--source-record-dir): expected a folder that exists, got "
            f"{str(settings.source_record_dir)!r}; make it first"
        )
    for entry in settings.source_webhook_hosts:
        if entry == "device" or entry.startswith("file:"):
            raise SettingsError(
                "POSEWRIGHT_SOURCE_WEBHOOK_HOSTS (--source-webhook-hosts): expected hosts and networks alone, got "
                f"{entry!r}"
            )
