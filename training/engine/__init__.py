"""The training loop and what it needs: checkpoints, optimizers, several processes."""
