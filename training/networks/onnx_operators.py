"""The ONNX operators that `onnx_graph` can run, in torch: as many as convolutional pose networks need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attributes = dict[str, Any]
Operator = Callable[[list[Any], Attributes], Any]
"""Computes a node's outputs from its inputs and its attributes; ``outputs`` is their number."""
KEEPS = "keeps_height_and_width"
"""Attribute that this project adds to a Reshape whose last two sides equal those of its input."""


def _convolve(given: list[Any], at: Attributes) -> Tensor:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    strides, dilations = at.get("strides", (1, 1)), at.get("dilations", (1, 1))
    return F.conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), at.get("group", 1))


def _clip(given: list[Any], at: Attributes) -> Tensor:
    low = given[1] if len(given) > 1 and given[1] is not None else at.get("min")
    high = given[2] if len(given) > 2 and given[2] is not None else at.get("max")
    return torch.clamp(given[0], None if low is None else float(low), None if high is None else float(high))


def _split(given: list[Any], at: Attributes) -> list[Tensor]:
    sizes = given[1].tolist() if len(given) > 1 else at.get("split")
    axis = at.get("axis", 0)
    if sizes is None:
        return list(torch.chunk(given[0], at["outputs"], axis))
    return list(torch.split(given[0], list(sizes), axis))


def _reshape(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    shape = [int(x.shape[i]) if side == 0 else int(side) for i, side in enumerate(given[1].tolist())]
    if at.get(KEEPS):
        shape[-2:] = map(int, x.shape[-2:])
    # The first side stays dynamic: in a traced graph it would be the batch size of the trace.
    return torch.reshape(x, (-1, *map(int, torch.reshape(x, shape).shape[1:])))


def _resize(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    sides = [int(side) for side in x.shape[2:]]
    if len(given) > 3 and given[3] is not None:
        wanted = [int(v) for v in given[3][2:]]
    else:
        wanted = [round(side * float(scale)) for side, scale in zip(sides, given[2][2:], strict=True)]
    whole = all(to % side == 0 for to, side in zip(wanted, sides, strict=True))
    # Exported with factors instead of sizes, onnxruntime keeps its blocked layout of channels.
    factors = tuple(float(to // side) for to, side in zip(wanted, sides, strict=True)) if whole else None
    size = None if whole else wanted
    if at.get("mode", b"nearest") == b"nearest":
        return F.interpolate(x, size, factors, mode="nearest")
    corners = at.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(x, size, factors, mode="bilinear", align_corners=corners)


def _slice(given: list[Any], _: Attributes) -> Tensor:
    x, starts, ends = given[:3]
    axes = given[3].tolist() if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = given[4].tolist() if len(given) > 4 and given[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        cut, side = slice(start, end, step), int(x.shape[axis])
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(start, min(end, side), step),)]
        else:
            x = x.index_select(axis, torch.tensor(range(side)[cut], device=x.device))
    return torch.as_tensor(x)


def _unsqueeze(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    for axis in sorted(given[1].tolist() if len(given) > 1 else at["axes"]):
        x = x.unsqueeze(axis)
    return torch.as_tensor(x)


def _gather(given: list[Any], at: Attributes) -> Tensor:
    x, rows, axis = given[0], given[1].to(given[0].device), at.get("axis", 0)
    return torch.index_select(x, axis, rows.flatten()).reshape((*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :]))


def _deconvolve(given: list[Any], at: Attributes) -> Tensor:
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise RuntimeError(f"expected pads alike on both sides, got {at['pads']}")
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    stride, dilation = tuple(at.get("strides", (1, 1))), tuple(at.get("dilations", (1, 1)))
    more = tuple(at.get("output_padding", (0, 0)))
    return F.conv_transpose2d(x, weight, bias, stride, (top, left), more, at.get("group", 1), dilation)


def _norm(given: list[Any], at: Attributes) -> Tensor:
    x, scale, bias, mean, variance = given
    return F.batch_norm(x, mean, variance, scale, bias, eps=at.get("epsilon", 1e-5))


def _gemm(given: list[Any], at: Attributes) -> Tensor:
    a, b = given[0].T if at.get("transA") else given[0], given[1].T if at.get("transB") else given[1]
    product = at.get("alpha", 1.0) * (a @ b)
    return torch.as_tensor(product + at.get("beta", 1.0) * given[2] if len(given) > 2 else product)


def _pool(given: list[Any], at: Attributes) -> Tensor:
    return F.max_pool2d(given[0], at["kernel_shape"], at.get("strides", (1, 1)), at.get("pads", (0, 0))[:2])


def _mean(given: list[Any], at: Attributes) -> Tensor:
    axes = given[1].tolist() if len(given) > 1 else at["axes"]
    return torch.mean(given[0], dim=list(axes), keepdim=bool(at.get("keepdims", 1)))


DTYPES = {
    1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16,
    11: torch.float64,
}  # fmt: skip
"""ONNX's element types."""
OPERATORS: dict[str, Operator] = {
    "Add": lambda v, _: v[0] + v[1],
    "BatchNormalization": _norm,
    "Cast": lambda v, at: v[0].to(DTYPES[at["to"]]),
    "Clip": _clip,
    "Concat": lambda v, at: torch.cat(v, at["axis"]),
    "Conv": _convolve,
    "ConvTranspose": _deconvolve,
    "Div": lambda v, _: torch.div(v[0], v[1], rounding_mode=None if v[0].is_floating_point() else "trunc"),
    "Flatten": lambda v, at: torch.flatten(v[0], at.get("axis", 1)),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, _: v[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda v, at: (v[0] * at.get("alpha", 0.2) + at.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda v, _: F.hardswish(v[0]),
    "Identity": lambda v, _: v[0],
    "LeakyRelu": lambda v, at: F.leaky_relu(v[0], at.get("alpha", 0.01)),
    "MatMul": lambda v, _: v[0] @ v[1],
    "MaxPool": _pool,
    "Mul": lambda v, _: v[0] * v[1],
    "PRelu": lambda v, _: torch.where(v[0] < 0, v[0] * v[1], v[0]),
    "ReduceMean": _mean,
    "Relu": lambda v, _: F.relu(v[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda v, _: torch.tensor([int(side) for side in v[0].shape]),
    "Sigmoid": lambda v, _: torch.sigmoid(v[0]),
    "Slice": _slice,
    "Softmax": lambda v, at: torch.softmax(v[0], at.get("axis", -1)),
    "Split": _split,
    "Sub": lambda v, _: v[0] - v[1],
    "Transpose": lambda v, at: v[0].permute(at["perm"]),
    "Unsqueeze": _unsqueeze,
}
