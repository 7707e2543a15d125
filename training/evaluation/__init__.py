"""Accuracy, latency and errors of bundles."""
