"""What runs an ONNX graph: onnxruntime or OpenVINO."""
