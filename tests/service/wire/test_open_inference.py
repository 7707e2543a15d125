"""The parser of the Open Inference Protocol: whatever comes is read or refused, and what is written is read alike."""

from __future__ import annotations

import base64
import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest, ServiceError, TooLarge
from service.inference.image import DecodedImage
from service.wire import open_inference, tensors
from service.wire.open_inference import InferReply
from service.wire.tensors import PictureLimits

LIMITS = PictureLimits(count=4, file_bytes=100, pixels=10_000)


def read(body: bytes, header_length: str | None) -> list[bytes | DecodedImage]:
    call = open_inference.read_call(body, header_length)
    return tensors.read_pictures(call.image, call.binary, LIMITS)


def request(image: dict[str, Any], binary: bytes | None = None, **fields: Any) -> tuple[bytes, str | None]:
    """Write a request; with ``binary`` data the image names its size."""
    if binary is not None:
        image = {"parameters": {"binary_data_size": len(binary)}} | image
    head = json.dumps({"inputs": [{"name": "image"} | image]} | fields).encode()
    return head + (binary or b""), None if binary is None else str(len(head))


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(it)) + it for it in files)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
shapes = st.lists(st.integers(-2, 2**70) | st.integers(0, 5), max_size=5)


@given(st.binary(max_size=300), st.none() | st.text(max_size=6) | st.integers(0, 300).map(str))
def test_any_bytes_are_read_or_refused(body: bytes, header_length: str | None) -> None:
    with pytest.raises(ServiceError):  # no random bytes are a request
        read(body, header_length)


@given(
    image=st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["image", "other"]),
            "datatype": st.sampled_from(["BYTES", "UINT8", "FP32", ""]) | json_values,
            "shape": shapes | json_values,
            "data": json_values,
            "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), json_values),
        },
    ),
    fields=st.fixed_dictionaries(
        {}, optional={"id": json_values, "parameters": json_values, "outputs": json_values, "inputs": json_values}
    ),
    binary=st.none() | st.binary(max_size=60),
)
def test_any_request_is_read_or_refused_by_a_message(
    image: dict[str, Any], fields: dict[str, Any], binary: bytes | None
) -> None:
    body, header_length = request(image, binary, **fields)
    try:
        read(body, header_length)
    except (BadRequest, TooLarge) as error:
        said = error.detail
    else:
        assert "inputs" in fields or image["datatype"] in {"BYTES", "UINT8"}
        return
    assert 10 < len(said) < 1000


@given(st.lists(st.binary(min_size=0, max_size=100), min_size=1, max_size=4), st.booleans())
def test_files_come_back_from_binary_data_and_from_base64(files: list[bytes], column: bool) -> None:
    shape = [len(files), 1] if column else [len(files)]
    assert read(*request({"datatype": "BYTES", "shape": shape}, elements(*files))) == files
    data = [base64.b64encode(it).decode() for it in files]
    nested = [[it] for it in data] if column else data
    assert read(*request({"datatype": "BYTES", "shape": shape, "data": nested})) == files


@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 5), st.data())
def test_pixels_come_back_from_binary_data_and_from_flat_or_nested_numbers(
    count: int, height: int, width: int, data: st.DataObject
) -> None:
    """A count of 0 stands for a shape without it."""
    shape = [count, height, width, 3] if count else [height, width, 3]
    size = int(np.prod(shape))
    pixels = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(shape)
    image = {"datatype": "UINT8", "shape": shape}
    for body, header_length in (
        request(image, pixels.tobytes()),
        request(image | {"data": pixels.ravel().tolist()}),
        request(image | {"data": pixels.tolist()}),
    ):
        pictures = read(body, header_length)
        expected = pixels if count else pixels[None]
        assert len(pictures) == len(expected)
        for picture, one in zip(pictures, expected, strict=True):
            assert isinstance(picture, DecodedImage)
            assert picture.pixels.dtype == np.uint8
            assert np.array_equal(picture.pixels, one)


