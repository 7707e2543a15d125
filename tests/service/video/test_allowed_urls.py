"""Which URLs may be opened, and what is left of their secrets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import BadParameter, ServiceError
from service.settings import Settings
from service.video.allowed_urls import AllowedUrls, redacted
from service.video.errors import SourceForbidden, VideoUnreadable


def listing(*entries: str) -> AllowedUrls:
    return AllowedUrls(Settings(source_hosts=entries).source_hosts)


def test_nothing_is_allowed_by_default() -> None:
    allowed = AllowedUrls(Settings().source_hosts)
    assert not allowed
    for url in ("rtsp://127.0.0.1/a", "http://localhost/a", "file:///etc/passwd", "device:/dev/video0"):
        with pytest.raises(SourceForbidden, match="is empty"):
            allowed.require(url)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("10.0.0.0/8", "rtsp://user:pw@10.1.2.3:8554/stream?channel=1"),
        ("10.1.2.3", "http://10.1.2.3/video.mjpg"),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]/video"),
        ("fd00::/8", "rtsps://[fd00::1]/a"),
        ("Camera.local", "rtsp://CAMERA.local./a"),
        ("*.cameras.example.org", "https://front.door.cameras.example.org/a"),
        ("device", "device:/dev/video0"),
        ("localhost", "http://localhost/a"),
    ],
)
def test_what_is_listed_is_allowed(entry: str, url: str) -> None:
    assert listing(entry).require(url).url == url


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("10.0.0.0/8", "rtsp://11.1.2.3/a"),
        ("10.0.0.0/8", "http://127.0.0.1/a"),
        ("10.0.0.0/8", "http://localhost/a"),
        ("10.0.0.0/8", "http://2130706433/a"),  # 127.0.0.1 as one number
        ("10.0.0.0/8", "http://0x7f.1/a"),
        ("10.0.0.0/8", "http://[::ffff:127.0.0.1]/a"),
        ("camera.local", "rtsp://camera.local.evil.example/a"),
        ("camera.local", "rtsp://camera.local@127.0.0.1/a"),
        ("*.cameras.example.org", "https://cameras.example.org.invalid/a"),
        ("camera.local", "file:///etc/passwd"),
        ("camera.local", "device:/dev/video0"),
        ("device", "rtsp://127.0.0.1/a"),
    ],
)
def test_what_is_not_listed_is_forbidden(entry: str, url: str) -> None:
    with pytest.raises(SourceForbidden):
        listing(entry).require(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "camera.local", "ftp://10.0.0.1/a", "concat:a|b", "tcp://10.0.0.1:1", "http:///a", "rtsp://10.0.0.1:99999/",
        "http://10.0.0.1/a\r\nX: y", "http://10.0.0.1/a b", "http://10.0.0.1\\@evil/", "http://[10.0.0.1/", "device:x",
        "device:/dev/sda", "device:/dev/video0/../sda", "file://elsewhere/a", "file:a", "file:///a?b",
        "http://h/" + "a" * 3000,
    ],
)  # fmt: skip
def test_other_texts_are_no_urls(url: str) -> None:
    with pytest.raises(BadParameter):
        listing("0.0.0.0/0", "::/0", "device", "file:/").require(url)


@pytest.mark.parametrize("entry", ["*", "camera.local:80", "http://a", "file:videos", "1.2.3", "10.0.0.0/99", "a b"])
def test_entries_that_mean_nothing_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="source_hosts"):
        Settings(source_hosts=entry)


def resolving(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let every name resolve to an address, as an attacker's DNS server does; numbers stay what they are."""
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> object:
        return real(address, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "224.0.0.1"])
