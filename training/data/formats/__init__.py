"""Labelled sets of other tools: readers of common layouts, checks, conversion to COCO JSON."""
