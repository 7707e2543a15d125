"""Scenes: people, things, backgrounds, films."""
