"""The fast gradients of depthwise convolutions are those of the plain convolution."""

import pytest
import torch
from torch import Tensor, nn

from training.networks.depthwise import DepthwiseConv2d


def gradients(layer: nn.Conv2d, x: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    answer = nn.Conv2d.forward(layer, x) if x.dtype == torch.float64 else layer(x)
    return answer.detach(), *torch.autograd.grad(answer, (x, *layer.parameters()), upstream.to(answer.dtype))


@pytest.mark.parametrize(("channels", "half"), [(1, False), (8, False), (67, False), (8, True)])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [(12, 10), (9, 7), (1, 2)], ids=["even", "odd", "smaller than the kernel"])
def test_answer_and_gradients_are_those_of_float64(
    kernel: int, stride: int, size: tuple[int, int], channels: int, bias: bool, half: bool
) -> None:
    torch.manual_seed(kernel + stride)
    x = torch.randn(3, channels, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    layer = DepthwiseConv2d(channels, kernel, stride)
    layer.bias = nn.Parameter(torch.randn(channels)) if bias else None
    upstream = torch.randn(layer(x.float()).shape, dtype=torch.float64)
    want = gradients(layer.double(), x, upstream)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        got = gradients(layer.float(), x.float(), upstream)
    assert got[0].dtype == (torch.bfloat16 if half else torch.float32)
    assert all(it.dtype == torch.float32 for it in got[2:])
    for mine, exact in zip(got, want, strict=True):
        assert float((mine.double() - exact).abs().max() / exact.abs().max()) < (
            0.03 if half else 1e-5
        )  # bf16 keeps 8 bits


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_a_frozen_weight_or_input_takes_no_gradient(half: bool) -> None:
    layer = DepthwiseConv2d(8, 5).requires_grad_(requires_grad=False)
    x = torch.randn(2, 8, 12, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        layer(x).sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is None
        layer.requires_grad_()(torch.randn(2, 8, 12, 10)).sum().backward()
    assert layer.weight.grad is not None
