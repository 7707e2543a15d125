"""Pictures out of bodies."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import bodies
from service.errors import BadRequest, ServiceError, UnsupportedType

# Bytes that look like the boundary's beginning are the ones a parser trips over.
awkward = st.lists(st.sampled_from([b"\r\n", b"--", b"\r\n--b", b"b", b"\0", b"data"]), max_size=20).map(b"".join)


def multipart(contents: list[bytes]) -> tuple[bytes, str]:
    files = [("image", (f"{i}.jpg", content)) for i, content in enumerate(contents)]
    request = httpx.Request(
        "POST", "http://test", files=files, headers={"Content-Type": "multipart/form-data; boundary=bb"}
    )
    return request.read(), request.headers["content-type"]


@given(st.lists(st.binary(max_size=300) | awkward, min_size=1, max_size=5))
def test_multipart_parts_come_out_as_they_went_in(contents: list[bytes]) -> None:
    contents = [content for content in contents if b"\r\n--bb" not in content] or [b""]
    assert bodies.from_multipart(*multipart(contents), most=5) == contents


@given(st.integers(0, 400))
def test_a_multipart_body_that_breaks_off_is_refused(length: int) -> None:
    body, content_type = multipart([b"picture " * 20])
    whole = body.rstrip(b"\r\n")
    if length < len(whole):
        with pytest.raises(BadRequest):
            bodies.from_multipart(body[:length], content_type, most=1)


@pytest.mark.parametrize("most", [1, 3])
def test_parts_beyond_the_most_are_refused_without_being_read(most: int) -> None:
    """What follows makes no multipart, and nobody gets so far."""
    body, content_type = multipart([b"a picture"] * most)
    surplus = multipart([b"a picture"] * (most + bodies.SURPLUS_PARTS))[0]
    opened = surplus.replace(b"--bb--", b"--bb") + b"\r\n"
    assert bodies.from_multipart(body, content_type, most) == [b"a picture"] * most
    with pytest.raises(BadRequest, match=f"'image', got {most + bodies.SURPLUS_PARTS}"):
        bodies.from_multipart(surplus, content_type, most)
    with pytest.raises(BadRequest, match="multipart fields, got more"):
        bodies.from_multipart(opened + b"no header \r\n" * 3, content_type, most)


@pytest.mark.parametrize("filler", [b"{}", b"[]", b"0"])
def test_json_of_many_values_is_refused_before_it_is_parsed(filler: bytes) -> None:
    body = b'{"image": "", "x": [' + b",".join([filler] * 100) + b"]"  # no end: a parser would say so
    with pytest.raises(BadRequest, match="more than 100 brackets and commas"):
        bodies.picture([body], "application/json", 1000)


@given(st.binary(max_size=500))
def test_noise_is_refused(body: bytes) -> None:
    for content_type in ("multipart/form-data; boundary=b", "application/json"):
        with pytest.raises(ServiceError) as caught:
            bodies.picture([body], content_type, 1000)
        assert caught.value.status in {400, 422}


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (None, "raw"), ("image/jpeg", "raw"), ("IMAGE/PNG; q=1", "raw"), ("application/json; charset=utf-8", "json"),
        ("multipart/form-data; boundary=x", "multipart"),
    ],
)  # fmt: skip
def test_forms(content_type: str | None, form: str) -> None:
    assert bodies.form_of(content_type) == form


@pytest.mark.parametrize("content_type", ["text/plain", "image/gif", "image/", "json", ";"])
def test_other_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedType, match="expected a Content-Type of image/jpeg"):
        bodies.form_of(content_type)
