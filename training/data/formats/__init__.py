"""Labelled sets of other tools: read from the usual layouts, checked, converted to COCO JSON."""
