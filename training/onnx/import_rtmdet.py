"""Makes a bundle of a third-party detector: the weights of RTMDet-nano are read into this project's own network."""

from __future__ import annotations

from pathlib import Path

from service.pose import bundle
from service.pose.bundle import Bundle, Manifest
from training.export import imported_card, to_onnx
from training.networks import rtmdet
from training.networks.served import served_network
from training.onnx.probe import ImportRefusedError
from training.recipe.network import Network
from training.recipe.recipe import Recipe


def make(
    path: Path, name: str, version: str, input_size: tuple[int, int], is_bgr: bool, origin: str, licence: str
) -> Bundle:
    """Make the bundle in memory; `bundle.write` writes it.

    Args:
        path: ONNX file: OpenMMLab's RTMDet-nano for people, with raw outputs.
        name: Name of the bundle.
        version: Version of the bundle.
        input_size: (width, height) in px whose area is the detector's budget.
        is_bgr: Whether the graph takes BGR.
        origin: Authors and source of the model, for the card.
        licence: Licence of the weights, for the card.

    Raises:
        ImportRefusedError: The file is missing or is another network.
    """
    if not path.is_file():
        raise ImportRefusedError(f"{path}: expected an ONNX file, found nothing")
    content = path.read_bytes()
    network = rtmdet.RtmDet()
    try:
        network.load_state_dict(rtmdet.weights_of(content, is_bgr))
    except rtmdet.NotRtmDetError as error:
        raise ImportRefusedError(f"{path}: {error}; import other detectors without --decoder") from error
    plan = Recipe(name, "detector", Network("detector", "rtmdet-nano", input_size, norms="folded"), (), ())
    served = served_network(network, plan)
    graph = to_onnx.to_onnx(served, plan)
    to_onnx.check(served, graph, plan)
    manifest = Manifest(
        name=name,
        version=version,
        role="detector",
        files={},
        skeleton=None,
        input_size=input_size,
        heatmap_size=None,
        box_padding=None,
        decoder="boxes",
        parameters=sum(it.numel() for it in network.parameters()),
        gflops=round(to_onnx.multiply_adds(served, plan) / 1e9, 4),
        trained_by={
            "imported_from": path.name,
            "imported_sha256": bundle.sha256(content),
            "origin": origin,
            "licence": licence,
        },
    )
    what = "a detector of people, which takes pictures of any size at about the area of its input,"
    return Bundle(Path(name), manifest, graph, imported_card.write(manifest, what, {}))
