"""Rendered people with exact keypoints: no photo, no annotator, no licence to ask for. See `docs/synthetic.md`."""