def test_a_listed_name_does_not_lead_to_this_machine_or_to_special_addresses(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, address)
    allowed = listing("camera.local", "10.0.0.0/8")
    with pytest.raises(SourceForbidden):
        allowed.connect(allowed.require("rtsp://camera.local/a"), 1)
    with pytest.raises(SourceForbidden):
        allowed.require("rtsp://other.example/a")


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to an allowed address first, and to another one afterwards, leads to no other."""
    with socket.create_server(("127.0.0.2", 0)) as inside, socket.create_server(("127.0.0.3", 0)) as outside:
        port = inside.getsockname()[1]
        addresses = iter(["127.0.0.2", "127.0.0.2", "127.0.0.3"])
        real = socket.getaddrinfo

        def resolve(host: str, *rest: Any, **options: Any) -> Any:  # threads of other tests may ask for other names
            return real(next(addresses) if host == "rebinding.example" else host, *rest, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        allowed = listing("127.0.0.2")
        url = allowed.require(f"http://rebinding.example:{port}/")
        with allowed.connect(url, 5) as connection:
            assert connection.getpeername()[0] == "127.0.0.2"
        with pytest.raises(SourceForbidden):
            allowed.connect(url, 5)
        outside.settimeout(0)
        with pytest.raises(BlockingIOError):
            outside.accept()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "videos" / "sub").mkdir(parents=True)
    (tmp_path / "videos" / "a b.mp4").write_bytes(b"video")
    (tmp_path / "videos" / "sub" / "c.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "videos2").mkdir()
    (tmp_path / "videos2" / "d.mp4").write_bytes(b"secret")
    (tmp_path / "videos" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "videos" / "folder").symlink_to(tmp_path)
    (tmp_path / "videos" / "inside.mp4").symlink_to(tmp_path / "videos" / "a b.mp4")
    return tmp_path


@pytest.mark.parametrize("name", ["a b.mp4", "sub/c.mp4", "sub/../a b.mp4", "inside.mp4", "folder/videos/a b.mp4"])
def test_files_in_a_listed_folder_are_opened(folders: Path, name: str) -> None:
    allowed = listing(f"file:{folders}/videos")
    with allowed.open_file(allowed.require(f"file://{folders}/videos/{quote(name)}")) as file:
        assert file.read() == b"video"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "%2e%2e/secret.mp4",
        "link.mp4",
        "folder/secret.mp4",
        "../videos2/d.mp4",
        "none.mp4",
        "sub/../../secret.mp4",
    ],
)
def test_no_path_or_link_leads_out_of_a_listed_folder(folders: Path, name: str) -> None:
    with pytest.raises(SourceForbidden):
        listing(f"file:{folders}/videos").require(f"file://{folders}/videos/{name}")


def test_a_link_that_is_changed_after_the_check_leads_nowhere(folders: Path) -> None:
    allowed = listing(f"file:{folders}/videos")
    url = allowed.require(f"file://{folders}/videos/inside.mp4")
    (folders / "videos" / "inside.mp4").unlink()
    (folders / "videos" / "inside.mp4").symlink_to(folders / "secret.mp4")
    with pytest.raises(SourceForbidden):
        allowed.open_file(url)


def test_pipes_and_folders_are_no_videos(folders: Path) -> None:
    os.mkfifo(folders / "videos" / "pipe")
    allowed = listing(f"file:{folders}/videos")
    for name in ("pipe", "sub"):
        with pytest.raises(VideoUnreadable):
            allowed.open_file(allowed.require(f"file://{folders}/videos/{name}"))


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.~!$'()*+,;:@/ß", min_size=5, max_size=20)


@given(
    WORDS,
    st.sampled_from(["rtsp", "http", "https", "rtsps"]),
    st.sampled_from(["password", "Token", "api_key", "user"]),
)
@example("secret/with/slashes", "rtsp", "pwd")
@example("se:cr@et", "rtsp", "auth")
def test_no_secret_is_left_in_what_is_shown(word: str, scheme: str, key: str) -> None:
    secret = f"S3cr3t{word}"
    value = quote(secret, safe="")
    for url in (
        f"{scheme}://user:{secret}@192.0.2.1/path",
        f"{scheme}://{secret}@192.0.2.1/path",
        f"{scheme}://192.0.2.1/path?channel=1&{key}={value}&x=2",
        f"{scheme}://192.0.2.1/{key}={value}",
        f"{scheme}://192.0.2.1/user=admin&{key}={value}.sdp?real_stream",
    ):
        assert "S3cr3t" not in redacted(url)
        with pytest.raises(ServiceError) as caught:
            listing("10.0.0.0/8").require(url)
        assert "S3cr3t" not in caught.value.detail
        assert "S3cr3t" not in repr(caught.value.extras)


def test_what_is_no_secret_is_shown() -> None:
    assert redacted("rtsp://u:p@camera:554/live?channel=1") == "rtsp://***@camera:554/live?channel=1"
    assert redacted("file:///videos/a.mp4") == "file:///videos/a.mp4"
