"""A real browser: headless Chromium, controlled through its DevTools protocol over a WebSocket.

The tests need about a dozen commands, for which a driver such as Playwright with its Node.js would be large.
"""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where Chromium's sandbox does not work
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)


def program() -> str | None:
    """Path of a Chromium, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def camera(clip: Path) -> list[str]:
    """Flags for a fake camera that plays a clip (Motion JPEG, ``*.mjpeg``)."""
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={clip}"]


NAVIGATED = (
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
)
"""Errors of the browser for a script whose page was replaced by another one."""


class PageReplacedError(Exception):
    """The page of a script was replaced by another one."""


class Browser:
    """A running Chromium."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._replies: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()  # reentrant
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for text in self._connection:
                message = json.loads(text)
                if "id" in message:
                    self._replies.pop(message["id"]).put(message)
                else:
                    with self._changed:
                        self._events.append(message)
                        self._changed.notify_all()
        except ConnectionClosed:
            pass

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Run a command of the protocol (chromedevtools.github.io/devtools-protocol); returns its result."""
        number, reply = next(self._numbers), queue.Queue[dict[str, Any]]()
        self._replies[number] = reply
        command = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(command if session is None else command | {"sessionId": session}))
        answer = reply.get(timeout=PATIENCE_S)
        message = answer.get("error", {}).get("message", "")
        if message in NAVIGATED:
            raise PageReplacedError(message)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def events(self, session: str | None, method: str) -> list[dict[str, Any]]:
        """Events of one kind so far, in a tab, or in the browser if the session is None."""
        with self._changed:
            return [it["params"] for it in self._events if (it.get("sessionId"), it["method"]) == (session, method)]

    def wait_for_event(self, session: str | None, method: str, count: int) -> dict[str, Any]:
        """The ``count``-th event of a kind."""
        self.wait_until(lambda _: len(self.events(session, method)) >= count)
        return self.events(session, method)[count - 1]

    def wait_until(self, happened: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait for a condition on the events."""
        with self._changed:
            assert self._changed.wait_for(lambda: happened(self._events), PATIENCE_S), "the browser sent no such event"

    @contextmanager
    def tab(self, size: tuple[int, int] = (1280, 800), *, phone: bool = False, scheme: str = "light") -> Iterator[Tab]:
        """A tab with its own storage and permissions."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.send(f"{domain}.enable")
        scale = 3 if phone else 1
        tab.send(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=scale, mobile=phone
        )
        tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        try:
            yield tab
        finally:
            self.send("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One page in a browser."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **params)

    def events(self, method: str) -> list[dict[str, Any]]:
        return self._browser.events(self._session, method)

    def allow(self, *names: str) -> None:
        """Grant permissions of the web (w3.org/TR/permissions) to every page of this tab."""
        for name in names:
            self._browser.send(
                "Browser.setPermission", permission={"name": name}, setting="granted", browserContextId=self._context
            )

    def open(self, url: str, *, camera: str | None = "granted") -> Self:
        """Open a page; ``camera`` is the permission ``granted`` or ``denied``, or None to leave it unset."""
        if camera is not None:
            self._browser.send(
                "Browser.setPermission",
                permission={"name": "camera"},
                setting=camera,
                origin=url.rstrip("/"),
                browserContextId=self._context,
            )
        seen = len(self.events("Page.loadEventFired"))
        self.send("Page.navigate", url=url)
        self._browser.wait_for_event(self._session, "Page.loadEventFired", seen + 1)
        return self

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression, await it, and return its value."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        fault = answer.get("exceptionDetails")
        assert fault is None, fault.get("exception", fault).get("description", fault)
        return answer["result"].get("value")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function, and return its result."""
        return self.run(f"({function})(...{json.dumps(arguments)})")

    def wait_for(self, condition: str) -> Any:
        """Wait until a JavaScript expression is truthy, on this page or on one that replaces it; returns the value."""
        poll = (
            "new Promise((resolve) => { const poll = () => { const value = ("
            + condition
            + "); if (value) resolve(value); else setTimeout(poll, 30); }; poll(); })"
        )
        while True:
            try:
                return self.run(poll)
            except PageReplacedError:
                continue
            except queue.Empty:
                raise AssertionError(f"never became true: {condition}; the page shows: {self.text('body')}") from None

    def text(self, selector: str) -> str:
        """Text of an element."""
        return str(self.call("(it) => document.querySelector(it)?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with a real mouse event."""
        self.call(
            "(it) => document.querySelector(it).scrollIntoView({block: 'nearest', behavior: 'instant'})", selector
        )
        x, y = self.center(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def center(self, selector: str) -> tuple[float, float]:
        script = "(it) => { const r = document.querySelector(it).getBoundingClientRect(); "
        x, y = self.call(script + "return [r.x + r.width / 2, r.y + r.height / 2]; }", selector)
        return x, y

    def press(self, key: str, code: int) -> None:
        """Press a key without a character; ``code`` is its virtual key code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def choose(self, selector: str, *paths: Path) -> None:
        """Choose files in a file input."""
        document = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(it) for it in paths])

    def drop(self, selector: str, path: Path) -> None:
        """Drag a file from outside onto an element, and drop it."""
        x, y = self.center(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in (
            "dragEnter",
            "dragOver",
            "dragOver",
            "drop",
        ):  # Chromium drops only after an accepted dragOver
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def download(self, folder: Path, act: Callable[[], None]) -> Path:
        """Run an action that downloads a file; returns its path."""
        self._browser.send(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            browserContextId=self._context,
            eventsEnabled=True,
        )
        known = len(self._browser.events(None, "Browser.downloadWillBegin"))
        act()
        begun = self._browser.wait_for_event(None, "Browser.downloadWillBegin", known + 1)
        self._browser.wait_until(
            lambda events: any(
                it["method"] == "Browser.downloadProgress"
                and (it["params"]["guid"], it["params"]["state"]) == (begun["guid"], "completed")
                for it in events
            )
        )
        return folder / str(begun["suggestedFilename"])

    def faults(self) -> list[str]:
        """Exceptions, errors and warnings in the console."""
        thrown = [str(it["exceptionDetails"]) for it in self.events("Runtime.exceptionThrown")]
        said = [str(it["args"]) for it in self.events("Runtime.consoleAPICalled") if it["type"] in {"error", "warning"}]
        logged = [it["entry"]["text"] for it in self.events("Log.entryAdded") if it["entry"]["level"] == "error"]
        return thrown + said + logged

    def addresses(self) -> set[str]:
        """All URLs that the page requested."""
        asked = {it["request"]["url"] for it in self.events("Network.requestWillBeSent")}
        return asked | {it["url"] for it in self.events("Network.webSocketCreated")}


@contextmanager
def running(profile: Path, flags: Sequence[str] = ()) -> Iterator[Browser]:
    """Run a Chromium until the block ends.

    Args:
        profile: An empty folder.
        flags: Additional command line flags.
    """
    path = program()
    assert path is not None
    command = [path, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on"))
            # Chromium would block if nobody read its pipe.
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            with connect(address, max_size=None, compression=None) as connection:
                browser = Browser(connection)
                yield browser
                browser.send("Browser.close")
            process.wait(PATIENCE_S)
            drain.join(PATIENCE_S)
        finally:
            process.kill()
