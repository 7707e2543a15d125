"""The pose runtime: crop, run, decode. Needs numpy, OpenCV, pydantic and onnxruntime only."""
