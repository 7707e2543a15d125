"""The wire format ``pose.v1``: what a caller may ask, and what a reply holds."""
