"""Decoders: network outputs to keypoints."""
