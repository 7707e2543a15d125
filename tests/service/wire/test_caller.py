"""Who calls."""

from __future__ import annotations

import pytest

from service.wire.caller import ApiKey, Caller, counted_address


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_addresses_are_counted_by_what_one_connection_has(host: str, counted: str) -> None:
    assert counted_address(host) == counted


def test_a_caller_shows_the_name_of_its_key_alone() -> None:
    shown = repr(Caller("192.0.2.1", ApiKey("camera", b"digest")))
    assert "camera" in shown
    assert "digest" not in shown
