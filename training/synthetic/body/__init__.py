"""Bodies: shape, skeleton, poses, keypoints."""
