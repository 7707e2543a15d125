"""Execution providers: what is written, what is refused and why, and what `auto` takes."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from service.cli import run
from service.pose.backends import provider_choice
from service.pose.backends.execution_provider import (
    ONNXRUNTIME_NAMES,
    PROVIDER_NAMES,
    BackendError,
    ExecutionProvider,
)
from service.pose.backends.provider_choice import AUTOMATIC, choose
from service.pose.backends.runner import OnnxRunner
from service.settings import DEFAULT_BATCH_SIZE, MAX_BATCH_SIZE, PREFIX, Settings, SettingsError, load
from tests import spots

absent = [
    name
    for name in PROVIDER_NAMES
    if name != "openvino" and ONNXRUNTIME_NAMES[name] not in ort.get_available_providers()
]
needs_cpu_build = pytest.mark.skipif("cuda" not in absent, reason="this onnxruntime contains the provider")


@pytest.mark.parametrize("text", ["cpu", "cuda", "cuda:1", "tensorrt:12", "coreml", "directml:2", "openvino"])
def test_providers_are_read_as_they_are_written(text: str) -> None:
    assert str(ExecutionProvider.parse(text)) == text


@pytest.mark.parametrize("text", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1000", "cpu:0", "openvino:1", "cuda:1 "])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BackendError, match=r"expected one of cpu, cuda, .*such as cuda:1, got "):
        ExecutionProvider.parse(text)


def test_options_and_devices_reach_onnxruntime() -> None:
    ours = (("trt_fp16_enable", "1"), ("device_id", "3"))
    tensorrt, cuda, cpu = ExecutionProvider.parse("tensorrt:2", ours).for_onnxruntime()
    assert tensorrt == ("TensorrtExecutionProvider", {"trt_fp16_enable": "1", "device_id": "3"})
    assert cuda == ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "device_id": "2"})
    assert cpu == ("CPUExecutionProvider", {})
    assert ExecutionProvider("coreml").for_onnxruntime()[0][1] == {"ModelFormat": "MLProgram"}
    assert ExecutionProvider("cpu").for_onnxruntime() == [("CPUExecutionProvider", {})]


def test_a_detector_does_not_run_on_tensorrt() -> None:
    assert str(ExecutionProvider("tensorrt", 1).for_graph(size_varies=True)) == "cuda:1"
    assert str(ExecutionProvider("tensorrt", 1).for_graph(size_varies=False)) == "tensorrt:1"
    assert str(ExecutionProvider("directml").for_graph(size_varies=True)) == "directml"


@pytest.mark.parametrize("name", absent)
def test_a_provider_that_is_not_installed_is_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--execution-provider", name]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "POSEWRIGHT_EXECUTION_PROVIDER (--execution-provider)" in said
    assert f"expected an onnxruntime with {ONNXRUNTIME_NAMES[name]}, got onnxruntime" in said
    assert provider_choice._REMEDIES[name] in said


def test_openvino_without_its_package_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_choice, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"\(--execution-provider\).*not installed; pip install '\.\[openvino\]'"):
        load({PREFIX + "EXECUTION_PROVIDER": "openvino"})


@pytest.mark.parametrize("wanted", ["auto", "cpu", "openvino"])
def test_options_need_a_provider_that_takes_them(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    assert run(["--execution-provider", wanted, "--provider-options", '{"trt_fp16_enable": true}']) == 1
    assert capsys.readouterr().err.endswith((f", got {wanted}\n", f"with {wanted}, got trt_fp16_enable\n"))


@needs_cpu_build
def test_running_on_the_cpu_in_place_of_an_accelerator_is_an_error() -> None:
    """onnxruntime only warns."""
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="onnxruntime used CPUExecutionProvider in place of CUDAExecutionProvider"),
    ):
        OnnxRunner(spots.pose_network(), 1, ExecutionProvider("cuda"))


@needs_cpu_build
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    choice = choose()
    assert str(choice.provider) == "cpu"
    assert choice.reason == "auto: this onnxruntime has neither cuda nor directml"
    assert Settings().images_per_batch == 1


@needs_cpu_build
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_says_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with onnxruntime-gpu on a machine without CUDA: the build names a provider that it cannot open."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    choice = choose.__wrapped__()
    assert str(choice.provider) == "cpu"
    assert choice.reason.startswith("auto: cuda does not work: ")
    with pytest.raises(BackendError, match=r"expected cuda:1 to work, got from onnxruntime .*or choose cpu"):
        choose.__wrapped__("cuda:1")


def test_auto_takes_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(ONNXRUNTIME_NAMES.values()))
    monkeypatch.setattr(provider_choice, "_fault", lambda provider: "broken" if provider.name == "cuda" else "")
    assert choose.__wrapped__().provider == ExecutionProvider("directml")
    monkeypatch.setattr(provider_choice, "_fault", lambda _: "")
    assert choose.__wrapped__().provider == ExecutionProvider(AUTOMATIC[0])


def test_batches_are_on_by_default_where_they_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(ONNXRUNTIME_NAMES.values()))
    monkeypatch.setattr(provider_choice, "_fault", lambda _: "")
    choose.cache_clear()
    try:
        on = {name: Settings(execution_provider=name) for name in (*PROVIDER_NAMES, "auto") if name != "openvino"}
        sizes = {name: it.images_per_batch for name, it in on.items()}
        assert sizes == {"cpu": 1, "coreml": 1} | dict.fromkeys(("cuda", "tensorrt", "directml", "auto"), 8)
        assert on["cuda"].inference_thread_count == DEFAULT_BATCH_SIZE + 2
        assert Settings(execution_provider="cuda", inference_threads=3).inference_thread_count == 3
        assert Settings(execution_provider="cuda", batch_size=1).images_per_batch == 1
        assert Settings(execution_provider="cpu", batch_size=MAX_BATCH_SIZE).inference_thread_count == 64
    finally:
        choose.cache_clear()


def test_the_probe_is_the_graph_that_it_claims_to_be() -> None:
    model = onnx.load_from_string(provider_choice.PROBE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"], b64encode(provider_choice.PROBE)
    session = ort.InferenceSession(provider_choice.PROBE, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.full((1, 1, 1, 1), 3, np.float32)})[0].item() == 3
