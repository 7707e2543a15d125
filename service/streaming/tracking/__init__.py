"""Tracking: the same person keeps the same id from frame to frame."""
