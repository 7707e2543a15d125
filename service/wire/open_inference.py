"""The Open Inference Protocol (version 2, over HTTP) and Triton's model repository extension: types and messages.

Sources: the protocol at github.com/kserve/open-inference-protocol, and the extensions "binary tensor data" and "model
repository" in Triton's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError

from service.errors import BadRequest, shown
from service.wire.json_text import require_ascii_where_large

IMAGE = "image"
OUTPUTS = ("keypoints", "boxes", "scores", "num_poses")
HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_TOKENS = 1_000_000
"""Most brackets and commas in the JSON of a call: a picture of 640 x 480 as numbers. Lists of tiny values take many
times the memory of their text."""

MAX_QUOTES = 10_000
"""Most quotation marks in the JSON of a call: two for each name and each picture. Faults of unknown names take many
times the memory of their text."""


class ModelControl(BaseModel):
    """Body of the calls of the model repository."""

    ready: bool = Field(default=False, description="Of the index: list only models that are ready.")
    parameters: dict[str, Any] = Field({}, description="None is supported.")


class RepositoryEntry(BaseModel):
    """One version of a model in the repository's index."""

    name: str
    version: str = Field(description="Empty for a bundle that is not loaded.")
    sha256: str | None = Field(description="Hash of the network's file, hex; null for a bundle that is not loaded.")
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is unavailable, or why the last load left this version serving.")


class InferenceError(BaseModel):
    """Every error below /v2."""

    error: str = Field(description="What was expected, what was received, and what to do.")


