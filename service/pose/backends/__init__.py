"""Backends that run an ONNX graph: onnxruntime and OpenVINO."""
