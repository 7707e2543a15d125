"""Labelled pictures of other people's making: read from the usual layouts, checked, converted to COCO json."""
