"""The fast bf16 gradients of depthwise convolutions are those of the plain convolution."""

import pytest
import torch
from torch import Tensor, nn

from training.networks.depthwise import DepthwiseConv2d


def gradients(layer: nn.Conv2d, x: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    answer = nn.Conv2d.forward(layer, x) if x.dtype == torch.float64 else layer(x)
    return answer.detach(), *torch.autograd.grad(answer, (x, layer.weight), upstream.to(answer.dtype))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [(12, 10), (9, 7)], ids=["even", "odd"])
def test_answer_and_gradients_are_those_of_float64(kernel: int, stride: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(kernel + stride)
    x = torch.randn(3, 8, *size, generator=generator, dtype=torch.float64).to(memory_format=torch.channels_last)
    layer = DepthwiseConv2d(8, kernel, stride)
    upstream = torch.randn(layer(x.float()).shape, generator=generator, dtype=torch.float64)
    want = gradients(layer.double(), x, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(layer.float(), x.float(), upstream)
    assert (got[0].dtype, got[2].dtype) == (torch.bfloat16, torch.float32)
    for mine, exact in zip(got, want, strict=True):
        assert float((mine.double() - exact).abs().max() / exact.abs().max()) < 0.02  # bf16 keeps 8 bits


def test_outside_of_bf16_it_is_the_plain_convolution_bit_for_bit() -> None:
    layer = DepthwiseConv2d(8, 5, 2)
    x = torch.randn(2, 8, 12, 10)
    upstream = torch.randn(2, 8, 6, 5)
    plain = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    plain.load_state_dict(layer.state_dict())
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(gradients(layer, x, upstream), gradients(plain, x, upstream), strict=True)
    )


def test_a_frozen_weight_or_input_takes_no_gradient() -> None:
    layer = DepthwiseConv2d(8, 5).requires_grad_(requires_grad=False)
    x = torch.randn(2, 8, 12, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is None
        layer.requires_grad_()(torch.randn(2, 8, 12, 10)).sum().backward()
    assert layer.weight.grad is not None
