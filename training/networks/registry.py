"""The backbones that a recipe can name, and how to build the network that it describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from training.networks import imported_graph, pp_tinypose, rtmdet
from training.networks.blocks import LevelStack, fold_norms, fold_weights
from training.networks.detector import DetectorNetwork
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.lite_hrnet import LiteHRNet
from training.networks.mobileone import MobileOne
from training.networks.onnx_graph import OnnxModule
from training.networks.pose import PoseNetwork
from training.networks.rtmdet import RtmDet
from training.networks.shufflenet import ShuffleNet
from training.recipe.recipe import Recipe

TrainableNetwork = PoseNetwork | DetectorNetwork | RtmDet


@dataclass(frozen=True, slots=True)
class Backbone:
    """How to build an architecture, and its weights. `recipe.backbones` holds what limits recipes, such as its stride.

    Attributes:
        build: Makes the module for a recipe, with pretrained weights where there are any and the second argument asks
            for them. Either feature levels (N, C, h, w), finest first, around which this project puts a decoder and
            heads, or a whole network.
        pretrained: Which weights it begins with; empty where it begins with random ones.
        licence: Of these weights.
        original_weights: Reads the weights of the network's original authors out of their ONNX graph, as an imported
            bundle holds it; None: a bundle of another project cannot be its start.
        prunable: Whether a larger network of the same kind can be its start; `pruning.shrink` then fits the weights.
    """

    build: Callable[[Recipe, bool], nn.Module]
    pretrained: str = ""
    licence: str = ""
    original_weights: Callable[[bytes, Recipe], dict[str, Tensor]] | None = None
    prunable: bool = False


def _lite0(stages: int, context: bool = False) -> Backbone:
    def build(_: Recipe, pretrained: bool) -> nn.Module:
        return EfficientNetLite0(stages, pretrained, context)

    return Backbone(build, "EfficientNet-Lite0's ImageNet weights", "Apache-2.0")


def _from_scratch(kind: type[MobileOne | ShuffleNet], widths: tuple[int, ...], depths: tuple[int, ...]) -> Backbone:
    def build(_: Recipe, __: bool) -> nn.Module:
        return kind(widths, depths)

    return Backbone(build)


def _lite_hrnet(recipe: Recipe, _: bool) -> nn.Module:
    settings = recipe.network
    return LiteHRNet(len(recipe.skeleton), settings.modules, settings.unit_widths, settings.exchange)


def _imported(recipe: Recipe, pretrained: bool) -> nn.Module:
    """Open ``network.graph``, or an empty module for a checkpoint's graph if the bundle is gone and not needed."""
    if pretrained or Path(recipe.network.graph).exists():
        return imported_graph.open_graph(recipe)
    return OnnxModule(learns=True)


BACKBONES: dict[str, Backbone] = {
    "lite0": _lite0(stages=7),
    "lite0-context": _lite0(stages=6, context=True),
    "lite0-stride16": _lite0(stages=5),
    "lite0-stride16-narrow": _lite0(stages=4),
    "plain-s": _from_scratch(MobileOne, (32, 64, 128, 192), (2, 3, 5, 2)),
    "plain-m": _from_scratch(MobileOne, (48, 96, 192, 256), (2, 4, 6, 2)),
    "shuffle-s": _from_scratch(ShuffleNet, (48, 96, 160, 224), (2, 3, 5, 2)),
    "shuffle-m": _from_scratch(ShuffleNet, (64, 128, 224, 320), (2, 4, 7, 3)),
    "lite-hrnet": Backbone(
        _lite_hrnet,
        original_weights=lambda onnx, recipe: pp_tinypose.weights_of(onnx, len(recipe.skeleton)),
        prunable=True,
    ),
    "rtmdet-nano": Backbone(
        lambda recipe, _: RtmDet(recipe.network.activation),
        original_weights=lambda onnx, _: rtmdet.weights_of(onnx, is_bgr=False),
    ),
    "imported": Backbone(_imported),
}


def build(recipe: Recipe, pretrained: bool = True, with_surplus: bool = False) -> TrainableNetwork:
    """Build the recipe's network.

    A network with the backbone ``imported`` has the weights of its graph. Where the graph is gone and ``pretrained`` is
    not set, it stays empty until it loads a state, which brings the graph.

    Args:
        recipe: Describes it.
        pretrained: Begin with pretrained weights, where the backbone has any.
        with_surplus: Also build the modules and paths of the start that training prunes gradually, as a training needs
            them; otherwise build only what is left of them at the end.

    Raises:
        BundleError: ``network.graph`` is no bundle.
        DatasetError: Its graph cannot learn, or not at the recipe's sizes.
    """
    settings = recipe.network
    if with_surplus and settings.pruning_ramp:
        settings = replace(settings, modules=settings.start_modules, exchange=settings.start_exchange)
        recipe = replace(recipe, network=settings)
    network = _complete(BACKBONES[settings.backbone].build(recipe, pretrained), recipe)
    if settings.norms == "folded":
        weights = fold_weights(network.state_dict())
        fold_norms(network)
        network.load_state_dict(weights)  # pretrained weights remain where init_from has no such layer
    return network


def _complete(backbone: nn.Module, recipe: Recipe) -> TrainableNetwork:
    """Put decoder and heads around a backbone, unless it is a whole network."""
    if isinstance(backbone, RtmDet):
        return backbone
    if recipe.network.kind == "detector":
        assert isinstance(backbone, EfficientNetLite0 | LevelStack)
        return DetectorNetwork(backbone, recipe.network.decoder_width)
    assert isinstance(backbone, EfficientNetLite0 | LevelStack | LiteHRNet | OnnxModule)
    return PoseNetwork(backbone, recipe.network, adapts=recipe.losses.features > 0, skeleton=recipe.skeleton)
