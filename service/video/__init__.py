"""Videos of cameras, files and devices: which may be opened, and their frames."""
