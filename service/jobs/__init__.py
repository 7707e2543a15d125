"""Video jobs: a video is processed in the background, frame by frame, and its results are kept on disk for a time."""
