"""The journal of model changes that the server processes of one machine share, so that all serve the same models."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from service.settings import SettingsError

log = logging.getLogger(__name__)
Action = Literal["load", "unload", "rollback"]
FILE = "model-control.jsonl"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that one process has made.

    Attributes:
        action: What it did.
        name: The model's name.
        bundle: sha256 (hex) of the manifest that serves since; after ``unload``, of the one that did.
    """

    action: Action
    name: str
    bundle: str


class ControlJournal:
    """A file of changes, one a line, in the order in which every process makes them."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of a folder, which is made if it is missing.

        Raises:
            SettingsError: The folder cannot be written to.
        """
        self._path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise SettingsError(
                f"run_dir: expected a folder that this server can write to, got {folder}: {error.strerror}; choose "
                "another with --run-dir"
            ) from error
        self._process = uuid.uuid4().hex
        self._offset = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep the other processes from changing models until the block ends."""
        import fcntl  # noqa: PLC0415 - Windows has none, and no server of several processes

        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases it
            yield

    def unread(self) -> list[Change]:
        """Read the changes that other processes have made since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        changes = []
        for line in whole.splitlines():
            try:
                fields = json.loads(line)
                if fields.pop("process") != self._process:
                    changes.append(Change(**fields))
            except (ValueError, TypeError, KeyError, AttributeError):  # cut off where the disk was full
                log.warning("%s: a line is no change of a model: %r", self._path, line[:80])
        return changes

    def append(self, change: Change) -> None:
        """Add a change of this process, during its turn.

        Raises:
            OSError: The disk is full, for example.
        """
        line = json.dumps(asdict(change) | {"process": self._process}).encode() + b"\n"
        with self._path.open("r+b") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - 1))
            if file.read(1) not in {b"", b"\n"}:  # a line was cut off
                line = b"\n" + line
            file.write(line)
