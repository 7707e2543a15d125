"""Checkpoints to bundles, and bundles back to networks."""
