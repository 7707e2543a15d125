"""LiteHRNet has the outputs of PP-TinyPose, and pruning changes them little."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional as F

from tests.training.published_tinypose import PublishedTinyPose, onnx_of
from training.networks import pp_tinypose
from training.networks.blocks import IMAGENET_DEVIATION, IMAGENET_MEAN
from training.networks.lite_hrnet import ExchangeModule, LiteHRNet, NoExchange, ResidualUnit
from training.networks.pruning import shrink

SIZE = (64, 96)
PEERS = Path(__file__).parents[4] / "shared" / "peers"


def crops(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, size[1] // 8, size[0] // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def normalised(pixels: np.ndarray) -> np.ndarray:
    normal = (pixels.astype(np.float32) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_DEVIATION)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


@torch.no_grad()
def outputs(network: LiteHRNet, pixels: np.ndarray) -> np.ndarray:
    return network.eval()(torch.from_numpy(pixels)).numpy()


@pytest.fixture(scope="module")
def published() -> bytes:
    torch.manual_seed(3)
    return onnx_of(PublishedTinyPose(), SIZE)


@pytest.fixture(scope="module")
def large(published: bytes) -> LiteHRNet:
    network = LiteHRNet(17)
    network.load_state_dict(pp_tinypose.weights_of(published, 17))
    return network


def test_residual_units_equal_shuffle_units(published: bytes, large: LiteHRNet) -> None:
    pixels = crops(3, SIZE)
    session = ort.InferenceSession(published, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": normalised(pixels)})[0]
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(outputs(large, pixels), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("file", ["pp_tinypose_256x192_heatmap.onnx", "pp_tinypose_128x96_heatmap.onnx"])
def test_residual_units_equal_the_published_model(file: str) -> None:
    if not (PEERS / file).is_file():
        pytest.skip(f"{file} not found: PP-TinyPose's weights are not part of the project")
    session = ort.InferenceSession(str(PEERS / file), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    pixels = crops(2, (given.shape[3], given.shape[2]))
    network = LiteHRNet(17)
    network.load_state_dict(pp_tinypose.weights_of((PEERS / file).read_bytes(), 17))
    wanted = session.run(None, {given.name: normalised(pixels)})[0]
    np.testing.assert_allclose(outputs(network, pixels), wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_graph_of_another_network_is_refused() -> None:
    torch.manual_seed(0)
    narrow = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 17, 1))
    with pytest.raises(pp_tinypose.NotTinyPoseError, match="expected"):
        pp_tinypose.weights_of(onnx_of(narrow, SIZE), 17)


@pytest.mark.parametrize("size", [(64, 96), (80, 112), (48, 80)], ids=str)
def test_inputs_need_not_be_multiples_of_the_coarsest_stride(size: tuple[int, int], large: LiteHRNet) -> None:
    assert outputs(large, crops(1, size)).shape == (1, 17, size[1] // 4, size[0] // 4)


def test_pruning_to_the_same_size_changes_nothing(large: LiteHRNet) -> None:
    small = LiteHRNet(17)
    shrink(large, small, torch.from_numpy(crops(4, SIZE)))
    np.testing.assert_array_equal(outputs(small, crops(2, SIZE, 1)), outputs(large, crops(2, SIZE, 1)))


def test_pruning_redundant_channels_changes_little(large: LiteHRNet) -> None:
    """Every fifth channel inside a unit repeats another, so four fifths of the channels suffice."""
    doubled = LiteHRNet(17)
    doubled.load_state_dict(large.state_dict())
    with torch.no_grad():
        for unit in doubled.modules():
            if isinstance(unit, ResidualUnit):
                for layer in (unit.squeeze, unit.depthwise):
                    layer.weight[4::5] = layer.weight[0::5]
                    layer.bias[4::5] = layer.bias[0::5]  # type: ignore[index]
    small = LiteHRNet(17, unit_widths=(16, 32, 64, 128))
    shrink(doubled, small, torch.from_numpy(crops(16, SIZE)))
    wanted, got = (outputs(it, crops(3, SIZE, 2)) for it in (doubled, small))
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_the_remaining_channels_compensate_for_the_removed_ones(large: LiteHRNet) -> None:
    """The fitted weights are more accurate than just cutting off the last channels."""
    small, cut = (LiteHRNet(17, unit_widths=(16, 32, 64, 128)) for _ in range(2))
    shrink(large, small, torch.from_numpy(crops(16, SIZE)))
    kept = large.state_dict()
    cut.load_state_dict(
        {name: kept[name][tuple(slice(side) for side in it.shape)] for name, it in cut.state_dict().items()}
    )
    wanted, fitted, plain = (outputs(it, crops(3, SIZE, 2)) for it in (large, small, cut))
    assert np.square(fitted - wanted).mean() < 0.5 * np.square(plain - wanted).mean()


def test_in_a_star_all_exchange_is_with_the_finest_branch() -> None:
    star = LiteHRNet(17, exchange="star")
    for module in (part for part in star.modules() if isinstance(part, ExchangeModule)):
        for to, row in enumerate(module.exchange):
            for source, path in enumerate(row):  # type: ignore[arg-type]
                assert isinstance(path, NoExchange) == (source != to and source > 0 and to > 0)


def test_pruning_a_path_with_constant_output_changes_nothing(large: LiteHRNet) -> None:
    """The constant outputs of paths between coarse branches become biases."""
    constant = LiteHRNet(17)
    constant.load_state_dict(large.state_dict())
    with torch.no_grad():
        for module in (part for part in constant.modules() if isinstance(part, ExchangeModule)):
            for to, row in enumerate(module.exchange):
                for source, path in enumerate(row):  # type: ignore[arg-type]
                    if source != to and source and to:
                        *_, last = (it for it in path.modules() if isinstance(it, torch.nn.Conv2d))
                        last.weight.zero_()
    small = LiteHRNet(17, exchange="star")
    shrink(constant, small, torch.from_numpy(crops(4, SIZE)))
    wanted, got = (outputs(it, crops(3, SIZE, 2)) for it in (constant, small))
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_unit_keeps_channels_and_replaces_others() -> None:
    unit = ResidualUnit(8, 4)
    unit.keep[:4] = 0
    x = F.relu(torch.randn(2, 8, 5, 5))
    with torch.no_grad():
        torch.nn.init.zeros_(unit.expand.weight)
        output = unit(x)
    assert (output[:, :4] == F.relu(unit.expand.bias[:4, None, None])).all()  # type: ignore[index]
    torch.testing.assert_close(output[:, 4:], F.relu(x[:, 4:] + unit.expand.bias[4:, None, None]))  # type: ignore[index]
