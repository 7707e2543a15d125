"""Labelled pictures: reading, crop caches, augmentation."""
