"""Build and pose human bodies: shape, skeleton, poses and keypoints."""
