"""A training in one HTML page."""
