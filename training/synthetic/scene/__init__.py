"""Scenes: people, objects, backgrounds and clips."""
