"""The host names of a server."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import UnknownHost
from service.http.allowed_hosts import AllowedHosts
from service.settings import Settings

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
PUBLIC_NAME = st.lists(LABEL, min_size=1, max_size=3).map(lambda it: ".".join([*it, "example"]))
PORT = st.sampled_from(["", ":", ":1", ":8000", ":65535"])
LISTENING = st.sampled_from(["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "192.168.1.5", "nas.home.example"])


def allowed(settings: Settings, *hosts: str) -> bool:
    try:
        AllowedHosts(settings).require(Headers(raw=[(b"host", host.encode("latin-1")) for host in hosts]))
    except UnknownHost:
        return False
    return True


@given(LISTENING, PUBLIC_NAME, PORT)
def test_public_names_are_refused_unless_they_are_configured(host: str, name: str, port: str) -> None:
    assert allowed(Settings(host=host), name + port) == (name == host)
    assert allowed(Settings(host=host, allowed_hosts=(name,)), name.upper() + "." + port)
    assert allowed(Settings(host=host, allowed_hosts=("*." + name,)), "a.b." + name + port)
    assert not allowed(Settings(host=host, allowed_hosts=("*." + name,)), "a.b-" + name + port)
    assert allowed(Settings(host=host, allowed_hosts=("*",)), name + port)


@given(LISTENING, st.ip_addresses() | st.just("localhost") | LABEL.map(lambda it: it + ".localhost"), PORT)
def test_addresses_and_loopback_names_are_always_allowed(host: str, name: object, port: str) -> None:
    written = f"[{name}]" if isinstance(name, IPv6Address) and name.scope_id is None else str(name)
    assert allowed(Settings(host=host), written + port)


@pytest.mark.parametrize(
    "host",
    ["evil.example@localhost", "localhost@evil.example", "localhost/evil.example", "localhost:80:evil.example",
     "127.0.0.1.evil.example", "127.0.0.1 evil.example", "[::1].evil.example", "[::1", "localhost.evil.example",
     "notlocalhost.example", ".", "..", "./", ":80", "loc\xe4lhost"],
)  # fmt: skip
@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
def test_names_that_only_resemble_an_allowed_one_are_refused(listening: str, host: str) -> None:
    assert not allowed(Settings(host=listening), host)
    assert not allowed(Settings(host=listening), "localhost", host)


def test_local_names_are_allowed() -> None:
    own = socket.gethostname().partition(".")[0]
    for name in ("posewright", "nas:8000", "localhost", own, own + ".local:8000"):
        assert allowed(Settings(), name)
    assert not allowed(Settings(), "another-than-" + own + ".local")


def test_requests_without_a_host_are_allowed() -> None:
    assert allowed(Settings())
    assert allowed(Settings(), "")
