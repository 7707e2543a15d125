"""Pictures in request bodies."""

from __future__ import annotations

import base64
import json
import tracemalloc

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import BadRequest, ServiceError, UnsupportedType
from service.http import multipart as multipart_
from service.http.body import Body
from service.http.upload_budget import UploadBudget

# Bytes that resemble the beginning of the boundary are hard for a parser.
awkward = st.lists(st.sampled_from([b"\r\n", b"--", b"\r\n--b", b"b", b"\0", b"data"]), max_size=20).map(b"".join)


def multipart(contents: list[bytes]) -> tuple[bytes, str]:
    files = [("image", (f"{i}.jpg", content)) for i, content in enumerate(contents)]
    request = httpx.Request(
        "POST", "http://test", files=files, headers={"Content-Type": "multipart/form-data; boundary=bb"}
    )
    return request.read(), request.headers["content-type"]


def body_of(content_type: str | None, max_bytes: int = 1000) -> Body:
    headers = {} if content_type is None else {"content-type": content_type}
    return Body.of_one(Headers(headers), max_bytes, UploadBudget(max_bytes, upload_s=1))


def picture(body: bytes, content_type: str, max_bytes: int) -> bytes:
    return body_of(content_type, max_bytes).picture([body], max_bytes)


@given(st.lists(st.binary(max_size=300) | awkward, min_size=1, max_size=5))
def test_multipart_parts_are_read_as_they_were_written(contents: list[bytes]) -> None:
    contents = [content for content in contents if b"\r\n--bb" not in content] or [b""]
    assert multipart_.images(*multipart(contents), max_count=5) == contents


@given(st.integers(0, 400))
def test_an_incomplete_multipart_body_is_refused(length: int) -> None:
    body, content_type = multipart([b"picture " * 20])
    whole = body.rstrip(b"\r\n")
    if length < len(whole):
        with pytest.raises(BadRequest):
            multipart_.images(body[:length], content_type, max_count=1)


@pytest.mark.parametrize("max_count", [1, 3])
def test_too_many_parts_are_refused_without_reading_the_rest(max_count: int) -> None:
    """The rest is not valid multipart, which the parser never notices."""
    body, content_type = multipart([b"a picture"] * max_count)
    surplus = multipart([b"a picture"] * (max_count + multipart_.SURPLUS_PARTS))[0]
    opened = surplus.replace(b"--bb--", b"--bb") + b"\r\n"
    assert multipart_.images(body, content_type, max_count) == [b"a picture"] * max_count
    with pytest.raises(BadRequest, match=f"'image', got {max_count + multipart_.SURPLUS_PARTS}"):
        multipart_.images(surplus, content_type, max_count)
    with pytest.raises(BadRequest, match="multipart fields, got more"):
        multipart_.images(opened + b"no header \r\n" * 3, content_type, max_count)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\r\n--bbx" * 100_000, "10 lines with the boundary"), (b"\r\n--bb" + b" \t" * 100_000, "very many blanks")],
    ids=["boundaries", "padding"],
)
def test_a_part_that_keeps_the_parser_busy_is_refused(content: bytes, expected: str) -> None:
    """The parser needs some tenths of a microsecond for each of these bytes."""
    body, content_type = multipart([content])
    with pytest.raises(BadRequest, match=expected):
        multipart_.images(body, content_type, max_count=1)


@pytest.mark.parametrize("filler", [b"{}", b"[]", b"0"])
def test_json_of_many_values_is_refused_before_it_is_parsed(filler: bytes) -> None:
    body = b'{"image": "", "x": [' + b",".join([filler] * 100) + b"]"  # incomplete, as a parser would report
    with pytest.raises(BadRequest, match="more than 100 brackets and commas"):
        picture(body, "application/json", 1000)


@given(st.binary(max_size=500))
def test_random_bytes_are_refused(body: bytes) -> None:
    for content_type in ("multipart/form-data; boundary=b", "application/json"):
        with pytest.raises(ServiceError) as caught:
            picture(body, content_type, 1000)
        assert caught.value.status in {400, 422}


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (None, "raw"), ("", "raw"), ("image/jpg", "raw"), ("image/pjpeg", "raw"), ("image/heic", "raw"),
        ("binary/octet-stream", "raw"), ("application/octet-stream", "raw"),
        ("image/jpeg", "raw"), ("IMAGE/PNG; q=1", "raw"), ("application/json; charset=utf-8", "json"),
        ("multipart/form-data; boundary=x", "multipart"),
    ],
)  # fmt: skip
def test_the_content_type_tells_the_form(content_type: str | None, form: str) -> None:
    assert body_of(content_type).form == form


@pytest.mark.parametrize("content_type", ["text/plain", "video/mp4", "image/", "json", ";"])
def test_other_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedType, match="expected a Content-Type of image/jpeg"):
        body_of(content_type)


@given(
    content=st.binary(min_size=1, max_size=100),
    url_safe=st.booleans(),
    padded=st.booleans(),
    every=st.integers(1, 80),
    blank=st.sampled_from([" ", "\n", "\r\n", "\t"]),
    before=st.sampled_from(["", "data:image/png;base64,", " \ndata:;base64,", "DATA:image/jpeg;base64, "]),
)
def test_base64_is_read_in_all_common_spellings(
    content: bytes, url_safe: bool, padded: bool, every: int, blank: str, before: str
) -> None:
    code = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(content).decode()
    code = code if padded else code.rstrip("=")
    lines = blank.join(code[i : i + every] for i in range(0, len(code), every))
    body = json.dumps({"image": before + lines}).encode()
    assert picture(body, "application/json", 100) == content


@pytest.mark.parametrize("code", ["A", "AAAAA", "AA=A", "A*==", "AAAA AA.A", "é", "====A"])
def test_invalid_base64_is_refused(code: str) -> None:
    with pytest.raises(BadRequest, match="expected base64 in the field 'image'"):
        picture(json.dumps({"image": code}).encode(), "application/json", 100)


@pytest.mark.parametrize("filler", ["AA ", "AA\\n", "A\\/", "A"])
# Python stores every character of a string with four bytes if one of them needs four.
@pytest.mark.parametrize("end", ["", "\\ud83d\\ude00", "😀"])
@pytest.mark.parametrize("start", ['{"image": "', '{"image": "", "'], ids=["value", "key"])
def test_parsing_json_takes_little_more_than_four_times_the_body_in_memory(start: str, filler: str, end: str) -> None:
    close = '"}' if start.endswith(': "') else '": ""}'
    body = (start + filler * (3_000_000 // len(filler)) + end + close).encode()
    tracemalloc.start()
    try:
        picture(body, "application/json", 10_000_000)
    except ServiceError:
        assert end or close != '"}'
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4.5 * len(body)
