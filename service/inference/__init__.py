"""One image to poses: decoding, models, scheduling, metrics."""
