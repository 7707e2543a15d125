"""The command line: ``posewright-client predict``, ``video``, ``webcam`` and ``bench``."""