@given(st.binary(min_size=1, max_size=80), st.integers(-79, 20).filter(bool))
def test_truncated_and_surplus_binary_data_are_refused(content: bytes, change: int) -> None:
    body, header_length = request({"datatype": "BYTES", "shape": [1]}, elements(content))
    assert read(body, header_length) == [content]
    changed = body[:change] if change < 0 else body + bytes(change)
    with pytest.raises(BadRequest):
        read(changed, header_length)


FILE = {"datatype": "BYTES", "shape": [1]}
PIXELS = {"datatype": "UINT8", "shape": [1, 2, 3]}


@pytest.mark.parametrize(
    ("image", "binary", "said"),
    [
        ({"datatype": "FP32", "shape": [1, 2, 2, 3], "data": [0.5] * 12}, None, "expected datatype BYTES"),
        (FILE | {"shape": [1, 2]}, elements(b"x"), "expected shape [N] or [N, 1]"),
        (FILE | {"shape": []}, elements(b"x"), "expected shape [N] or [N, 1]"),
        (FILE | {"shape": [5]}, elements(b"x"), "expected 1 to 4 pictures, got 5"),
        (FILE | {"shape": [0]}, b"", "expected 1 to 4 pictures, got 0"),
        (FILE | {"shape": [2]}, elements(b"x"), "end before the length of element 1"),
        (FILE, struct.pack("<I", 9) + b"x", "expected 9 bytes in element 0 as its length says, got 1"),
        (FILE, elements(b"x") + b"yz", "expected 5 bytes for 1 elements, got 7"),
        (FILE, None, "got neither"),
        (FILE | {"data": ["eA=="]}, b"", "got both"),
        (FILE | {"data": ["no base64!"]}, None, "expected base64"),
        (FILE | {"data": [1]}, None, "expected base64"),
        (FILE | {"data": ["eA==", "eA=="]}, None, "expected 1 elements"),
        (FILE | {"parameters": {"binary_data_size": -1}}, b"", "to be a number of bytes, got -1"),
        (FILE | {"parameters": {"binary_data_size": True}}, b"x", "to be a number of bytes, got True"),
        (FILE | {"parameters": {"binary_data_size": 7}}, b"x", "expected 7 bytes behind the JSON"),
        (FILE | {"parameters": {"shared_memory_region": "r"}}, None, "shared memory"),
        (PIXELS | {"shape": [2, 3]}, bytes(6), "expected shape [height, width, 3]"),
        (PIXELS | {"shape": [3, 2, 2]}, bytes(12), "expected shape [height, width, 3]"),
        (PIXELS | {"shape": [0, 2, 3]}, b"", "px a side"),
        (PIXELS | {"shape": [-1, -2, 3]}, bytes(6), "px a side"),
        (PIXELS, bytes(7), "expected 6 bytes for UINT8"),
        (PIXELS | {"data": [0] * 5}, None, "expected 6 numbers"),
        (PIXELS | {"data": [0, 1, 2, 3, 4, 256]}, None, "got 0 to 256"),
        (PIXELS | {"data": [0, 1, 2, 3, 4, 0.5]}, None, "whole numbers"),
        (PIXELS | {"data": [[0, 1, 2], 3, 4, 5]}, None, "nested evenly"),
        (PIXELS | {"shape": ["1", 2, 3]}, bytes(6), "inputs.0.shape.0"),
    ],
)
def test_the_message_says_what_is_wrong(image: dict[str, Any], binary: bytes | None, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(*request(image, binary))
    assert said in caught.value.detail


def test_pictures_over_the_limits_are_refused() -> None:
    for image, binary in ((FILE, elements(bytes(101))), (PIXELS | {"shape": [101, 100, 3]}, bytes(30_300))):
        with pytest.raises(TooLarge):
            read(*request(image, binary))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outputs": [{"name": "masks"}]}, "expected outputs of"),
        ({"outputs": [{"name": "boxes"}, {"name": "boxes"}]}, "each once"),
        ({"outputs": [{"name": "boxes", "parameters": {"classification": 1}}]}, "classification"),
        ({"outputs": [{"name": "boxes", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"parameters": {"min_scores": 0.3}}, "min_scores"),
        ({"parameters": {"min_score": 7}}, "min_score"),
        ({"inputs": []}, "expected one input 'image', got []"),
        ({"inputs": [{"name": "pixels", "datatype": "BYTES", "shape": [1]}]}, "got ['pixels']"),
        ({"id": 7}, "id"),
    ],
)
def test_parts_of_the_request_are_checked(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(*request(FILE | {"data": ["eA=="]}, **fields))
    assert said in caught.value.detail


def test_json_of_very_many_values_is_refused_before_it_is_parsed() -> None:
    body, _ = request(PIXELS)
    with pytest.raises(BadRequest, match="brackets and commas"):
        read(body[:-1] + b', "x": [' + b"[]," * open_inference.MAX_TOKENS + b"0]}", None)


@pytest.mark.parametrize("length", ["", "-1", "1e2", "99999", "٣", "0x10", "1" * 400])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    body, _ = request(FILE | {"data": ["eA=="]})
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        read(body, length)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans())
def test_outputs_are_padded_and_written_in_json_or_binary(counts: list[int], binary: bool) -> None:
    rows = [np.arange(count * 2, dtype=np.float32).reshape(count, 2) + 0.1 for count in counts]
    padded = tensors.pad(rows)
    assert padded.shape == (len(counts), max(counts), 2)
    description, content = tensors.write_tensor("boxes", padded, binary)
    InferReply.model_validate({"model_name": "m", "model_version": "1", "outputs": [description]})
    assert description["shape"] == list(padded.shape)
    if binary:
        assert description["parameters"]["binary_data_size"] == len(content)
    values = np.frombuffer(content, "<f4") if binary else np.array(description["data"], np.float32)
    restored = values.reshape(padded.shape)
    for row, one in zip(restored, rows, strict=True):
        assert np.array_equal(row[: len(one)], one)
        assert not row[len(one) :].any()


LONG = "a" * 1_000_000


IMAGE = '{"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}'


@pytest.mark.parametrize("end", ["", "é", "😀", "\\ud83d\\ude00"])
@pytest.mark.parametrize(
    "text",
    [
        '{"id": "LONG", "inputs": []}',
        '{"LONG": 1, "inputs": []}',
        '{"inputs": "LONG"}',
        '{"inputs": [' + IMAGE.replace("image", "LONG") + "]}",
        '{"inputs": [' + IMAGE.replace("BYTES", "LONG") + "]}",
        '{"inputs": [' + IMAGE.replace('[""]', '["LONG"]') + "]}",
        '{"inputs": [' + IMAGE[:-1] + ', "parameters": {"LONG": 1}}]}',
        '{"inputs": [' + IMAGE + '], "outputs": [{"name": "LONG"}]}',
        '{"inputs": [' + IMAGE + '], "outputs": [{"name": "boxes", "parameters": {"LONG": 1}}]}',
    ],
)
def test_long_texts_take_little_memory_and_short_messages(text: str, end: str) -> None:
    body, message = text.replace("LONG", LONG + end).encode(), ""
    tracemalloc.start()
    try:
        read(body, None)
    except ServiceError as error:
        message = error.detail
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(message) < 1000
    assert peak < 4 * len(body)


@pytest.mark.parametrize("place", ['{"parameters": {MANY}, "inputs": []}', '{"inputs": [{"parameters": {MANY}}]}'])
def test_very_many_unknown_names_are_refused_before_they_are_read(place: str) -> None:
    body = place.replace("MANY", ",".join(f'"{i:x}":1' for i in range(100_000))).encode()
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="quotation marks"):
            read(body, None)
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()
