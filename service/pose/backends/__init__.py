"""Runners of ONNX graphs: the execution providers of onnxruntime, and OpenVINO."""
