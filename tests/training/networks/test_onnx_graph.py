"""An ONNX graph run by torch has the outputs of onnxruntime."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from service.pose.backends.runner import open_session
from tests.training.distillation.test_teachers import PoseStandIn, take
from training.data import coco
from training.distillation import teachers
from training.networks.blocks import TopDown, head
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.mobileone import MobileOne
from training.networks.onnx_graph import OnnxModule
from training.networks.shufflenet import ShuffleNet

PEERS = Path(os.environ.get("POSEWRIGHT_PEERS", Path(__file__).parents[4] / "shared" / "peers"))
MODELS = Path(__file__).parents[3] / "service" / "models"


class NormalisedNetwork(nn.Module):
    """A backbone with decoder and head that takes normalised pictures, as imported networks do."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = TopDown(backbone.widths, 16)  # type: ignore[arg-type]
        self.head = head(16, 17)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.head(self.decoder(self.backbone(x)))
        return maps, torch.nn.functional.hardswish(maps).flatten(2).softmax(dim=2)


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: EfficientNetLite0(5, pretrained=False),
        lambda: MobileOne((16, 16, 16, 16), (1, 1, 1, 1)),
        lambda: ShuffleNet((16, 16, 16, 16), (2, 1, 1, 1)),
    ],
    ids=["EfficientNet-Lite0", "MobileOne", "ShuffleNet"],
)
def test_torch_and_onnxruntime_agree(backbone: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings(action="ignore"):  # the exporter is marked deprecated
        torch.onnx.export(
            NormalisedNetwork(backbone()).eval(),
            (torch.zeros(1, 3, 64, 64),),
            str(path),
            dynamo=False,
            input_names=["x"],
        )
    x = torch.randn(1, 3, 64, 64)
    expected = open_session(path, threads=1).run(None, {"x": x.numpy()})
    for want, got in zip(expected, OnnxModule(path.read_bytes())(x), strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=1e-4 * np.abs(want).max())


def test_the_error_names_an_unknown_operator(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x)

    path = tmp_path / "odd.onnx"
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(Odd(), (torch.zeros(1, 3),), str(path), dynamo=False)
    with pytest.raises(coco.DatasetError, match="Erf"):
        OnnxModule(path.read_bytes())


@pytest.mark.parametrize("name", [pytest.param("teacher", marks=pytest.mark.slow), "student-s", "student-t"])
def test_a_bundle_has_the_same_heatmaps_in_torch_as_in_onnxruntime(name: str) -> None:
    """Shipped bundles, some of which run a flip test and slice with negative steps."""
    pixels = torch.randint(0, 256, (2, 32, 24, 3), dtype=torch.uint8)
    path = MODELS / name
    served, in_torch = teachers.BundleTeacher(path), teachers.BundleTeacher(path, on=torch.device("cpu"))
    width, height = served.crop_size
    pixels = pixels.repeat_interleave(height // 32 + 1, 1)[:, :height].repeat_interleave(width // 24 + 1, 2)
    pixels = pixels[:, :, :width].contiguous()
    expected = served.maps(pixels)
    torch.testing.assert_close(in_torch.maps(pixels), expected, atol=1e-4 * float(expected.max()), rtol=0)
    assert isinstance(in_torch.module, OnnxModule)


def test_a_graph_with_unknown_operators_teaches_through_onnxruntime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(PoseStandIn):
        def forward(self, normal: torch.Tensor) -> torch.Tensor:
            return torch.erf(super().forward(normal))

    path = take(Odd(), tmp_path / "odd")
    pixels = torch.randint(0, 256, (1, 256, 192, 3), dtype=torch.uint8)
    teacher = teachers.BundleTeacher(path, on=torch.device("cpu"))
    assert "this teacher runs on the CPU" in capsys.readouterr().err
    assert torch.equal(teacher.maps(pixels), teachers.BundleTeacher(path).maps(pixels))


@pytest.mark.skipif(not PEERS.is_dir(), reason="needs the rivals' ONNX files: set POSEWRIGHT_PEERS to their folder")
def test_pp_tinypose_runs_in_torch() -> None:
    file = PEERS / "pp_tinypose_256x192_heatmap.onnx"
    normal = torch.randn(2, 3, 256, 192)
    (expected,) = open_session(file, threads=1).run(None, {"image": normal.numpy()})
    (found,) = OnnxModule(file.read_bytes())(normal)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
