"""The graph of an imported bundle, of any architecture, can be trained further and exported."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import BundleError
from service.pose.estimator import PoseEstimator
from tests import spots
from tests.training.conftest import tiny_recipe
from tests.training.distillation.test_teachers import take
from tests.training.published_tinypose import shuffle
from training.data.coco import DatasetError
from training.distillation.pose_task import PoseTask
from training.distillation.teachers import NetworkTeacher
from training.engine import checkpoint, from_bundle, initial_weights, loop
from training.export import to_onnx
from training.networks import registry
from training.networks.onnx_graph import OnnxModule
from training.networks.served import served_network
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

CPU = torch.device("cpu")


class Shuffled(nn.Module):
    """A few convolutions around a channel shuffle, whose Reshapes have constant height and width."""

    def __init__(self, size: tuple[int, int] | None = None, flat: bool = False) -> None:
        """Build it; ``size`` (h, w) of the maps adds a Resize to a constant size, ``flat`` a layer over all cells."""
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.PReLU(16), nn.ConvTranspose2d(16, 8, 4, 2, 1))
        self.size = size
        self.cells = nn.Linear(64 * 48, 64 * 48) if flat else None
        self.head = nn.Conv2d(8, 17, 1)

    def forward(self, normal: Tensor) -> Tensor:
        x = self.stem(normal)
        x = torch.relu(shuffle(torch.cat([x[:, :4], x[:, 4:] * 2], dim=1)) + self.deep(x))
        if self.size is not None:
            x = nn.functional.interpolate(x, self.size, mode="nearest")
        maps = self.head(x)
        return maps if self.cells is None else self.cells(maps.flatten(2)).view(-1, 17, 64, 48)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take(Shuffled().eval(), tmp_path_factory.mktemp("bundles") / "shuffled")


def recipe_of(graph: Path, size: tuple[int, int] = (96, 128), steps: int = 3, **changes: object) -> Recipe:
    network = {"kind": "pose", "backbone": "imported", "graph": str(graph), "input_size": size, "norms": "folded"}
    losses = {"regression": 1.0, "classification": 0.0}
    tree: dict[str, object] = {
        "network": {**network, "temperature": 10},
        "losses": losses,
        "phases": [{"steps": steps, "batch": 8, "size": size, "augment": "faint"}],
        "optimizer": {"lr": 0.02, "warmup_steps": 2, "ema_decay": 0.5},
    }
    return tiny_recipe(**{**tree, **changes})


@pytest.mark.parametrize("size", [(192, 256), (96, 128), (104, 136)])
def test_an_imported_network_begins_with_the_outputs_of_its_bundle_at_any_size(
    graph: Path, size: tuple[int, int]
) -> None:
    network = registry.build(recipe_of(graph, size))
    width, height = size
    pixels = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
    maps = network(pixels)
    assert maps.shape == (3, 17, height // 4, width // 4)
    if size == (192, 256):
        opened = bundle.read(graph)
        (expected,) = OnnxRunner(opened.onnx, threads=1).run(pixels.numpy())
        torch.testing.assert_close(maps.detach(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)
    maps.square().mean().backward()
    trained = dict(network.named_parameters())
    assert sum(it.numel() for it in trained.values()) == sum(it.numel() for it in Shuffled().parameters()) - 16, (
        "the exporter folds the norm into the convolution, and nodes that the import added are not trained"
    )
    assert all(it.grad is not None and it.grad.abs().sum() > 0 for it in trained.values())


def test_it_trains_resumes_exports_and_teaches_after_the_bundle_is_gone(
    graph: Path, data_root: Path, tmp_path: Path
) -> None:
    place, run = shutil.copytree(graph, tmp_path / "shuffled"), tmp_path / "run"
    plan = recipe_of(place, steps=40)
    task = PoseTask(plan, data_root, CPU, run)
    batch = task.batch(1000, 0, plan.phases[0])

    def loss(network: nn.Module) -> float:
        with torch.no_grad():
            return float(sum(task.loss(network, network, batch, 0).values()))  # type: ignore[arg-type]

    before = loss(registry.build(plan))
    loop.fit(plan, task, run, CPU, until=20)
    shutil.rmtree(place)
    state = loop.fit(plan, task, run, CPU)
    after = registry.build(plan, pretrained=False)
    after.load_state_dict(state.ema)
    assert loss(after) < 0.7 * before
    whole = loop.fit(recipe_of(graph, steps=40), task, tmp_path / "whole", CPU)
    for name, weights in whole.ema.items():
        assert torch.equal(weights, state.ema[name]), name
    with pytest.raises(BundleError, match="shuffled"):
        loop.fit(plan, task, tmp_path / "new", CPU)

    written = to_onnx.export(whole, tmp_path / "tiny", "1")
    pixels = batch.pixels[:3]
    served = served_network(after, plan)
    with torch.no_grad():
        expected = served(pixels)
    (maps,) = OnnxRunner(written.onnx, threads=1).run(pixels.numpy())
    assert np.abs(maps - expected.numpy()).max() <= 1e-4 * float(expected.max())
    assert written.manifest.parameters == sum(it.numel() for it in after.parameters())
    assert written.manifest.gflops > 0
    image, (x, y) = spots.paint(spots.SURE), spots.SURE.center
    box = np.array([[x - 60, y - 100, x + 60, y + 100]], np.float32)
    estimator = PoseEstimator(written, OnnxRunner(written.onnx, threads=1))
    assert np.isfinite(estimator.estimate(image, box).keypoints).all()
    assert NetworkTeacher(run / "last.pt", CPU).maps(pixels).shape == (3, 17, 32, 24)
    with pytest.raises(BundleError, match="go on training from its checkpoint"):
        from_bundle.recipe_of(written)


def test_the_card_names_the_imported_start(graph: Path, data_root: Path, tmp_path: Path) -> None:
    plan = recipe_of(graph)
    assert plan.init_from == str(graph)
    state = loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path / "run"), tmp_path / "run", CPU)
    written = to_onnx.export(state, tmp_path / "tiny", "1")
    assert "began with the weights of a test (Apache-2.0), imported from `shuffled.onnx`" in written.card
    again = replace(plan, init_from=str(tmp_path / "run" / "last.pt"), name="again")
    assert initial_weights.load_matching(registry.build(again), initial_weights.read(again, tmp_path)) == len(state.ema)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "named"),
    [(Shuffled((64, 48)), r"(Add|Resize|heatmaps)"), (Shuffled(flat=True), r"node '.*' \((MatMul|Gemm|Reshape|Add)\)")],
    ids=["a Resize", "a layer over all cells"],
)
def test_a_graph_with_a_constant_size_can_be_trained_at_that_size_only(
    module: nn.Module, named: str, tmp_path: Path
) -> None:
    place = take(module.eval(), tmp_path / "fixed")
    registry.build(recipe_of(place, (192, 256)))
    with pytest.raises(DatasetError, match=named) as caught:
        registry.build(recipe_of(place))
    assert "at 96 x 128" in str(caught.value)
    assert "sizes are written into the graph: train it at its own input size" in str(caught.value)


def test_a_start_that_does_not_fit_is_refused(graph: Path, data_root: Path, tmp_path: Path) -> None:
    ours = spots.write_pose_bundle(tmp_path, "student-s", "student")
    with pytest.raises(DatasetError, match="expected a bundle of posewright-train import"):
        registry.build(recipe_of(ours))
    with pytest.raises(BundleError, match="expected a folder with manifest"):
        registry.build(recipe_of(tmp_path / "none"))
    with pytest.raises(RecipeError, match='expected graph = "bundles/NAME" with backbone = "imported"'):
        recipe_of(graph, network={"kind": "pose", "backbone": "plain-s", "input_size": [96, 128], "graph": "x"})
    with pytest.raises(RecipeError, match="expected frozen_blocks 0 for imported"):
        recipe_of(graph, phases=[{"steps": 1, "batch": 2, "size": [96, 128], "frozen_blocks": 2}])
    torch.manual_seed(1)
    other = registry.build(recipe_of(take(Shuffled((64, 48)).eval(), tmp_path / "other"), (192, 256)))
    with pytest.raises(checkpoint.CheckpointError, match=r"expected a checkpoint of the same network\.graph"):
        initial_weights.load_matching(registry.build(recipe_of(graph, (192, 256))), other.state_dict())


def test_a_module_takes_over_the_graph_of_the_state_that_it_loads(graph: Path) -> None:
    filled, empty = OnnxModule(bundle.read(graph).onnx, learns=True), OnnxModule(learns=True)
    empty.load_state_dict(filled.state_dict())
    pixels = torch.randint(0, 256, (1, 128, 96, 3), dtype=torch.uint8)
    assert torch.equal(empty(pixels)[0], filled(pixels)[0])
    assert empty.state_dict().keys() == filled.state_dict().keys()
