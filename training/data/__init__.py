"""Labelled images: reading, crop caches, augmentation."""
