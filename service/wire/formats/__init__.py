"""Reply formats that other tools read: COCO, TensorFlow.js, OpenPose, Roboflow."""
