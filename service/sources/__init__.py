"""Sources: cameras and video files that the server itself reads, and what becomes of their results."""
