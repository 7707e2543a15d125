"""Export of checkpoints as bundles, with their model cards."""