class ServerMetadata(BaseModel):
    """Reply of /v2."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any length.")


class ModelMetadata(BaseModel):
    """Reply of /v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputTensor(BaseModel):
    """An input: its data stand in `data`, or as `binary_data_size` bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[StrictInt] = Field(max_length=8)
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferParameters(BaseModel):
    """Options of one call, as in the query of /predict."""

    model_config = {"extra": "forbid"}

    binary_data_output: StrictBool = Field(default=False, description="Whether outputs are binary by default.")
    max_people: int | None = Field(None, ge=1, le=100)
    min_score: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    boxes: str | None = Field(None, description="JSON `[[x, y, width, height], …]`, for every picture of the call.")


class InferRequest(BaseModel):
    """Body of /v2/models/{name}/infer, or its JSON part."""

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[InputTensor] = Field(max_length=8)
    outputs: list[RequestedOutput] = Field([], max_length=8)


class OutputTensor(TensorMetadata):
    """An output: flat data, or the size of its binary data."""

    parameters: dict[str, int] | None = None
    data: list[float] | list[int] | None = None


class InferReply(BaseModel):
    """Reply of /v2/models/{name}/infer, or its JSON part."""

    model_config = {"protected_namespaces": ()}

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


@dataclass(frozen=True, slots=True)
class InferCall:
    """A request whose parts fit each other.

    Attributes:
        id: The caller's, for the reply.
        parameters: Options.
        image: Describes the pictures.
        binary: Their binary data; None: their data stand in ``image``.
        outputs: Names of the outputs in the order of the reply, and whether each is binary.
    """

    id: str | None
    parameters: InferParameters
    image: InputTensor
    binary: memoryview | None
    outputs: Mapping[str, bool]


def read_call(body: bytes, header_length: str | None) -> InferCall:
    """Read the body of an inference call.

    Args:
        body: JSON, and binary data behind it.
        header_length: The header `HEADER_LENGTH`: size of the JSON in bytes; None: the body is JSON alone.

    Raises:
        BadRequest: The body does not follow the protocol.
    """
    size = len(body) if header_length is None else _json_size(header_length, len(body))
    text = body[:size]
    if sum(map(text.count, (b"{", b"[", b","))) > MAX_TOKENS:
        raise BadRequest(
            f"expected at most {MAX_TOKENS} brackets and commas in the JSON, got more; send pixels as binary data "
            f"(header {HEADER_LENGTH}), or the picture's file as BYTES"
        )
    if text.count(b'"') > MAX_QUOTES:
        raise BadRequest(f"expected at most {MAX_QUOTES} quotation marks in the JSON, got more; send several calls")
    require_ascii_where_large(text)
    try:
        request = InferRequest.model_validate_json(text)
    except ValidationError as error:
        raise _not_a_request(error, header_length) from None
    names = [tensor.name[:80] for tensor in request.inputs]
    if names != [IMAGE]:
        raise BadRequest(f"expected one input 'image', got {shown(names, 200)}; options are parameters of the request")
    (image,) = request.inputs
    binary = _binary_data(image, memoryview(body)[size:])
    return InferCall(request.id, request.parameters, image, binary, _wanted(request))


def describe_tensors(keypoints: int) -> tuple[list[TensorMetadata], list[TensorMetadata]]:
    """Describe the inputs and outputs of a model with so many keypoints."""
    inputs = [TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1])]
    shapes = {"keypoints": [-1, -1, keypoints, 3], "boxes": [-1, -1, 4], "scores": [-1, -1], "num_poses": [-1]}
    return inputs, [
        TensorMetadata(name=name, datatype="INT32" if name == "num_poses" else "FP32", shape=shapes[name])
        for name in OUTPUTS
    ]


def _json_size(header_length: str, body_size: int) -> int:
    if header_length.isascii() and header_length.isdigit() and len(header_length) < 20:
        size = int(header_length)
        if size <= body_size:
            return size
    raise BadRequest(
        f"expected {HEADER_LENGTH} to be the size of the JSON in bytes, at most the body's {body_size}, got "
        f"{shown(header_length)}; let the client library set it"
    )


def _not_a_request(error: ValidationError, header_length: str | None) -> BadRequest:
    fault = error.errors(include_url=False)[0]
    if fault["type"] != "json_invalid":
        where = ".".join(map(str, fault["loc"])) or "the body"
        return BadRequest(f"{where[:200]}: {fault['msg']}, got {shown(fault['input'])}; see /docs for the request")
    hint = f"; binary data need the header {HEADER_LENGTH}" if header_length is None else ""
    return BadRequest(f"expected an inference request in JSON, got something else: {fault['msg'][:200]}{hint}")


def _binary_data(image: InputTensor, binary: memoryview) -> memoryview | None:
    size = image.parameters.get("binary_data_size")
    if "shared_memory_region" in image.parameters:
        raise BadRequest("input 'image': expected its data in the call, got a shared memory region; send the data")
    if (size is None) == (image.data is None):
        got = "neither" if size is None else "both"
        raise BadRequest(f"input 'image': expected its data either in 'data' or as binary_data_size, got {got}")
    if size is not None and (type(size) is not int or size < 0):
        raise BadRequest(f"input 'image': expected binary_data_size to be a number of bytes, got {shown(size)}")
    if (size or 0) != len(binary):
        raise BadRequest(
            f"input 'image': expected {size or 0} bytes behind the JSON as binary_data_size says, got {len(binary)}; "
            "send all of them and nothing else"
        )
    return None if size is None else binary


def _wanted(request: InferRequest) -> dict[str, bool]:
    default = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(OUTPUTS, default)
    wanted: dict[str, bool] = {}
    for output in request.outputs:
        if output.name not in OUTPUTS or output.name in wanted:
            raise BadRequest(f"expected outputs of {list(OUTPUTS)}, each once, got {shown(output.name)}")
        if unknown := sorted(set(output.parameters) - {"binary_data"}):
            raise BadRequest(
                f"output {output.name!r}: expected no parameter but binary_data, got "
                f"{shown([it[:80] for it in unknown[:10]], 200)}"
            )
        binary = output.parameters.get("binary_data", default)
        if not isinstance(binary, bool):
            raise BadRequest(f"output {output.name!r}: expected binary_data to be true or false, got {shown(binary)}")
        wanted[output.name] = binary
    return wanted
