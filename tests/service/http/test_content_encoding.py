"""Compressed bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest, TooLarge, UnsupportedType
from service.http import content_encoding


def raw_deflate(content: bytes) -> bytes:
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compress.compress(content) + compress.flush()


WRITERS = {"gzip": gzip.compress, "zlib": zlib.compress, "raw": raw_deflate}


@given(content=st.binary(max_size=400), kind=st.sampled_from(sorted(WRITERS)), at=st.integers(0, 500))
def test_compressed_bodies_are_decompressed_within_the_limit(content: bytes, kind: str, at: int) -> None:
    body = WRITERS[kind](content)
    encoding = content_encoding.of(["gzip" if kind == "gzip" else "deflate"])
    assert content_encoding.decode([body[:at], body[at:]], encoding, len(content)) == content
    if content:
        with pytest.raises(TooLarge):
            content_encoding.decode([body], encoding, len(content) - 1)


@given(content=st.binary(max_size=400), share=st.floats(0, 1, exclude_max=True))
def test_incomplete_bodies_are_refused(content: bytes, share: float) -> None:
    for kind, encoding in (("gzip", "gzip"), ("zlib", "deflate")):
        body = WRITERS[kind](content)
        with pytest.raises(BadRequest):
            content_encoding.decode([body[: int(share * len(body))]], content_encoding.of([encoding]), 400)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_stay_within_the_limit(body: bytes) -> None:
    for encoding in ("gzip", "deflate"):
        with suppress(BadRequest, TooLarge):
            assert len(content_encoding.decode([body], content_encoding.of([encoding]), 100)) <= 100


def test_several_gzip_members_are_one_body_up_to_a_maximum_number() -> None:
    member = gzip.compress(b"ab")
    assert content_encoding.decode([member * 3], "gzip", 6) == b"ababab"
    with pytest.raises(TooLarge):
        content_encoding.decode([member * 3], "gzip", 5)
    with pytest.raises(BadRequest, match="at most 100 gzip members"):
        content_encoding.decode([member * 101], "gzip", 1000)


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_a_body_is_not_kept_twice(encoding: content_encoding.Encoding | None) -> None:
    content = bytes(range(256)) * 4000
    body = content if encoding is None else gzip.compress(content)
    chunks = [body[:1000], body[1000:]]
    assert content_encoding.decode(chunks, encoding, len(content)) == content
    assert chunks == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_decompression_bomb_takes_little_memory(encoding: str) -> None:
    body = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        content_encoding.decode([body], content_encoding.of([encoding]), 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("lines", [[], [""], ["identity"], ["identity, "]])
def test_bodies_may_be_uncompressed(lines: list[str]) -> None:
    assert content_encoding.of(lines) is None


@pytest.mark.parametrize("lines", [["GZIP"], ["x-gzip"], ["identity, gzip"], ["identity", "gzip"]])
def test_gzip_has_several_spellings(lines: list[str]) -> None:
    assert content_encoding.of(lines) == "gzip"


@pytest.mark.parametrize(
    "lines", [["br"], ["zstd"], ["compress"], ["gzip, gzip"], ["gzip", "deflate"], ["aws-chunked"]]
)
def test_the_error_names_other_encodings(lines: list[str]) -> None:
    with pytest.raises(UnsupportedType, match=f"gzip or deflate, or none, got {', '.join(lines)!r}") as caught:
        content_encoding.of(lines)
    assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}
