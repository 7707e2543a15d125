"""Network outputs to keypoints."""
