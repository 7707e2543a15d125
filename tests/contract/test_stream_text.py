"""Text of a stream that is not UTF-8."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import Running
from tests.streaming import TEXT, bare, packed

INVALID = packed(TEXT, b"\xff\xfe no UTF-8")
CLOSE = 0x88


@pytest.mark.parametrize("sent", [INVALID, INVALID * 3 + packed(TEXT, b"{}")], ids=["once", "with-more-behind"])
def test_text_that_is_not_utf8_closes_the_stream_with_1007(
    server: Running, sent: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    with bare(server.url) as connection:
        connection.sendall(sent)
        answer = b""
        while more := connection.recv(1000):
            answer += more
    assert answer[0] == CLOSE
    assert answer[2:] == (1007).to_bytes(2) + b"expected text in UTF-8"
    assert not [record for record in caplog.records if record.exc_info]  # a client must not fill the log
