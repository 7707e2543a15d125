"""Other people's ONNX models as bundles."""
