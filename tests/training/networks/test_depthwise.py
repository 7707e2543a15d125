"""The fast gradients of depthwise convolutions equal those of the plain convolution."""

import pytest
import torch
from torch import Tensor, nn

from training.networks.depthwise import DepthwiseConv2d


def output_and_gradients(layer: nn.Conv2d, x: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    output = nn.Conv2d.forward(layer, x) if x.dtype == torch.float64 else layer(x)
    return output.detach(), *torch.autograd.grad(output, (x, *layer.parameters()), upstream.to(output.dtype))


@pytest.mark.parametrize(
    ("half", "channels", "tolerance"),
    [(False, 67, 1e-5), (True, 8, 0.03)],  # bf16 has 8 significant bits
    ids=["float32", "bf16"],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_output_and_gradients_equal_those_in_float64(
    kernel: int, stride: int, half: bool, channels: int, tolerance: float
) -> None:
    """Each path of the implementation, on even and odd sides and on pictures smaller than the kernel."""
    torch.manual_seed(kernel + stride)
    for size in ((12, 10), (9, 7), (1, 2)):
        for bias in (False, True):
            x = torch.randn(3, channels, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
            layer = DepthwiseConv2d(channels, kernel, stride)
            layer.bias = nn.Parameter(torch.randn(channels)) if bias else None
            upstream = torch.randn(layer(x.float()).shape, dtype=torch.float64)
            want = output_and_gradients(layer.double(), x, upstream)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                got = output_and_gradients(layer.float(), x.float(), upstream)
            assert got[0].dtype == (torch.bfloat16 if half else torch.float32)
            assert all(it.dtype == torch.float32 for it in got[2:])
            for ours, exact in zip(got, want, strict=True):
                difference = float((ours.double() - exact).abs().max() / exact.abs().max())
                assert difference < tolerance, (size, bias)


@pytest.mark.parametrize("channels", [1, 8])
def test_few_channels_are_summed_exactly_too(channels: int) -> None:
    """One channel leaves nothing to vectorise, and 8 fill a vector."""
    torch.manual_seed(0)
    x, layer = torch.randn(2, channels, 9, 7, dtype=torch.float64), DepthwiseConv2d(channels, 5)
    upstream = torch.randn(x.shape, dtype=torch.float64)
    want = output_and_gradients(layer.double(), x, upstream)
    for ours, exact in zip(output_and_gradients(layer.float(), x.float(), upstream), want, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_a_frozen_weight_gets_no_gradient_and_its_input_does(half: bool) -> None:
    layer = DepthwiseConv2d(8, 5).requires_grad_(requires_grad=False)
    x = torch.randn(2, 8, 12, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        layer(x).sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is None
        layer.requires_grad_()(torch.randn(2, 8, 12, 10)).sum().backward()
    assert layer.weight.grad is not None
