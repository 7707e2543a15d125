"""One module for each format of a person's pose: posewright's own, COCO, TensorFlow.js, OpenPose, Roboflow."""
